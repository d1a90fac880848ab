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

me=tests/run.sh
. cmake/packages.sh
missing=()
[[ $build == @(clang|asan|tsan) ]] && compiler=clang++
# Debian keeps Clang's sanitizers in a package that it only recommends.
if [[ $build == @(asan|tsan) ]] && ! echo 'int main() {}' | clang++ -x c++ - -fsanitize=address -o /dev/null 2>/dev/null; then missing+=(libclang-rt-dev); fi
missing_build_tools
missing_for_the_example
has_header catch2/catch.hpp || has_header catch2/catch_all.hpp || missing+=(catch2)
has_header benchmark/benchmark.h || missing+=(libbenchmark-dev)
[[ $build == @(default|clang) ]] && { command -v valgrind >/dev/null || missing+=(valgrind); }   # instruction counts
[[ $build == default ]] && { command -v doxygen >/dev/null || missing+=(doxygen); }   # the manual
[[ $build == coverage ]] && { command -v gcovr >/dev/null || missing+=(gcovr); }
install_packages "${missing[@]}"
require_cmake

cmake --preset "$build"
# shellcheck disable=SC2086   # a list of names
cmake --build --preset "$build" --parallel "$jobs" --target $targets
ctest --preset "$preset" --tests-regex "$tests" --parallel "$jobs"
[[ $build != coverage ]] || cmake --build --preset coverage --target coverage
