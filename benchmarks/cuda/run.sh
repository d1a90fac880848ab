#!/usr/bin/env bash
# Runs the benchmarks on a GPU that `bash tests/gpu.sh --only build` has built, and writes their tables.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command_line="bash benchmarks/cuda/run.sh $*"

usage() {
  cat <<'END'
Runs the benchmarks on the GPU of this machine and the laboratory of the fused loss's designs, and writes RESULTS.md and results.json.

usage: bash benchmarks/cuda/run.sh [--build DIR] [--output DIR] [--quick]

  --build DIR     where the programs are built (default: build/gpu, by `bash tests/gpu.sh --only build`)
  --output DIR    where to write (default: benchmarks/cuda; with --quick: the build's folder)
  --quick         short measurements
  --help          this text

The GPU should be idle. Ends with 0 if every result was right, 77 where there is no CUDA device.
END
}
refuse() {
  echo "benchmarks/cuda/run.sh: $1 (see --help)" >&2
  exit 2
}

build=build/gpu output='' quick=''
while (($#)); do
  case $1 in
    --help) usage; exit 0 ;;
    --quick) quick=yes; shift ;;
    --build | --output)
      [[ -n ${2:-} ]] || refuse "$1 needs a value"
      case $1 in
        --build) build=$2 ;;
        --output) output=$2 ;;
      esac
      shift 2 ;;
    *) refuse "unknown argument '$1'" ;;
  esac
done
[[ -n $output ]] || output=$([[ -n $quick ]] && echo "$build" || echo benchmarks/cuda)

programs=$build/benchmarks/cuda laboratory=$build/benchmarks/cuda/laboratory
[[ -x $laboratory ]] || refuse "'$laboratory' is not built: bash tests/gpu.sh --only build"
parts=$(mktemp -d)
watcher=''
finish() {
  [[ -z $watcher ]] || kill "$watcher" 2>/dev/null || true
  rm -rf "$parts"
}
trap finish EXIT

rounds=50 repeat=(--benchmark_repetitions=5)
[[ -z $quick ]] || rounds=10 repeat=()
failed=()
record() {   # NAME command...: standard output to $parts/NAME; what takes more than five minutes hangs
  local name=$1 ended=0
  shift
  echo "benchmarks/cuda/run.sh: $name"
  timeout --kill-after=10 300 "$@" >"$parts/$name" || ended=$?
  if ((ended == 77)); then
    cat "$parts/$name"
    exit 77
  fi
  ((ended == 0)) || failed+=("$name")
  ((ended != 124 && ended != 137)) || echo "**Stopped after 300 s.**" >>"$parts/$name"
}

