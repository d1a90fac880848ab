#!/usr/bin/env bash
# Builds the benchmarks as a user builds, runs them, and writes benchmarks/RESULTS.md, results.json and the figures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command_line="bash benchmarks/run.sh $*"

usage() {
  cat <<'END'
Installs what is missing with the system's package manager (and says what), builds with -O2 and no other flag, runs the race against other
libraries and every benchmark, and writes a page of tables, the figures, and all of it as JSON.

usage: bash benchmarks/run.sh [--quick] [--with-python] [--output FILE] [--only PARTS] [--seconds N] [--jobs N]

  --quick         fewer and shorter measurements: two minutes once built, three with Python
  --with-python   also PyTorch 2, JAX and ONNX Runtime, installed from PyPI into build/benchmarks/python: several GB; where there is an
                  NVIDIA GPU, PyTorch and JAX race on it too
  --output FILE   where to write the page; results.json and figures/ go beside it
                  (default: benchmarks/RESULTS.md; with --quick or --only: build/benchmarks/RESULTS.md)
  --only PARTS    of race, gpu and programs, with commas (default: all); gpu, the race on a GPU, needs --with-python
  --seconds N     that a heat of the race may take, roughly (default: 20; with --quick: 1, from Python 3)
  --jobs N        so many compilers at a time (default: as many as there are processors)
  --help          this text

The machine should be idle. CXX names the compiler.
END
}
refuse() {
  echo "benchmarks/run.sh: $1 (see --help)" >&2
  exit 2
}

quick='' with_python='' output='' only=race,gpu,programs seconds='' jobs=$(nproc)
while (($#)); do
  case $1 in
    --help) usage; exit 0 ;;
    --quick) quick=yes; shift ;;
    --with-python) with_python=yes; shift ;;
    --output | --only | --seconds | --jobs)
      (($# > 1)) && [[ -n $2 ]] || refuse "$1 needs a value"
      case $1 in
        --output) output=$2 ;;
        --only) only=$2 ;;
        --seconds) seconds=$2 ;;
        --jobs) jobs=$2 ;;
      esac
      shift 2 ;;
    *) refuse "unknown argument '$1'" ;;
  esac
done
[[ $jobs =~ ^[1-9][0-9]*$ ]] || refuse "--jobs must be a whole number of at least 1, but is '$jobs'"
[[ -z $seconds || $seconds =~ ^[1-9][0-9]*$ ]] || refuse "--seconds must be a whole number of at least 1, but is '$seconds'"
IFS=, read -r -a wanted <<<"$only"
for part in "${wanted[@]}"; do
  [[ $part == @(race|gpu|programs) ]] || refuse "--only knows race, gpu and programs, but not '$part'"
done
wants() { [[ ,$only, == *,$1,* ]]; }
has_gpu=''
if wants gpu && [[ -n $with_python && ( -e /dev/nvidiactl || -e /dev/dxg ) ]]; then has_gpu=yes; fi
if ! wants race && ! wants programs; then
  [[ -n $with_python ]] || refuse "--only gpu needs --with-python"
  [[ -n $has_gpu ]] || { echo "benchmarks/run.sh: no NVIDIA GPU here" >&2; exit 77; }
fi
build=build/benchmarks
[[ -n $output ]] || output=$([[ -n $quick || $only != race,gpu,programs ]] && echo $build/RESULTS.md || echo benchmarks/RESULTS.md)

me=benchmarks/run.sh
. cmake/packages.sh
# The Python that draws: with matplotlib, which may be the system's and not the first in PATH.
python_that_draws() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -c 'import matplotlib' 2>/dev/null; then echo "$python"; return; fi
  done
}
missing=() rivals=()
missing_build_tools
has_header Eigen/Core || missing+=(libeigen3-dev)
has_header benchmark/benchmark.h || missing+=(libbenchmark-dev)
has_header CLI/CLI.hpp || missing+=(libcli11-dev)
has_header nlohmann/json.hpp || missing+=(nlohmann-json3-dev)
[[ -n $(python_that_draws) ]] || missing+=(python3-matplotlib)
has_header ATen/ATen.h || rivals+=(libtorch-dev)
has_header dnnl.hpp || rivals+=(libdnnl-dev)
has_header xnnpack.h && has_header pthreadpool.h || rivals+=("libxnnpack-dev libpthreadpool-dev")
if [[ -n $with_python ]]; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  python3 -c 'import os, sysconfig; raise SystemExit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null || missing+=(python3-dev)   # torch.compile
fi
install_packages "${missing[@]}"
require_cmake
for packages in "${rivals[@]}"; do   # the race goes on without the ones that cannot be had
  # shellcheck disable=SC2086   # a list of names
  install_packages $packages || echo "benchmarks/run.sh: without $packages, which could not be installed"
