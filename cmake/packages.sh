# Sourced by tests/run.sh, benchmarks/run.sh and examples/run.sh: what this machine lacks, and how to get it.
# shellcheck shell=bash

compiler=${CXX:-c++}

# A header is looked for with the compiler; before there is one, every package that brings headers is asked for.
has_header() { command -v "$compiler" >/dev/null && "$compiler" -x c++ -std=c++20 -I /usr/include/eigen3 -E -include "$1" /dev/null >/dev/null 2>&1; }

# Adds to `missing` what every build needs, as Debian calls it.
missing_build_tools() {
  command -v cmake >/dev/null || missing+=(cmake)
  command -v ninja >/dev/null || missing+=(ninja-build)
  command -v "$compiler" >/dev/null && return
  case $compiler in
    clang++) missing+=(clang) ;;
    c++ | g++) missing+=(g++) ;;
    *) echo "$me: the compiler that CXX names, '$compiler', is not here" >&2; exit 1 ;;
  esac
}

# Adds to `missing` what the example sara_finetune is built with.
missing_for_the_example() {
  has_header Eigen/Core || missing+=(libeigen3-dev)
  has_header CLI/CLI.hpp || missing+=(libcli11-dev)
  has_header nlohmann/json.hpp || missing+=(nlohmann-json3-dev)
  has_header pugixml.hpp || missing+=(libpugixml-dev)
  has_header sentencepiece_trainer.h || missing+=(libsentencepiece-dev)
}

# Installs packages, saying which. `me` is the script's name.
install_packages() {
  (($#)) || return 0
  local as_root=()
  if ! command -v apt-get >/dev/null; then
    echo "$me: please install what Debian calls: $* (there is no apt-get here to do so)" >&2
    return 1
  fi
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "$me: please install as root: apt-get install $* (you are not root, and there is no sudo)" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "$me: installing $*"
  "${as_root[@]}" apt-get update -q && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

require_cmake() {
  local found
  found=$(cmake --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
  if [[ $(printf '%s\n' 3.25 "$found" | sort -V | head -n 1) != 3.25 ]]; then
    echo "$me: CMake 3.25 or newer is needed, and this is $found (Debian 12 and Ubuntu 24.04 have a newer one)" >&2
    exit 1
  fi
}
