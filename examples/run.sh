#!/usr/bin/env bash
# From a fresh Debian 12 / Ubuntu 24.04 (or newer) machine to the fine-tuning loop's report: `bash examples/run.sh`.
set -euo pipefail
from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
Installs what is missing with the system's package manager (and says what), builds the example for this machine, gets parallel text,
and runs `sara_finetune run` to its report.

usage: bash examples/run.sh [argument of `sara_finetune run`]...

Without --parallel the text is the first of these that can be had: TICO-19 in English and Swahili (fetched, 1.5 MB), sentence pairs
of Debian's package mediawiki (apt-get download; some 900, too few to learn much), or some 300 pairs that come with the example, which only illustrate.
Without --out the run goes to build/examples/runs/en-sw (or what the first --parallel is called), and goes on with what is there.

  --help          this text, and once the example is built, the arguments; most used are --parallel FILE (TMX or TSV, repeatable),
                  --seeds N, --arms NAMES (plain, sara, shuffled, ...), --out FOLDER and --resume
END
}
build=build/examples
program=$PWD/$build/examples/sara_finetune/sara_finetune
if [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; then
  usage
  [[ ! -x $program ]] || { echo; "$program" run --help; }
  exit 0
fi

me=examples/run.sh
. cmake/packages.sh
missing=()
missing_build_tools
missing_for_the_example
command -v unzip >/dev/null || missing+=(unzip)   # for TICO-19
command -v curl >/dev/null || command -v wget >/dev/null || missing+=(curl ca-certificates)
command -v python3 >/dev/null || missing+=(python3-minimal)   # for mediawiki
install_packages "${missing[@]}"
require_cmake

mkdir -p $build
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS= -DCMAKE_CXX_FLAGS_RELEASE="-O3 -march=native" \
  -DCMAKE_CXX_COMPILER="$compiler" -DSARA_BUILD_TESTS=OFF -DSARA_BUILD_BENCHMARKS=OFF -DSARA_INSTALL=OFF >$build/configure.log 2>&1 ||
  { cat $build/configure.log >&2; exit 1; }
cmake --build $build --target sara_finetune
data=$PWD/examples/sara_finetune/data fetched=$PWD/$build/text

# The values of --out and of the first --parallel, if they are among the arguments.
out='' parallel='' previous=''
for argument; do
  [[ $previous == --out ]] && out=$argument
  [[ $argument == --out=* ]] && out=${argument#--out=}
  [[ $previous == --parallel && -z $parallel ]] && parallel=$argument
  [[ $argument == --parallel=* && -z $parallel ]] && parallel=${argument#--parallel=}
  previous=$argument
done
text=() where=()
if [[ -z $out ]]; then
  name=$(basename "${parallel:-en-sw}")
  out=$PWD/$build/runs/${name%.*}
  where=(--out "$out" --resume)
fi
if [[ -z $parallel && ! -e $(cd "$from" && realpath -m "$out")/settings.json ]]; then   # a run that has begun knows its text
  if bash "$data/tico19.sh" sw "$fetched"; then
    text=(--parallel "$fetched/en-sw.tmx" --corpus "TICO-19, English and Swahili")
  elif bash "$data/mediawiki.sh" sw "$fetched"; then
    # Some 900 short pairs: more passes over them than these would learn them by heart.
    text=(--parallel "$fetched/mediawiki.en-sw.tsv" --text "en=$fetched/mediawiki.en.txt" --corpus "MediaWiki's messages, English and Swahili"
      --pretrain-tokens 400000 --finetune-tokens 80000)
  else
    text=(--parallel "$data/en-sw.tsv" --corpus "the pairs that come with the example" --illustrative)
    echo "$me: neither TICO-19 nor mediawiki can be had: some 300 pairs cannot train this model, so the figures only illustrate" >&2
  fi
fi
cd "$from"
"$program" run "${where[@]}" "${text[@]}" "$@"
