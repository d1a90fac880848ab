// Parallel and monolingual text from files. Whatever is wrong with a file is one sentence that names it and the line,
// thrown as std::runtime_error.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace sara_finetune {

// A sentence in the high-resource language and its translation; neither side is empty.
struct pair {
  std::string id;   // TMX: the tuid, so that files of one series name a sentence alike, else "unit N"; TSV: "line N". Unique in its file
  std::string high, low;
};

// One low-resource language against the high-resource one.
struct parallel_text {
  std::string file, language;   // the low-resource language
  std::vector<pair> pairs;
};

struct monolingual_text {
  std::string file, language;
  std::vector<std::string> sentences;
};

struct parallel_source {
  std::filesystem::path file;   // .tmx or .tsv
  std::string high = "en";
  std::string low = {};   // absent: TMX: the only other language of the file; TSV: `sw` of `en-sw.tsv` or `news.en-sw.tsv`
};

// TMX: a language is matched by its first subtags in any case: `en` takes en, EN and en-US. Of a segment's inline elements
// the text of <hi> and <sub> is kept; those that hold another program's codes (<bpt>, <ept>, <it>, <ph>, <ut>) are dropped.
// TSV: high <tab> low; a line that starts with # is a comment.
// Throws on malformed XML, a <tu> without one of the languages or with an empty side, a line without exactly one tab, what is
// not UTF-8, and a file without a pair.
parallel_text read_parallel(const parallel_source& source);

// A sentence a line; blank lines are skipped. Throws if there is none.
monolingual_text read_monolingual(const std::filesystem::path& file, const std::string& language);

}   // namespace sara_finetune
