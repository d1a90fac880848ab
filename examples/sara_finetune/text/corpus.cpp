#include "corpus.hpp"

#include <algorithm>
#include <stdexcept>
#include <string_view>

#include "text_file.hpp"
#include "tmx.hpp"

namespace sara_finetune {
namespace {

// `zh-hant` of `news.en-zh-hant`; without a high-resource language in the name, what stands behind its last hyphen.
std::string language_in(const std::string& stem, const std::string& high) {
  const std::size_t at = stem.rfind(high + "-");
  if (at != std::string::npos && (at == 0 || stem[at - 1] == '.')) return stem.substr(at + high.size() + 1);
  return stem.substr(stem.rfind('-') + 1);   // npos + 1 is 0: the whole stem
}

parallel_text read_tsv(const parallel_source& source) {
  parallel_text text{.file = source.file.string(), .language = source.low, .pairs = {}};
  if (text.language.empty()) text.language = language_in(source.file.stem().string(), source.high);
  if (text.language.empty() || text.language == source.high) {
    throw std::runtime_error(text.file + ": expected a name such as " + source.high + "-sw.tsv, which says what " + source.high +
                             " is translated into, found '" + text.language + "'");
  }

  const std::string bytes = read_text_file(source.file);
  std::size_t number = 0;
  for (const std::string_view line : lines(bytes)) {
    ++number;
    if (line.starts_with('#')) continue;
    const auto tabs = std::count(line.begin(), line.end(), '\t');
    if (tabs != 1) {
      refuse_line(source.file, number, "expected two sentences with one tab between them, found " + std::to_string(tabs) + " tabs");
    }
    const std::size_t tab = line.find('\t');
    pair p{.id = "line " + std::to_string(number),
           .high = std::string(trim(line.substr(0, tab))),
           .low = std::string(trim(line.substr(tab + 1)))};
    if (p.high.empty() || p.low.empty()) {
      const std::string& language = p.high.empty() ? source.high : text.language;
      refuse_line(source.file, number, "expected a sentence in " + language + ", found an empty side");
    }
    text.pairs.push_back(std::move(p));
  }
  return text;
}

}   // namespace

parallel_text read_parallel(const parallel_source& source) {
  std::string extension = source.file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (extension != ".tmx" && extension != ".tsv") {
    throw std::runtime_error(source.file.string() + ": expected parallel text as .tmx or .tsv, found '" + extension + "'");
  }
  parallel_text text = extension == ".tmx" ? read_tmx(source) : read_tsv(source);
  if (text.pairs.empty()) throw std::runtime_error(text.file + ": expected sentence pairs, found none");
  return text;
}

monolingual_text read_monolingual(const std::filesystem::path& file, const std::string& language) {
  monolingual_text text{.file = file.string(), .language = language, .sentences = {}};
  const std::string bytes = read_text_file(file);
  for (const std::string_view line : lines(bytes)) {
    if (const std::string_view sentence = trim(line); !sentence.empty()) text.sentences.emplace_back(sentence);
  }
  if (text.sentences.empty()) throw std::runtime_error(text.file + ": expected a sentence a line, found none");
  return text;
}

}   // namespace sara_finetune
