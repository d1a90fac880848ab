#!/usr/bin/env bash
# One of TICO-19's translation memories (https://tico-19.github.io, CC0 1.0): about 3,000 sentences on health, English and another language.
set -euo pipefail

usage() {
  cat <<'END'
usage: bash tico19.sh XX FOLDER

Fetches the memory of English and XX (sw, ne, bn, hi, fr, ha, so, ...; en-sw is sw), puts it into FOLDER as en-XX.tmx and prints
that path. What is there already is not fetched again. SARA_TICO19_URL names another place to fetch from (default: the project's files on GitHub, at one commit).
END
}
refuse() {
  echo "tico19.sh: $1" >&2
  exit 1
}

[[ ${1:-} == --help ]] && { usage; exit 0; }
(($# == 2)) || { usage >&2; exit 2; }
language=${1#en-} folder=$2
[[ $language =~ ^[a-z]{2,3}([-_][A-Za-z]+)?$ ]] || refuse "expected a language such as sw, found '$language'"
from=${SARA_TICO19_URL:-https://raw.githubusercontent.com/tico-19/tico-19.github.io/d97615f9cffa28ec7de571e00fbd513e5a1c7fc7/data/TM}
url=$from/all.en-$language.tmx.zip target=$folder/en-$language.tmx
[[ -s $target ]] && { echo "$target"; exit 0; }

command -v unzip >/dev/null || refuse "unzip is missing (Debian and Ubuntu: apt-get install unzip)"
mkdir -p "$folder" 2>/dev/null || refuse "the folder $folder cannot be made"
# Beside the target, so that the last step is a rename.
work=$(mktemp -d "$folder/.tico19.XXXXXX" 2>/dev/null) || refuse "the folder $folder cannot be written to"
trap 'rm -rf "$work"' EXIT

failed=
if command -v curl >/dev/null; then
  curl --fail --silent --show-error --location --connect-timeout 15 --max-time 300 --output "$work/memory.zip" "$url" 2>"$work/log" || failed=1
elif command -v wget >/dev/null; then
  wget --no-verbose --timeout=15 --tries=2 --output-document="$work/memory.zip" "$url" 2>"$work/log" || failed=1
else
  refuse "neither curl nor wget is here (Debian and Ubuntu: apt-get install curl)"
fi
[[ -z $failed ]] || refuse "$url could not be fetched: no network, or no such memory ($(tail -n 1 "$work/log"))"
unzip -tqq "$work/memory.zip" >/dev/null 2>&1 || refuse "what came from $url is not a whole zip archive"
unzip -p "$work/memory.zip" '*.tmx' >"$work/memory.tmx" 2>/dev/null || refuse "the archive from $url holds no .tmx"
# A page of a proxy, or of a site that has moved, is no memory, whatever its name.
if ! { head -c 1000 "$work/memory.tmx" | grep -q '<tmx' && tail -c 1000 "$work/memory.tmx" | grep -q '</tmx>'; }; then
  refuse "what came from $url is not a whole TMX file"
fi
for side in en "$language"; do
  grep -qiE "lang=[\"']${side/_/[-_]}[-_\"']" "$work/memory.tmx" || refuse "the memory from $url has no text in $side"
done
mv "$work/memory.tmx" "$target"
echo "$target"
