#!/usr/bin/env python3
"""Prints what reads as sentences in MediaWiki's messages.

usage: mediawiki.py FOLDER XX             pairs: English, a tab, XX
       mediawiki.py FOLDER XX --english   the English that stands in none of them

A message is cut into lines. A line with a parameter, a template, a plural or code in it is dropped; of a link its text is kept.
"""
import html
import json
import pathlib
import re
import sys

WORDS = range(4, 41)          # of the English side
LENGTH_RATIO = (0.4, 2.5)     # characters of a translation to those of the English

FORMATTING = re.compile(r"</?(?:b|strong|em|i|u|small|big|p|div|span|li|ul|ol)(?:\s[^<>]*)?>|'{2,5}", re.IGNORECASE)
LINE_END = re.compile(r"\n|<br\s*/?>", re.IGNORECASE)
GENDER = re.compile(r"\{\{\s*GENDER:[^{}|]*\|([^{}|]*)(?:\|[^{}]*)?\}\}", re.IGNORECASE)
LINK = re.compile(r"\[\[([^\[\]|]*)(?:\|([^\[\]]*))?\]\]")
WEB_LINK = re.compile(r"\[(?:https?:)?//\S+\s+([^\[\]]+)\]")
LIST_MARK = re.compile(r"^[*#:;=\s]+|[=\s]+$")
# Parameters, templates, tags, code, addresses, regular expressions, tables, alternatives, list marks, names of fields, file names.
NO_SENTENCE = re.compile(r"[$%]\w|[{}<>\[\]\\|^_=~`*#•✓]|//|@|&\w+;|\w\.\w+\.\w|\w\s?/\s?\w|\w:\w|\.(?:php|js|css|json|org|com)\b|\(\?", re.IGNORECASE)
INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def link_text(match):
    target, text = match.group(1), match.group(2)
    if text is not None:
        return text
    return "<" if ":" in target else target   # `Special:Tags` is an address: the line falls


def sentence(line):
    """The text of a line, or None where that is no sentence."""
    line = GENDER.sub(r"\1", INVISIBLE.sub("", html.unescape(line)))
    line = WEB_LINK.sub(r"\1", LINK.sub(link_text, FORMATTING.sub("", line)))
    line = " ".join(LIST_MARK.sub("", line).split())
    if not line or NO_SENTENCE.search(line):
        return None
    # The signs of vowels are marks, no letters, to Python.
    letters = sum(c.isalpha() or not c.isascii() for c in line)
    if letters < 0.7 * len(line.replace(" ", "")):
        return None
    # Lists of letters, as of an alphabet or a keyboard.
    words = line.split()
    if sum(len(w.strip(".,;:()\"'")) <= 1 for w in words) > len(words) / 3:
        return None
    return line


def lines(message):
    return [sentence(line) for line in LINE_END.split(message)]


def messages(file):
    if not file.exists():
        return {}
    return {key: text for key, text in json.loads(file.read_text(encoding="utf-8")).items() if isinstance(text, str)}


def is_english(line):
    return line is not None and len(line.split()) in WORDS


def latin_share(text):
    letters = [c for c in text if c.isalpha()]
    return sum(c.isascii() for c in letters) / max(len(letters), 1)


def collect(folder, language):
    """The pairs, and the English lines that are in none of them."""
    pairs, english, seen = [], {}, set()
    for file in sorted(folder.glob("**/i18n/**/en.json")):
        translations = messages(file.with_name(language + ".json"))
        for key, message in messages(file).items():
            ours, theirs = lines(message), lines(translations.get(key, ""))
            for line in filter(is_english, ours):
                english.setdefault(line.casefold(), line)
            if len(ours) != len(theirs):
                continue
            for high, low in zip(ours, theirs):
                if not is_english(high) or low is None or len(low.split()) < 2:
                    continue
                if not LENGTH_RATIO[0] <= len(low) / len(high) <= LENGTH_RATIO[1]:
                    continue
                sides = {high.casefold(), low.casefold()}
                if len(sides) < 2 or sides & seen:
                    continue
                seen |= sides
                pairs.append((high, low))
    # In a language of another script, Latin letters are a line that was never translated.
    if sum(latin_share(low) < 0.5 for _, low in pairs) > len(pairs) / 2:
        pairs = [(high, low) for high, low in pairs if latin_share(low) < 0.3]
    for high, _ in pairs:
        english.pop(high.casefold(), None)
    return pairs, list(english.values())


def main():
    if len(sys.argv) not in (3, 4) or sys.argv[3:] not in ([], ["--english"]):
        sys.exit(__doc__.strip())
    folder, language = pathlib.Path(sys.argv[1]), sys.argv[2]
    pairs, english = collect(folder, language)
    if not pairs:
        sys.exit(f"mediawiki.py: expected messages in English and {language} in {folder}, found no pair of sentences")
    if sys.argv[3:]:
        text = "".join(line + "\n" for line in english)
    else:
        text = f"# English and {language}: messages of MediaWiki and its extensions; licence: GPL-2.0-or-later.\n"
        text += "".join(f"{high}\t{low}\n" for high, low in pairs)
    sys.stdout.buffer.write(text.encode())


main()
