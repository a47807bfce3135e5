#!/usr/bin/env bash
# Brings what the tests in this folder run against, once, into a cache folder that is named by the
# versions: kube-apiserver and etcd, built as servers/go.mod pins them, a Prometheus, the one in PATH
# or Debian's, and the helm of build_helm.sh. Prints that folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/servers"
. "$here/building.sh"

kubernetes=$(pinned k8s.io/kubernetes)
etcd=$(pinned go.etcd.io/etcd/server/v3)
folder=$(cache_folder "kube-apiserver-$kubernetes-etcd-$etcd")

is_complete() {
  [ -x "$folder/prometheus" ] && [ -x "$folder/etcd" ] && [ -x "$folder/kube-apiserver" ]
}

fetch_prometheus() {
  local found package
  if found=$(command -v prometheus); then
    ln -sf "$found" "$folder/prometheus"
    return
  fi
  package=$(mktemp -d)
  # Unpacked, not installed: a service that starts by itself is nothing for the machine of a developer.
  if ! (cd "$package" && { in_time "apt-get download" apt-get -qq download prometheus || {
    in_time "apt-get update" apt-get -qq update &&
      in_time "apt-get download" apt-get -qq download prometheus
  }; } && dpkg-deb -x prometheus_*.deb .) >&2; then
    rm -rf "$package"
    say "One test asks a real Prometheus, and apt-get has none here: install one and put it into PATH."
    exit 1
  fi
  mv "$package/usr/bin/prometheus" "$folder/prometheus"
  rm -rf "$package"
}

bring_all() {
  if ! is_complete; then
    need_go
    mkdir -p "$folder"
    # Two that build at the same time would only be slower; the second finds it done.
    exec 9>"$folder/lock"
    in_time "waiting for another build" flock 9
    if ! is_complete; then
      numbers=${kubernetes#v}
      version=k8s.io/component-base/version
      fetch_prometheus
      build "$folder" etcd go.etcd.io/etcd/server/v3 ""
      # The API server derives what it supports from its version, which a plain build does not know.
      build "$folder" kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "-X $version.gitVersion=$kubernetes \
        -X $version.gitMajor=${numbers%%.*} -X $version.gitMinor=$(cut -d. -f2 <<<"$numbers")"
    fi
  fi
  helm=$("$here/build_helm.sh")
  ln -sfn "$helm/helm" "$folder/helm"
  echo "$folder"
}

# Read as a whole before it runs: an edit must not change a build that is under way.
bring_all