# A design that hangs or breaks the device would take the others with it: each is tried alone first.
designs=()
for design in 1 2 3 4 5 6 7 8; do
  before=${#failed[@]}
  record "try-$design" "$laboratory" --designs $design --lengths 1024 --rounds 0
  ((${#failed[@]} != before)) || designs+=("$design")
done

if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.draw --format=csv,noheader --loop=1 >"$parts/clocks" 2>/dev/null &
  watcher=$!
fi
((${#designs[@]} == 0)) || record laboratory "$laboratory" --designs "$(IFS=,; echo "${designs[*]}")" --rounds $rounds --json "$parts/laboratory.json"
names=()
for name in js_routing top_k gate_softmax js_divergence routing_histogram; do
  [[ -x $programs/benchmark_cuda_$name ]] || continue
  names+=("$name")
  record "$name" "$programs/benchmark_cuda_$name" --markdown "${repeat[@]}" --benchmark_out="$parts/$name.json" --benchmark_out_format=json
done

# cell PROGRAM 'benchmark' COLUMN; in percent or not, the number alone
cell() {
  [[ -s $parts/$1 ]] || return 0
  awk -F ' *[|] *' -v row="$2" -v column="$3" '$2 == row && $3 !~ /^[*]/ { print $column; exit }' "$parts/$1" | sed 's/ %$//'
}
scratch() { cell js_routing "$1" 11 | sed -n 's/.*scratch % \([0-9.e+-]*\).*/\1/p'; }
goal() {   # WHAT 'at least'|'at most' BOUND UNIT FIGURE
  local measured='not measured'
  [[ -z ${5:-} ]] || measured="$5 $4$(awk -v kind="$2" -v bound="$3" -v figure="$5" 'BEGIN { if (kind == "at most" ? figure + 0 > bound + 0 : figure + 0 < bound + 0) print " (**short**)" }')"
  printf '| %s | %s %s %s | %s |\n' "$1" "$2" "$3" "$4" "$measured"
}
query() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -n 1; }

nvcc=$(sed -n 's/^CMAKE_CUDA_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
host=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
architecture=$(sed -n 's/^SARA_BENCHMARK_CUDA_ARCHITECTURES:[A-Z]*=//p' "$build/CMakeCache.txt")
{
  echo "# Results on a GPU"
  echo
  [[ -z $quick ]] || { echo "From a quick run: figures are rough."; echo; }
  ((${#failed[@]} == 0)) || { echo "**A result was wrong, or a program failed or hung: ${failed[*]}.**"; echo; }
  echo "| | |"
  echo "| --- | --- |"
  echo "| date | $(date -u +%Y-%m-%d) |"
  echo "| command | \`$command_line\` |"
  echo "| version | $(sed -n 's/^#define SARA_VERSION_[A-Z]* \([0-9]*\)$/\1/p' include/sara/version.hpp | paste -sd .) |"
  if command -v nvidia-smi >/dev/null; then
    echo "| GPU | $(query name), $(query memory.total), driver $(query driver_version), compute capability $(query compute_cap) |"
    echo "| clocks | at most SM $(query clocks.max.sm), memory $(query clocks.max.memory)$([[ ! -s $parts/clocks ]] || sort -n "$parts/clocks" | awk -F ', ' 'NR == 1 { low = $1 } { high = $1; memory = $2 } END { printf "; seen in this run: SM %s to %s, memory %s", low, high, memory }') |"
  fi
  echo "| processor | $(lscpu | awk -F ':  *' '/^Model name/ { m = $2 } /^CPU\(s\)/ { n = $2 } END { printf "%s, %s processors", m, n }') |"
  echo "| system | $(sed -n 's/^PRETTY_NAME="\(.*\)"$/\1/p' /etc/os-release), Linux $(uname -r) |"
  echo "| compilers | nvcc $("${nvcc:-nvcc}" --version | sed -n 's/.*release .*, V//p') for $architecture, host code by $("${host:-c++}" --version | head -n 1) |"
  cat <<'END'

All inputs are fresh random numbers, and every call's result was held against the tests' naive double oracle before it was timed: `error` is the
largest difference by the largest entry. Times are the device's, between events, medians of the rounds (and of the repetitions: `spread` is their
standard deviation by their mean). A round times a copy of 128 MiB (cudaMemcpyAsync, device to device), then the calls.
Memory is cold: calls have memory of their own, together four times the L2 cache, which is filled with something else before the clock starts; the
calls of a round stand in one captured graph. `GB/s` counts each input read once and each output written once (each program's first lines say the
formula); `of copy` is that rate by the copy's; `logits twice` counts the logits read twice, as two sweeps do: 6 B an element instead of 4 in bf16,
12 instead of 8 in fp32. Names are storage (logits-gradient), layers x tokens x experts, tokens of a sequence.

## Goals

They were set for an H200 (copy 4.3 TB/s); the percentages carry over to other GPUs, the microseconds do not.

END
  batch=48x8192x128
  echo "| | goal | measured |"
  echo "| --- | --: | --: |"
  for storage in bf16 fp32; do
    twice=6 once=4
    [[ $storage == bf16 ]] || twice=12 once=8
    for length in 512 1024 4096 ragged-about-1024; do
      name=js_routing/$storage/$batch/$length/overwrite
      goal "loss and gradient, $storage, $batch, sequences of $length, of copy at $twice B" 'at least' 70 % "$(cell js_routing "$name" 6)"
      goal "the same at $once B (the aim beyond)" 'at least' 60 % "$(cell js_routing "$name" 5)"
    done
  done
  goal "one layer of 8192 x 128, bf16, in a replayed graph" 'at most' 8 us "$(cell js_routing js_routing/bf16/1x8192x128/1024/overwrite/replayed 3)"
  gate='top_k/bf16/65536x128/k:8/softmax, renormalized'
  goal "softmax and top-k, 8 of 128, 65,536 tokens, bf16, of copy" 'at least' 50 % "$(cell top_k "$gate" 5)"
  goal "the same" 'at most' 10 us "$(cell top_k "$gate" 3)"
  for length in 1024 4096 ragged-about-1024; do
    goal "scratch by logits, bf16, sequences of $length" 'at most' 1 % "$(scratch js_routing/bf16/$batch/$length/overwrite)"
  done
  for name in "${names[@]}"; do
    printf '\n## %s\n\n' "$name"
    cat "$parts/$name"
  done
  cat <<'END'

`scratch %`: the workspace by the logits.

## The laboratory

Candidate designs of the fused loss (benchmarks/cuda/laboratory), turn by turn in one process. In bf16 the gradient's error is bf16's rounding, up
to 2^-8; fp32 shows the arithmetic's. `same bits`: of two runs.

Clusters (6, 7) read the logits once, which pays in fp32, where bytes are what it costs, and where a sequence takes few blocks. The library takes
two sweeps all the same: a cluster has at most 16 blocks, which hold some 2,000 tokens of 128 fp32 experts where three share a
multiprocessor; all clusters of a launch are of one size, which in a ragged batch the longest sequence would set; in bf16, where the second read is
half the bytes, clusters of four blocks and more are behind; and devices before compute capability 9.0 have none. A kernel of clusters beside the
sweeps, for short sequences of one length, is not written. The other designs leave out the correction of the mean slope that the library makes
in fp32: compare the errors.
END
  for design in 1 2 3 4 5 6 7 8; do
    [[ " ${designs[*]} " == *" $design "* ]] || { printf '\n**Design %s broke or hung when it was tried alone, and does not race:**\n' "$design"; cat "$parts/try-$design"; }
  done
  [[ ! -s $parts/laboratory ]] || cat "$parts/laboratory"
} >"$parts/RESULTS.md"
{
  printf '{'
  separator=''
  for name in laboratory "${names[@]}"; do
    [[ -s $parts/$name.json ]] || continue
    printf '%s\n"%s": ' "$separator" "$name"
    cat "$parts/$name.json"
    separator=,
  done
  echo '}'
} >"$parts/results.json"
mkdir -p "$output"
mv "$parts/RESULTS.md" "$parts/results.json" "$output"
echo "benchmarks/cuda/run.sh: wrote $output/RESULTS.md and $output/results.json"
((${#failed[@]} == 0)) || { echo "benchmarks/cuda/run.sh: wrong, failed or hung: ${failed[*]}" >&2; exit 1; }
