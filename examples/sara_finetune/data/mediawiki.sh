#!/usr/bin/env bash
# Sentence pairs of English and another language, and plain English, out of the messages of MediaWiki as Debian and Ubuntu package it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'END'
usage: bash mediawiki.sh XX [FOLDER]

Downloads the package `mediawiki` with apt-get (37 MB; it is not installed) and takes out what reads as sentences: English and its
translation into XX (sw, ne, bn, hi, te, ...), the language of buttons, warnings and help. Prints the pairs as TSV, or with FOLDER writes
FOLDER/mediawiki.en-XX.tsv and FOLDER/mediawiki.en.txt (English sentences that stand in none of the pairs) and prints the first's path.
Licence of the text: GPL-2.0-or-later.
END
}
refuse() {
  echo "mediawiki.sh: $1" >&2
  exit 1
}

[[ ${1:-} == --help ]] && { usage; exit 0; }
(($# == 1 || $# == 2)) || { usage >&2; exit 2; }
language=$1 folder=${2:-}
[[ $language =~ ^[a-z]{2,3}(-[a-z]+)*$ && $language != en ]] || refuse "expected a language such as sw, found '$language'"
for tool in apt-get dpkg-deb python3; do
  command -v $tool >/dev/null || refuse "$tool is missing"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get download mediawiki >log 2>&1) ||
  refuse "the package mediawiki could not be downloaded: no network, or no package lists, which apt-get update fetches ($(grep -m 1 '^E:' "$work/log" || tail -n 1 "$work/log"))"
mkdir "$work/files"
dpkg-deb --fsys-tarfile "$work"/mediawiki_*.deb | tar -x -C "$work/files" --wildcards '*/i18n/*.json' || refuse "the package mediawiki could not be unpacked"
[[ -n $(find "$work/files" -path '*/i18n/*' -name "$language.json" -print -quit) ]] || refuse "MediaWiki has no messages in $language"

if [[ -z $folder ]]; then
  python3 "$here/mediawiki.py" "$work/files" "$language"
  exit
fi
mkdir -p "$folder" 2>/dev/null || refuse "the folder $folder cannot be made"
# Beside the targets, so that the last steps are renames.
next=$(mktemp -d "$folder/.mediawiki.XXXXXX" 2>/dev/null) || refuse "the folder $folder cannot be written to"
trap 'rm -rf "$work" "$next"' EXIT
python3 "$here/mediawiki.py" "$work/files" "$language" >"$next/pairs"
python3 "$here/mediawiki.py" "$work/files" "$language" --english >"$next/english"
mv "$next/english" "$folder/mediawiki.en.txt"
mv "$next/pairs" "$folder/mediawiki.en-$language.tsv"
echo "$folder/mediawiki.en-$language.tsv"