done

cuda=(-DSARA_CUDA=OFF)
if [[ -n $has_gpu ]]; then cuda=(-DSARA_CUDA=AUTO -DSARA_BENCHMARK_CUDA_ARCHITECTURES=native); fi
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS= -DCMAKE_CXX_FLAGS_RELEASE=-O2 -DSARA_BUILD_TESTS=OFF \
  -DSARA_BUILD_EXAMPLES=OFF -DSARA_INSTALL=OFF "${cuda[@]}" -DCMAKE_CXX_COMPILER="$compiler"
targets=()
if wants race || wants programs; then targets+=(benchmarks); fi
if [[ -n $with_python ]]; then targets+=(sara_race_shared); fi
cmake --build $build --target "${targets[@]}" --parallel "$jobs"
on_gpu=()
if [[ -n $has_gpu ]]; then
  if cmake --build $build --target sara_race_shared_cuda; then
    on_gpu=(--shared-cuda $build/benchmarks/libsara_race_shared_cuda.so)
  else
    echo "benchmarks/run.sh: without sara on the GPU: what it needs is a CUDA toolkit of version 13 or newer"
  fi
fi
if [[ -n $with_python ]]; then
  python=$build/python/bin/python
  [[ -x $python ]] || python3 -m venv $build/python
  [[ -z $has_gpu ]] || "$python" -m pip install -q 'jax[cuda13]' || echo "benchmarks/run.sh: without JAX on the GPU, whose packages could not be installed"
  while read -r requirement; do   # the race goes on without what cannot be had, and says so
    [[ $requirement == \#* ]] || "$python" -m pip install -q "$requirement" || echo "benchmarks/run.sh: without $requirement, which could not be installed"
  done <benchmarks/race/requirements.txt
fi

parts=$build/parts   # what is measured, kept for report.py to be called again
rm -rf "$parts"
mkdir -p "$parts"
failed=()
record() {   # NAME command...
  local name=$1
  shift
  echo "benchmarks/run.sh: $name"
  local ended=0
  "$@" || ended=$?
  ((ended == 0 || ended == 77)) || failed+=("$name")   # 77: not here, as it has said
}

if wants race; then
  record race $build/benchmarks/benchmark_race --json "$parts/race.json" ${quick:+--quick} ${seconds:+--seconds "$seconds"}
  [[ -z $with_python ]] || record python "$python" benchmarks/race/python.py --shared $build/benchmarks/libsara_race_shared.so --json "$parts/python.json" ${quick:+--quick} ${seconds:+--seconds "$seconds"}
fi
if [[ -n $has_gpu ]]; then
  record gpu "$python" benchmarks/race/python.py --device cuda --shared $build/benchmarks/libsara_race_shared.so "${on_gpu[@]}" --json "$parts/gpu.json" ${quick:+--quick} ${seconds:+--seconds "$seconds"}
fi

if wants programs; then
  if [[ -n $quick ]]; then
    measure=(--benchmark_min_time=0.01 --benchmark_filter='-(spawned|vector128|32768x256)')
  else
    measure=(--benchmark_min_time=0.1 --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true --benchmark_report_aggregates_only=true)
  fi
  for name in js_routing gate_softmax top_k routing_histogram js_divergence; do
    record "$name" $build/benchmarks/benchmark_"$name" "${measure[@]}" --benchmark_out="$parts/$name.json" --benchmark_out_format=json
  done

  # The cost of the header: a translation unit that calls the fused loss, best of three (quick: of one).
  cat >"$parts/unit.cpp" <<'END'
#include <sara/js_routing.hpp>
float loss(const sara::js_routing_inputs<float>& batch, const sara::js_routing_outputs<float>& out) {
  sara::js_routing_into(sara::cpu_executor{}, batch, out);
  return sara::js_routing(sara::cpu_executor{}, batch);
}
END
  compile_seconds() {
    local TIMEFORMAT=%R repetitions=${quick:+1}
    for _ in ${repetitions:-1 2 3}; do { time "$1" -std=c++20 -O2 -I include -c "$parts/unit.cpp" -o "$parts/unit.o"; } 2>&1; done | sort -n | head -n 1
  }
  for c in g++ clang++; do
    if command -v $c >/dev/null; then printf '"%s": %s\n' $c "$(compile_seconds $c)"; fi
  done | paste -sd , | sed 's/.*/{&}/' >"$parts/compile_seconds.json"
fi

mkdir -p "$(dirname "$output")"
"$(python_that_draws)" benchmarks/report.py "$parts" --output "$output" --command "$command_line" --compiler "$compiler" ${quick:+--quick} "${failed[@]/#/--failed=}"
echo "benchmarks/run.sh: wrote $output"
((${#failed[@]} == 0))
