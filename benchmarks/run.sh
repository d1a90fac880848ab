#!/usr/bin/env bash
# Builds the benchmarks as a user builds, runs them, and writes benchmarks/RESULTS.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command_line="bash benchmarks/run.sh $*"

usage() {
  cat <<'END'
Installs what is missing with the system's package manager (and says what), builds with -O2 and no other flag, runs every
benchmark and the race against other libraries, and writes the tables with machine, compiler and versions.

usage: bash benchmarks/run.sh [--quick] [--output FILE] [--jobs N]

  --quick         short measurements: about two minutes once built
  --output FILE   where to write (default: benchmarks/RESULTS.md; with --quick: build/benchmarks/RESULTS.md)
  --jobs N        so many compilers at a time (default: as many as there are processors)
  --help          this text

The machine should be idle. CXX names the compiler.
END
}
refuse() {
  echo "benchmarks/run.sh: $1 (see --help)" >&2
  exit 2
}

quick='' output='' jobs=$(nproc)
while (($#)); do
  case $1 in
    --help) usage; exit 0 ;;
    --quick) quick=yes; shift ;;
    --output | --jobs)
      (($# > 1)) && [[ -n $2 ]] || refuse "$1 needs a value"
      case $1 in
        --output) output=$2 ;;
        --jobs) jobs=$2 ;;
      esac
      shift 2 ;;
    *) refuse "unknown argument '$1'" ;;
  esac
done
[[ $jobs =~ ^[1-9][0-9]*$ ]] || refuse "--jobs must be a whole number of at least 1, but is '$jobs'"
build=build/benchmarks
[[ -n $output ]] || output=$([[ -n $quick ]] && echo $build/RESULTS.md || echo benchmarks/RESULTS.md)

me=benchmarks/run.sh
. cmake/packages.sh
missing=() rivals=()
missing_build_tools
has_header Eigen/Core || missing+=(libeigen3-dev)
has_header benchmark/benchmark.h || missing+=(libbenchmark-dev)
has_header ATen/ATen.h || rivals+=(libtorch-dev)
has_header dnnl.hpp || rivals+=(libdnnl-dev)
install_packages "${missing[@]}"
require_cmake
for package in "${rivals[@]}"; do   # the race goes on without the ones that cannot be had
  install_packages "$package" || echo "benchmarks/run.sh: without $package, which could not be installed"
done

cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS= -DCMAKE_CXX_FLAGS_RELEASE=-O2 -DSARA_BUILD_TESTS=OFF \
  -DSARA_BUILD_EXAMPLES=OFF -DSARA_INSTALL=OFF -DCMAKE_CXX_COMPILER="$compiler"
cmake --build $build --target benchmarks --parallel "$jobs"

if [[ -n $quick ]]; then
  measure=(--benchmark_min_time=0.01)
  race=(--quick)
else
  measure=(--benchmark_min_time=0.1 --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true)
  race=()
fi

parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
failed=()
record() {   # NAME command...: standard output to $parts/NAME
  local name=$1
  shift
  echo "benchmarks/run.sh: $name"
  "$@" >"$parts/$name" || failed+=("$name")
}
[[ ! -x $build/benchmarks/benchmark_race ]] || record race $build/benchmarks/benchmark_race "${race[@]}"
programs=(js_routing gate_softmax top_k routing_histogram js_divergence)
for name in "${programs[@]}"; do record "$name" $build/benchmarks/benchmark_"$name" --markdown "${measure[@]}"; done

# The cost of the header: a translation unit that calls the fused loss, best of three.
cat >"$parts/unit.cpp" <<'END'
#include <sara/js_routing.hpp>
float loss(const sara::js_routing_inputs<float>& batch, const sara::js_routing_outputs<float>& out) {
  sara::js_routing_into(sara::cpu_executor{}, batch, out);
  return sara::js_routing(sara::cpu_executor{}, batch);
}
END
compile_seconds() {
  local TIMEFORMAT=%R
  for _ in 1 2 3; do { time "$1" -std=c++20 -O2 -I include -c "$parts/unit.cpp" -o "$parts/unit.o"; } 2>&1; done | sort -n | head -n 1
}

