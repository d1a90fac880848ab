#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: builds, tests, sanitizes and benchmarks the CUDA backend, and writes what was seen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command_line="bash tests/gpu.sh $*"

usage() {
  cat <<'END'
Builds what needs a GPU, runs the tests labelled `gpu`, compute-sanitizer's four tools over them, and the benchmarks. Needs the CUDA toolkit
(13.0 or newer), CMake 3.25 and a C++20 compiler; nothing is installed. What Catch2, Eigen or Google Benchmark are missed for is left
out and said; CMAKE_PREFIX_PATH is passed on, and may name a folder that `--pack` filled on another machine.

usage: bash tests/gpu.sh [--only PARTS] [--output DIR] [--jobs N] [--arch N] [--build DIR] [--quick] [--fast-math]
       bash tests/gpu.sh --pack DIR

  --only PARTS    of build, tests, sanitize and benchmarks, with commas (default: all); each takes less than ten minutes on 16 processors
  --output DIR    where to write TESTS.md, RESULTS.md and results.json, and the logs of what failed (default: benchmarks/cuda;
                  with --fast-math: the build's folder)
  --jobs N        so many compilers, or sanitized programs, at a time (default: as many as there are processors)
  --arch N        compute capability without its point, as 90 (default: this machine's GPU's; 90 to build without one)
  --build DIR     where to build (default: build/gpu)
  --quick         short benchmarks, written to the build's folder
  --fast-math     builds with nvcc's --use_fast_math in build/gpu-fast-math, and runs the tests of accuracy alone, which must pass there too
  --pack DIR      copies this machine's Debian packages catch2, libeigen3-dev and libbenchmark-dev to DIR, to be carried to a machine without them
  --help          this text

Ends with 0 if all was well, 1 if not, 77 where there is no CUDA device, 2 for a wrong argument. CXX and CUDACXX name compilers.
END
}
refuse() {
  echo "tests/gpu.sh: $1 (see --help)" >&2
  exit 2
}
say() { echo "tests/gpu.sh: $*"; }

only='' output='' jobs=$(nproc) architecture='' build='' quick=() pack='' fast_math=''
while (($#)); do
  case $1 in
    --help) usage; exit 0 ;;
    --quick) quick=(--quick); shift ;;
    --fast-math) fast_math=yes; shift ;;
    --only | --output | --jobs | --arch | --build | --pack)
      [[ -n ${2:-} ]] || refuse "$1 needs a value"
      case $1 in
        --only) only=$2 ;;
        --output) output=$2 ;;
        --jobs) jobs=$2 ;;
        --arch) architecture=$2 ;;
        --build) build=$2 ;;
        --pack) pack=$2 ;;
      esac
      shift 2 ;;
    *) refuse "unknown argument '$1'" ;;
  esac
done
[[ $jobs =~ ^[1-9][0-9]*$ ]] || refuse "--jobs must be a whole number of at least 1, but is '$jobs'"
[[ -z $architecture || $architecture =~ ^[1-9][0-9]+a?$ ]] || refuse "--arch must be a compute capability as 90, but is '$architecture'"
[[ -n $only ]] || only=$([[ -n $fast_math ]] && echo build,tests || echo build,tests,sanitize,benchmarks)
[[ -n $build ]] || build=build/gpu${fast_math:+-fast-math}
results=${output:-$([[ -n $fast_math ]] && echo "$build" || echo benchmarks/cuda)}   # of the tests
IFS=, read -r -a parts <<<"$only"
for part in "${parts[@]}"; do
  [[ $part == @(build|tests|sanitize|benchmarks) ]] || refuse "--only knows build, tests, sanitize and benchmarks, but not '$part'"
done
wants() { [[ ,$only, == *,$1,* ]]; }

