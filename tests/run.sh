#!/usr/bin/env bash
# From a fresh Debian 12 / Ubuntu 24.04 (or newer) machine to green tests: `bash tests/run.sh`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
Installs what is missing with the system's package manager (and says what), then configures, builds and runs the tests.

usage: bash tests/run.sh [--preset NAME] [--targets NAMES] [--tests REGEX] [--jobs N]

  --preset NAME   a preset of CMakePresets.json: default, clang, debug, asan, tsan, coverage, fast-math (default: default),
                  or long, which runs the long tests of the default build
  --targets NAMES only these targets are built (default: all)
  --tests REGEX   only the tests whose name matches, as of `ctest -R`
  --jobs N        so many compilers at a time (default: as many as there are processors)
  --help          this text
END
}
refuse() {
  echo "tests/run.sh: $1 (see --help)" >&2
  exit 2
}

preset=default targets=all tests=. jobs=$(nproc)
while (($#)); do
  case $1 in
    --help) usage; exit 0 ;;
    --preset | --targets | --tests | --jobs)
      (($# > 1)) && [[ -n $2 ]] || refuse "$1 needs a value"
      case $1 in
        --preset) preset=$2 ;;
        --targets) targets=$2 ;;
        --tests) tests=$2 ;;
        --jobs) jobs=$2 ;;
      esac
      shift 2 ;;
    *) refuse "unknown argument '$1'" ;;
  esac
done
case $preset in
  default | clang | debug | asan | tsan | coverage | fast-math) build=$preset ;;
  long) build=default ;;
  *) refuse "there is no preset '$preset'" ;;
esac
[[ $jobs =~ ^[1-9][0-9]*$ ]] || refuse "--jobs must be a whole number of at least 1, but is '$jobs'"

missing=()
compiler=${CXX:-c++}
[[ $build == @(clang|asan|tsan) ]] && compiler=clang++
# Debian keeps Clang's sanitizers in a package that it only recommends.
if [[ $build == @(asan|tsan) ]] && ! echo 'int main() {}' | clang++ -x c++ - -fsanitize=address -o /dev/null 2>/dev/null; then missing+=(libclang-rt-dev); fi
has_header() { command -v "$compiler" >/dev/null && "$compiler" -x c++ -std=c++20 -I /usr/include/eigen3 -E -include "$1" /dev/null >/dev/null 2>&1; }

command -v cmake >/dev/null || missing+=(cmake)
command -v ninja >/dev/null || missing+=(ninja-build)
if ! command -v "$compiler" >/dev/null; then
  case $compiler in
    clang++) missing+=(clang) ;;
    c++ | g++) missing+=(g++) ;;
    *) echo "tests/run.sh: the compiler that CXX names, '$compiler', is not here" >&2; exit 1 ;;
  esac
fi
# A header is looked for with the compiler; before there is one, every package that brings headers is asked for.
has_header Eigen/Core || missing+=(libeigen3-dev)
has_header catch2/catch.hpp || has_header catch2/catch_all.hpp || missing+=(catch2)
has_header benchmark/benchmark.h || missing+=(libbenchmark-dev)
[[ $build == coverage ]] && { command -v gcovr >/dev/null || missing+=(gcovr); }

if ((${#missing[@]})); then
  as_root=()
  if ! command -v apt-get >/dev/null; then
    echo "tests/run.sh: please install what Debian calls: ${missing[*]} (there is no apt-get here to do so)" >&2
    exit 1
  fi
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "tests/run.sh: please install as root: apt-get install ${missing[*]} (you are not root, and there is no sudo)" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  echo "tests/run.sh: installing ${missing[*]}"
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

found=$(cmake --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
if [[ $(printf '%s\n' 3.25 "$found" | sort -V | head -n 1) != 3.25 ]]; then
  echo "tests/run.sh: CMake 3.25 or newer is needed, and this is $found (Debian 12 and Ubuntu 24.04 have a newer one)" >&2
  exit 1
fi

cmake --preset "$build"
# shellcheck disable=SC2086   # a list of names
cmake --build --preset "$build" --parallel "$jobs" --target $targets
ctest --preset "$preset" --tests-regex "$tests"
[[ $build != coverage ]] || cmake --build --preset coverage --target coverage
