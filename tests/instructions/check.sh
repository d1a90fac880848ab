#!/usr/bin/env bash
# Counts the instructions of each case of test_instructions and holds them to a baseline: more than 5 % above it fails.
# Called by the test `instructions` and by the target `accept_instructions`, with what CMake knows of the build.
set -euo pipefail

usage() {
  cat <<'END'
usage: check.sh --program FILE --baseline FILE --version COMPILER --processor NAME --flags FLAGS --build DIR [--accept]

Ends with 0 if every count is at most 5 % above its baseline, 1 if not, 77 if some or all cannot be compared here, 2 for a wrong argument.
With --accept the counts become the baseline, if counting twice gives the same; it ends with 1 if they cannot.
END
}
refuse() {
  echo "check.sh: $1 (see --help)" >&2
  exit 2
}

program='' baseline='' version='' processor='' flags='' build='' accept=''
while (($#)); do
  case $1 in
    --help) usage; exit 0 ;;
    --accept) accept=yes; shift ;;
    --program | --baseline | --version | --processor | --flags | --build)
      (($# > 1)) || refuse "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift 2 ;;
    *) refuse "unknown argument '$1'" ;;
  esac
done
for name in program baseline version build; do [[ -n ${!name} ]] || refuse "--$name is missing"; done
skip() {
  if [[ -n $accept ]]; then
    echo "instructions: nothing is accepted: $1" >&2
    exit 1
  fi
  echo "instructions: skipped: $1"
  exit 77
}
accepting="cmake --build '$build' --target accept_instructions"
command -v valgrind >/dev/null || skip "valgrind is not here (Debian and Ubuntu: valgrind)"
[[ $processor == x86_64 ]] || skip "the baselines are x86-64's, and this is $processor"
[[ -s $baseline || -n $accept ]] || skip "there is no baseline for $version; to make one: $accepting"
[[ $flags == -O2 ]] || skip "the baselines are of '-O2', and this build has '$flags'"

counts=$(mktemp -d)
trap 'rm -rf "$counts"' EXIT
# A bare environment: what sets malloc to fill memory (MALLOC_PERTURB_, GLIBC_TUNABLES) nearly doubles some counts.
# shellcheck disable=SC2317   # xargs calls it
count() {   # CASE: its count, or why there is none, in a file
  local file=$counts/${1//\//.} ended=0
  env -i PATH="$PATH" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" \
    valgrind --tool=callgrind --toggle-collect=measured --callgrind-out-file=/dev/null "$program" "$1" >"$file.log" 2>&1 || ended=$?
  case $ended in
    0) sed -n 's/^==[0-9]*== Collected : //p' "$file.log" >"$file" ;;
    77) echo lacking >"$file" ;;
    *) echo "failed: $(grep -v '^==' "$file.log" | tail -n 1)" >"$file" ;;
  esac
}
export counts program
export -f count
mapfile -t cases < <("$program")
((${#cases[@]})) || { echo "instructions: $program lists no cases" >&2; exit 1; }
# shellcheck disable=SC2016   # bash expands it
count_all() { printf '%s\0' "${cases[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'count "$1"' count; }
count_all
if [[ -n $accept ]]; then
  first=$counts
  counts=$first/again
  mkdir "$counts"
  count_all
  counts=$first
fi

fewer=0 lacking=0 lines=() complaints=()
printf '%-42s %12s %12s %9s\n' case baseline now change
for name in "${cases[@]}"; do
  now=$(<"$counts/${name//\//.}")
  before=''
  [[ ! -s $baseline ]] || before=$(awk -v name="$name" '$1 == name { print $2 }' "$baseline")
  if [[ $now == lacking ]]; then
    printf '%-42s %12s %12s\n' "$name" "${before:--}" 'not run: this machine, or valgrind, lacks its instruction set'
    lacking=$((lacking + 1))
    [[ -z $before ]] || lines+=("$name $before")
    continue
  fi
  if ! [[ $now =~ ^[1-9][0-9]*$ ]]; then
    [[ -n $now && $now != 0 ]] || now="nothing was counted: $(tail -n 1 "$counts/${name//\//.}.log")"
    complaints+=("$name: $now")
    continue
  fi
  if [[ -n $accept ]]; then
    again=$(<"$counts/again/${name//\//.}")
    [[ $again == "$now" ]] || complaints+=("$name: counted twice, $now and $again, so it is no baseline")
  fi
  lines+=("$name $now")
  change=$(awk -v now="$now" -v before="${before:-0}" 'BEGIN { if (before) printf "%+.2f", 100 * (now / before - 1) }')
  printf '%-42s %12s %12s %9s\n' "$name" "${before:--}" "$now" "${change:+$change %}"
  [[ -z $accept ]] || continue
  if [[ -z $before ]]; then
    complaints+=("$name has no baseline; to accept what is there: $accepting")
  elif ((100 * now > 105 * before)); then
    complaints+=("$name takes ${change#+} % more instructions than its baseline, and 5 % are allowed; if they are worth it: $accepting")
  elif ((105 * now < 100 * before)); then
    fewer=1
  fi
done
if [[ -z $accept ]]; then
  while read -r name _; do
    [[ " ${cases[*]} " == *" $name "* ]] || complaints+=("$name is in the baseline, but no case any more; to accept that: $accepting")
  done < <(grep -v '^#' "$baseline")
fi
if ((${#complaints[@]})); then
  printf '%s\n' "${complaints[@]}"
  exit 1
fi
if [[ -n $accept ]]; then
  {
    echo "# Instructions of each case of tests/instructions/kernels.cpp, counted by $(valgrind --version)'s callgrind."
    echo "# compiler: $version"
    echo "# flags: $flags"
    printf '%s\n' "${lines[@]}"
  } >"$baseline.new"
  mv "$baseline.new" "$baseline"
  echo "instructions: wrote $baseline"
  exit 0
fi
((fewer == 0)) || echo "Some cases take fewer by more than 5 %: to hold them there, $accepting"
((lacking == 0)) || skip "$lacking of the ${#cases[@]} cases, for want of their instruction set; the others are within their baselines"