if [[ -n $pack ]]; then
  mkdir -p "$pack"
  dpkg-query -L catch2 libeigen3-dev libbenchmark-dev "$(dpkg-query -W -f '${Depends}' libbenchmark-dev | grep -o 'libbenchmark[^ ,]*')" |
    grep -E '^/usr/(include|lib|share)/' | grep -v '^/usr/share/doc/' | while IFS= read -r file; do
      if [[ ! -d $file || -L $file ]]; then
        mkdir -p "$pack/$(dirname "${file#/usr/}")"
        cp -a "$file" "$pack/${file#/usr/}"
      fi
    done
  say "packed $(du -sh "$pack" | cut -f 1) to '$pack': carry it, and set CMAKE_PREFIX_PATH to its absolute path"
  exit 0
fi

# The GPU.
gpu=$(nvidia-smi --query-gpu=compute_cap,name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1) || gpu=''
[[ $gpu == [0-9]* ]] || gpu=''   # where there is none it tells so in words
if [[ -z $gpu && $only != build ]]; then
  say "no CUDA device here (nvidia-smi shows none)"
  exit 77
fi
if [[ -z $architecture ]]; then
  architecture=90
  [[ -z $gpu ]] || architecture=$(sed 's/,.*//; s/[.]//' <<<"$gpu")
fi

# The toolkit.
first_of() {   # the first of these programs that is there
  local program
  for program; do
    if command -v "$program"; then return; fi
  done
}
nvcc=${CUDACXX:-$(first_of nvcc /usr/local/cuda/bin/nvcc)}
missing=()
command -v cmake >/dev/null || missing+=(cmake)
[[ -n $nvcc ]] || missing+=("cuda-toolkit (of NVIDIA's package repository; 13.0 or newer)")
command -v "${CXX:-c++}" >/dev/null || missing+=(g++)
if ((${#missing[@]})); then
  say "missing, as Debian and Ubuntu call it: ${missing[*]}" >&2
  exit 1
fi

failed=()
log=$build/logs
mkdir -p "$log" "$results"
record() {   # NAME command...: output also to a log
  local name=$1
  shift
  say "$name"
  if ! "$@" 2>&1 | tee "$log/$name.log"; then
    failed+=("$name")
    return 1
  fi
}

# ---- build

# Is a header there, in the system or in one of CMAKE_PREFIX_PATH's folders?
has_header() {
  local prefixes=() options=(-I /usr/include/eigen3) prefix
  IFS=': ;' read -r -a prefixes <<<"${CMAKE_PREFIX_PATH:-}"
  for prefix in "${prefixes[@]}"; do options+=(-I "$prefix/include" -I "$prefix/include/eigen3"); done
  "${CXX:-c++}" -x c++ -std=c++20 "${options[@]}" -E -include "$1" /dev/null >/dev/null 2>&1
}

# The programs of the tests labelled `gpu`, built or not.
gpu_programs() {
  (cd "$build" && ctest -N -V -L '^gpu$' 2>&1) | sed -n -e 's/^Could not find executable //p' -e 's/^[0-9]*: Test command: \(\/[^ ]*\).*/\1/p' | sort -u
}

build_all() {
  local tests=OFF generator=() targets=() missing=()
  has_header catch2/catch.hpp || has_header catch2/catch_all.hpp || missing+=(catch2)
  has_header Eigen/Core || missing+=(libeigen3-dev)
  if ((${#missing[@]} == 0)); then
    tests=ON
  else
    say "the tests are left out but for the contract's program: missing, as Debian calls it: ${missing[*]} (apt-get install; or --pack on a machine that has them)"
  fi
  has_header benchmark/benchmark.h || say "the benchmarks are left out but for the laboratory: missing, as Debian calls it: libbenchmark-dev"
  command -v ninja >/dev/null && generator=(-G Ninja)
  configure() {
    cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O2 -DCMAKE_CUDA_FLAGS=${fast_math:+--use_fast_math} -DSARA_CUDA=ON -DSARA_BUILD_TESTS=$tests -DSARA_TEST_CUDA_OPTIMIZED=ON \
      -DSARA_BUILD_BENCHMARKS=ON -DSARA_BUILD_EXAMPLES=OFF -DSARA_INSTALL=OFF -DCMAKE_CUDA_COMPILER="$nvcc" \
      -DCUDAToolkit_ROOT="$(dirname "$(dirname "$(readlink -f "$nvcc")")")" -DCMAKE_CUDA_ARCHITECTURES="$architecture-real" \
      -DSARA_TEST_CUDA_ARCHITECTURES="$architecture-real" -DSARA_BENCHMARK_CUDA_ARCHITECTURES="$architecture-real"
  }
  configure || return
  if [[ $tests == ON ]]; then
    mapfile -t targets < <(gpu_programs | sed 's,.*/,,')
    ((${#targets[@]})) || { say "no test is labelled gpu"; return 1; }
  else
    "$nvcc" -std=c++20 -arch="sm_$architecture" -ccbin "${CXX:-c++}" -I include tests/contract/stream.cu -o "$build/contract_stream" || return
  fi
  # What does not compile is not to keep the rest from being built.
  cmake --build "$build" --parallel "$jobs" --target benchmarks_cuda "${targets[@]}" -- "$([[ ${#generator[@]} -gt 0 ]] && echo -k0 || echo -k)"
}
if wants build; then
  seconds=$SECONDS
  if record build build_all; then say "built in $((SECONDS - seconds)) s"; else say "the build failed in part; what was built is used"; fi
fi
[[ $only == build ]] || [[ -f $build/CMakeCache.txt ]] || refuse "nothing is built in '$build': --only build first"

# ---- tests, sanitized or not: rows of tables, kept until TESTS.md is written

run_tests() {
  local seconds=$SECONDS rows=$build/tests.rows ended=0 ran=$log/ctest.log
  echo "Run on $(date -u +%Y-%m-%d), for compute capability $architecture." >"$rows"
  printf '\n| test | outcome | seconds |\n| --- | --- | --: |\n' >>"$rows"
  if [[ -f $build/CTestTestfile.cmake ]]; then
    ctest --test-dir "$build" -L '^gpu$' --output-on-failure --output-log "$ran" --timeout 500 --parallel 4 --no-tests=error || ended=$?
    sed -n 's/^ *[0-9]*\/[0-9]* Test *#[0-9]*: \([^ ]*\) [.]* *[*]* *\([^* ].*[^ ]\)  *\([0-9.]*\) sec.*/| \1 | \2 | \3 |/p' "$ran" |
      sed '/| Passed |/!s/| \([^|]*\) | \([^|]*\) |$/| **\1** | \2 |/' >>"$rows"
    if grep -q '[*]Skipped' "$ran"; then   # a GPU is here
      say "tests were skipped although nvidia-smi shows a GPU: is its driver older than the CUDA toolkit needs?" >&2
      ended=1
    fi
  else
    timeout 300 "$build/contract_stream" || ended=$?
    echo "| contract.stream | $( ((ended == 0)) && echo Passed || echo "**ended with $ended**") | $((SECONDS - seconds)) |" >>"$rows"
  fi
  return $ended
}
if wants tests; then record tests run_tests || true; fi

# The tools are slow: long and repeated tests are left out, and each program has two minutes.
sanitize_one() {   # PROGRAM TOOL
  local name filter=() ended=0 seconds=$SECONDS summary of
  name=$(basename "$1")
  of=$log/$2.$name.log
  case $name in
    test_js_routing_gpu) filter=('~[long]~[precision]~[determinism]~[oracle]~[comparators]~[random]~[preconditions]~[overlap]') ;;
    test_routing_histogram_gpu) filter=('~[long]~*2^20*') ;;
    test_*) filter=('~[long]') ;;
  esac
  SARA_TEST_EXECUTORS=device SARA_FUZZ_SECONDS=20 timeout --kill-after=10 120 "$sanitizer" --tool "$2" --error-exitcode 9 --print-limit 20 \
    "$1" "${filter[@]}" >"$of" 2>&1 || ended=$?
  summary=$(grep -E 'SUMMARY' "$of" | tail -n 1 | sed 's/^=* *//')
  case $ended in
    0) ;;
    124 | 137) summary="**not finished in 120 s**; until then $(grep -c '=== *\(Invalid\|Error\|Warning\|Uninitialized\|Barrier\|Race\)' "$of") findings" ;;
    *) summary="**ended with $ended**: ${summary:-no summary}" ;;
  esac
  echo "| $2 | $name | $summary | $((SECONDS - seconds)) |" >"$log/$2.$name.row"
  return $((ended != 0))
}
run_sanitizers() {
  local programs=() program tool ended=0 rows=$build/sanitize.rows
  sanitizer=$(first_of compute-sanitizer "$(dirname "$nvcc")/compute-sanitizer" /usr/local/cuda/bin/compute-sanitizer)
  if [[ -z $sanitizer ]]; then
    say "compute-sanitizer is not here (NVIDIA's package cuda-sanitizer-13-0 has it)"
    return 1
  fi
  if [[ -f $build/CTestTestfile.cmake ]]; then mapfile -t programs < <(gpu_programs); else programs=("$build/contract_stream"); fi
  rm -f "$log"/*.row
  export sanitizer log
  export -f sanitize_one
  for program in "${programs[@]}"; do
    for tool in memcheck racecheck initcheck synccheck; do [[ ! -x $program ]] || printf '%s\0%s\0' "$program" "$tool"; done
  done | xargs -0 -n 2 -P "$((jobs < 8 ? jobs : 8))" bash -c 'sanitize_one "$@"' sanitize_one || ended=$?
  {
    echo "Run on $(date -u +%Y-%m-%d) with $("$sanitizer" --version | sed -n 's/.*[Vv]ersion *//p' | head -n 1): the tests but for long and repeated ones."
    printf '\n| tool | program | outcome | seconds |\n| --- | --- | --- | --: |\n'
    cat "$log"/*.row
  } >"$rows"
  cat "$rows"
  return $ended
}
if wants sanitize; then record sanitize run_sanitizers || true; fi

if wants tests || wants sanitize; then
  {
    echo "# Tests on a GPU"
    echo
    echo "| | |"
    echo "| --- | --- |"
    echo "| GPU | $(cut -d , -f 2- <<<"$gpu" | sed 's/^ *//'), compute capability ${gpu%%,*} |"
    echo "| system | $(sed -n 's/^PRETTY_NAME="\(.*\)"$/\1/p' /etc/os-release), Linux $(uname -r) |"
    echo "| nvcc | $("$nvcc" --version | sed -n 's/.*release .*, V//p') |"
    echo "| command | \`$command_line\` |"
    for part in tests sanitize; do
      [[ -s $build/$part.rows ]] || continue
      printf '\n## %s\n\n' "$([[ $part == tests ]] && echo 'The tests labelled gpu' || echo compute-sanitizer)"
      cat "$build/$part.rows"
    done
  } >"$results/TESTS.md"
  say "wrote $results/TESTS.md"
fi

# ---- benchmarks

if wants benchmarks; then
  record benchmarks bash benchmarks/cuda/run.sh --build "$build" ${output:+--output "$output"} "${quick[@]}" || true
fi

if ((${#failed[@]})); then
  for part in "${failed[@]}"; do [[ ! -s $log/$part.log ]] || cp "$log/$part.log" "$results/$part.log"; done
  if [[ " ${failed[*]} " == *' sanitize '* ]]; then
    grep -l '[*][*]' "$log"/*.row 2>/dev/null | while IFS= read -r row; do
      echo "== $(basename "${row%.row}")"
      tail -n 200 "${row%.row}.log"
    done >"$results/sanitize.log"
  fi
  say "failed: ${failed[*]} (logs in '$results' and '$log')" >&2
  exit 1
fi
