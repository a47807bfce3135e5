#!/usr/bin/env bash
# Brings the helm that the chart is tested with, once, into a cache folder that is named by its
# version: built as helm/go.mod pins it. Prints that folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/helm"
. "$here/building.sh"

helm=$(pinned helm.sh/helm/v4)
folder=$(cache_folder "helm-$helm")

bring() {
  if [ ! -x "$folder/helm" ]; then
    need_go
    mkdir -p "$folder"
    # Two that build at the same time would only be slower; the second finds it done.
    exec 9>"$folder/lock"
    in_time "waiting for another build" flock 9
    if [ ! -x "$folder/helm" ]; then
      # What a release has in it; a plain build would not know which Kubernetes it speaks to.
      build "$folder" helm helm.sh/helm/v4/cmd/helm \
        "-X helm.sh/helm/v4/internal/version.version=$helm"
    fi
  fi
  echo "$folder"
}

# Read as a whole before it runs: an edit must not change a build that is under way.
bring
