#!/usr/bin/env bash
# Brings what the tests in this folder run against, once, into a cache folder that is named by the
# versions: kube-apiserver and etcd, built as servers/go.mod pins them, and a Prometheus, the one in
# PATH or Debian's. Prints that folder.
set -euo pipefail
cd "$(dirname "$0")/servers"

pinned() {
  sed -n "s|^[[:space:]]*$1 \(v[^ ]*\).*|\1|p" go.mod | head -n 1
}

say() {
  echo "$*" >&2
}

# A build from nothing takes 4 to 8 minutes on two cores; longer than this is a download that hangs.
minutes_max=${KUBE_BUILD_MINUTES_MAX:-40}
deadline=$((SECONDS + minutes_max * 60))

# Runs a command until the deadline that all of them share, and says what to do when it is over.
in_time() { # what it is, the command
  local what=$1 left=$((deadline - SECONDS)) status=0
  shift
  timeout --kill-after=10 "$((left > 1 ? left : 1))" "$@" || status=$?
  if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    say "$what was given up: all that the tests against a real kube-apiserver need was to be here" \
      "within $minutes_max minutes. What is compiled is kept, so run it again, or allow more:" \
      "KUBE_BUILD_MINUTES_MAX=$((2 * minutes_max)) make test-kube"
  fi
  return "$status"
}

kubernetes=$(pinned k8s.io/kubernetes)
etcd=$(pinned go.etcd.io/etcd/server/v3)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/couchestor/kube-apiserver-$kubernetes-etcd-$etcd

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

build() { # name, package, linker flags
  local started=$SECONDS
  say "building $1 (go build -p ${GO_JOBS:-2}) ..."
  # Exactly the modules of go.sum, with the toolchain that is here; nothing of the checkout in it.
  in_time "the build of $1" \
    env GOTOOLCHAIN=local CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath \
    -p "${GO_JOBS:-2}" -ldflags "-s -w $3" -o "$folder/$1.new" "$2"
  mv "$folder/$1.new" "$folder/$1"
  say "built $1 in $((SECONDS - started)) s"
}

bring_all() {
  if ! is_complete; then
    if ! command -v go >/dev/null; then
      say "make test-kube: the tests against a real kube-apiserver build it, and there is no Go" \
        "toolchain: install Go $(sed -n 's/^go //p' go.mod) or newer and put its 'go' into PATH."
      exit 1
    fi
    mkdir -p "$folder"
    # Two that build at the same time would only be slower; the second finds it done.
    exec 9>"$folder/lock"
    in_time "waiting for another build" flock 9
    if ! is_complete; then
      numbers=${kubernetes#v}
      version=k8s.io/component-base/version
      fetch_prometheus
      build etcd go.etcd.io/etcd/server/v3 ""
      # The API server derives what it supports from its version, which a plain build does not know.
      build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "-X $version.gitVersion=$kubernetes \
        -X $version.gitMajor=${numbers%%.*} -X $version.gitMinor=$(cut -d. -f2 <<<"$numbers")"
    fi
  fi
  echo "$folder"
}

# Read as a whole before it runs: an edit must not change a build that is under way.
bring_all
