# What the scripts that build the tests' programs share; sourced in the folder of a go.mod.

# A build from nothing takes 4 to 8 minutes on two cores; longer than this is a download that hangs.
minutes_max=${KUBE_BUILD_MINUTES_MAX:-40}
deadline=$((SECONDS + minutes_max * 60))

say() {
  echo "$*" >&2
}

pinned() { # module
  sed -n "s|^[[:space:]]*$1 \(v[^ ]*\).*|\1|p" go.mod | head -n 1
}

cache_folder() { # name
  echo "${XDG_CACHE_HOME:-$HOME/.cache}/couchestor/$1"
}

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

need_go() {
  if ! command -v go >/dev/null; then
    say "make test-kube: the tests against a real kube-apiserver build it, and helm, and there is no" \
      "Go toolchain: install Go $(sed -n 's/^go //p' go.mod) or newer and put its 'go' into PATH."
    exit 1
  fi
}

build() { # folder, name, package, linker flags
  local started=$SECONDS
  say "building $2 (go build -p ${GO_JOBS:-2}) ..."
  # Exactly the modules of go.sum, with the toolchain that is here; nothing of the checkout in it.
  in_time "the build of $2" \
    env GOTOOLCHAIN=local CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath \
    -p "${GO_JOBS:-2}" -ldflags "-s -w $4" -o "$1/$2.new" "$3"
  mv "$1/$2.new" "$1/$2"
  say "built $2 in $((SECONDS - started)) s"
}