# figure NAME 'row of a benchmark' COLUMN: a cell of $parts/NAME
figure() { awk -F ' *[|] *' -v row="$2" -v column="$3" '$2 == row { print $column; exit }' "$parts/$1"; }
# In one heat of the race ("### Loss and gradient, fp32, 8x1024x128"): how many times the first's time a contestant took.
times_of_sara() { awk -F ' *[|] *' -v heat="$1" -v row="$2" '/^###/ { inside = index($0, heat) } inside && $2 == row { print $9; exit }' "$parts/race"; }
isa=$(awk -F / '/^[|] js_routing.fp32.8x1024x128.accumulate/ && $5 !~ /^eigen/ { print $5; exit }' "$parts/js_routing")
target() {   # NAME BOUND FIGURE: "(at most)" in the name turns the bound round
  local short=''
  [[ -z ${3:-} ]] || short=$(awk -v name="$1" -v bound="$2" -v figure="$3" 'BEGIN { if (name ~ /at most/ ? figure + 0 > bound + 0 : figure + 0 < bound + 0) print " (**short**)" }')
  printf '| %s | %s | %s%s |\n' "$1" "$2" "${3:-not measured}" "$short"
}
ratio() { awk -v a="${1:-0}" -v b="${2:-0}" 'BEGIN { if (a > 0 && b > 0) printf "%.3f", a / b }'; }
us() { figure js_routing "js_routing/$1/overwrite/$isa/threads:2" 3; }
rate() { figure js_routing "js_routing/$1/$isa/threads:2" 4; }

{
  echo "# Results"
  echo
  [[ -z $quick ]] || { echo "From a quick run: figures are rough."; echo; }
  ((${#failed[@]} == 0)) || { echo "**A result was wrong, or a program failed: ${failed[*]}.**"; echo; }
  echo "| | |"
  echo "| --- | --- |"
  echo "| date | $(date -u +%Y-%m-%d) |"
  echo "| command | \`$command_line\` |"
  echo "| version | $(sed -n 's/^#define SARA_VERSION_[A-Z]* \([0-9]*\)$/\1/p' include/sara/version.hpp | paste -sd .) |"
  lscpu | awk -F ':  *' '/^Model name/ { m = $2 } /^CPU\(s\)/ { n = $2 } /^Thread\(s\) per core/ { t = $2 } /^CPU family/ { f = $2 } /^Model:/ { d = $2 }
    /^L1d/ { a = $2 } /^L2/ { b = $2 } /^L3/ { c = $2 } /^Hypervisor/ { h = $2 }
    END { printf "| processor | %s (family %s, model %s), %s processors, %s threads a core%s |\n| caches | L1d %s, L2 %s, L3 %s |\n", m, f, d, n, t, h ? ", under " h : "", a, b, c }'
  for i in vector128 avx2 avx512; do
    grep -q "/$i/" "$parts/js_routing" && ran="${ran:+$ran, }$i" || without="${without:+$without, }$i"
  done
  echo "| instruction sets | ran: ${ran:-none}${without:+; not run, as this machine lacks them: $without} |"
  echo "| system | $(. /etc/os-release && echo "$PRETTY_NAME"), Linux $(uname -r) |"
  echo "| compiler | $("$compiler" --version | head -n 1), \`-O2\` and no other flag that changes the code |"
  if command -v dpkg-query >/dev/null; then
    echo "| packages | $(dpkg-query -W -f '${db:Status-Abbrev}${Package} ${Version}\n' libbenchmark-dev libeigen3-dev libtorch-dev libdnnl-dev 2>/dev/null | sed -n 's/^ii *//p' | paste -sd , | sed 's/,/, /g') |"
  fi
  for c in g++ clang++; do
    command -v $c >/dev/null && echo "| a translation unit with the fused loss | $(compile_seconds $c) s to compile, $c -O2 |"
  done
  cat <<'END'

All inputs are fresh random numbers, and every timed call's result was first held against the tests' naive double oracle: `error` is the
largest difference by the largest entry. `Gelem/s` counts elements of logits; `GB/s` counts the bytes a call must move (each input read once,
each output written once; each program's first lines say the formula); `of copy` is that rate by the quicker of an ordinary and a streaming
copy of as many bytes on as many threads, measured in the same run. `spread` is the standard deviation of the repetitions by their mean.
Shapes are (layers x) sequences x tokens x experts; `threads:2` runs on a pool, `spawned` without one.

## Targets

END
  small=8x1024x128 large=8x4096x256
  echo "| fp32 unless said, two threads | target | measured |"
  echo "| --- | --: | --: |"
  target "loss and gradient, $small, Gelem/s" 3.5 "$(rate fp32/$small/overwrite)"
  target "loss and gradient, $large, Gelem/s" 2.3 "$(rate fp32/$large/overwrite)"
  target "the same, accumulated, $small" 2.4 "$(rate fp32/$small/accumulate)"
  target "the same, accumulated, $large" 1.7 "$(rate fp32/$large/accumulate)"
  target "bf16 logits, fp32 gradient, $small" 2.5 "$(rate bf16-fp32/$small/overwrite)"
  target "bf16 logits, fp32 gradient, $large" 2.5 "$(rate bf16-fp32/$large/overwrite)"
  target "bf16 logits, bf16 gradient, $small" 1.7 "$(rate bf16/$small/overwrite)"
  target "bf16 logits, bf16 gradient, $large" 1.7 "$(rate bf16/$large/overwrite)"
  target "of the copy's bandwidth, $large (the aim beyond)" "70 %" "$(figure js_routing "js_routing/fp32/$large/overwrite/$isa/threads:2" 6)"
  if [[ -s $parts/race ]]; then
    target "times as quick as libtorch eager + autograd, $small" 4 "$(times_of_sara ", $small" 'libtorch eager + autograd, forward and backward')"
    target "times as quick as libtorch eager + autograd, $large" 9 "$(times_of_sara ", $large" 'libtorch eager + autograd, forward and backward')"
    target "times as quick as oneDNN's softmax forward alone, $small" 1 "$(times_of_sara ", $small" 'oneDNN, softmax forward alone')"
    target "top-k, 8 of 128: times as quick as torch.topk" 10 "$(times_of_sara '8 of 128' 'libtorch, topk')"
  fi
  for pair in 60/64 129/128 257/256 385/384; do
    odd=${pair%/*} round=${pair#*/}
    times=''
    [[ ! -s $parts/race ]] || times=$(times_of_sara ": $odd and $round" "sara, loss and gradient, 8x1024x$odd")
    [[ -n $times ]] || times=$(ratio "$(us fp32/8x1024x"$odd")" "$(us fp32/8x1024x"$round")")
    target "time an element, $pair experts (at most)" 1.25 "$(ratio "$times" "$(ratio "$odd" "$round")")"
  done
  if [[ -s $parts/race ]]; then
    printf '\n## The race\n\nTurn by turn in one process; medians of the turns in which both cores were there (benchmarks/race.cpp says how). The last column is the time by the first row'"'"'s.\n'
    cat "$parts/race"
  fi
  for name in "${programs[@]}"; do
    printf '\n## %s\n\n' "$name"
    cat "$parts/$name"
  done
  cat <<'END'

`step %`: what js_divergence takes on as many rows, which is the step on [experts] between the two sweeps, by what the fused call takes.
END
} >"$parts/RESULTS.md"
mkdir -p "$(dirname "$output")"
mv "$parts/RESULTS.md" "$output"
echo "benchmarks/run.sh: wrote $output"
((${#failed[@]} == 0))
