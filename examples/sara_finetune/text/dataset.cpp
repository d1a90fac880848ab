#include "dataset.hpp"

#include <algorithm>
#include <iterator>
#include <set>
#include <stdexcept>
#include <unordered_set>

namespace sara_finetune {
namespace {

void require_first(const std::filesystem::path& file, std::set<std::filesystem::path>& given) {
  if (!given.insert(std::filesystem::absolute(file).lexically_normal()).second) {
    throw std::runtime_error(file.string() + ": expected each file once, found this one twice");
  }
}

std::vector<parallel_split> read_splits(const corpus_options& options) {
  if (options.parallel.empty()) throw std::runtime_error("corpus: expected at least one file of sentence pairs, found none");
  std::vector<parallel_text> texts;
  std::set<std::filesystem::path> given;
  for (const std::filesystem::path& file : options.parallel) {
    require_first(file, given);
    texts.push_back(read_parallel({.file = file, .high = options.high}));
  }
  return split(texts);
}

// Before any pair is left out for its length, because those are held out too.
std::vector<monolingual_text> read_texts(const corpus_options& options, const std::vector<parallel_split>& splits, dataset& data) {
  std::vector<monolingual_text> texts;
  std::set<std::filesystem::path> given;
  std::set<std::string> languages = {options.high};
  for (const parallel_split& s : splits) languages.insert(s.language);
  for (const auto& [language, file] : options.text) {
    if (!languages.contains(language)) {
      std::string list;
      for (const std::string& name : languages) list += (list.empty() ? "" : ", ") + name;
      throw std::runtime_error(file.string() + ": expected text in a language that has sentence pairs (" + list + "), found '" + language +
                               "'");
    }
    require_first(file, given);
    texts.push_back(read_monolingual(file, language));
    data.files.push_back({.file = texts.back().file, .language = language, .parallel = false});
    data.files.back().duplicates = leave_out_held_out(texts.back(), splits);
  }
  return texts;
}

std::vector<encoded_pair> encode_pairs(const tokenizer& words, const std::vector<pair>& pairs) {
  std::vector<encoded_pair> encoded;
  encoded.reserve(pairs.size());
  for (const pair& p : pairs) encoded.push_back({.id = p.id, .high = encode(words, p.high), .low = encode(words, p.low)});
  return encoded;
}

void add(std::vector<encoded_pair>&& from, std::vector<encoded_pair>& to) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

// Ids are unique in a file; of a language's second file they may be those of its first.
void number_ids(parallel_split& s, std::size_t file, std::unordered_set<std::string>& ids) {
  for (std::vector<pair>* const pairs : {&s.training, &s.validation, &s.test}) {
    for (pair& p : *pairs) {
      if (file > 1) p.id.insert(0, "file " + std::to_string(file) + ", ");
      while (!ids.insert(p.id).second) p.id += "#";
    }
  }
}

std::vector<encoded_split> encode_splits(const tokenizer& words, std::vector<parallel_split>& splits) {
  struct language_so_far {
    std::size_t files = 0;
    std::unordered_set<std::string> ids = {};
  };
  std::vector<encoded_split> languages;
  std::vector<language_so_far> so_far;
  for (parallel_split& s : splits) {
    auto to = std::find_if(languages.begin(), languages.end(), [&](const encoded_split& l) { return l.language == s.language; });
    const auto index = static_cast<std::size_t>(to - languages.begin());
    if (to == languages.end()) {
      to = languages.insert(to, {.file = {}, .language = s.language});
      so_far.emplace_back();
    }
    number_ids(s, ++so_far[index].files, so_far[index].ids);
    to->file += (to->file.empty() ? "" : ", ") + s.file;
    to->duplicates += s.duplicates;
    to->too_long += s.too_long;
    add(encode_pairs(words, s.training), to->training);
    add(encode_pairs(words, s.validation), to->validation);
    add(encode_pairs(words, s.test), to->test);
  }
  return languages;
}

std::string thousands(std::size_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

}   // namespace

encoded_sentence encode(const tokenizer& from, const std::string& sentence) {
  const std::vector<int> pieces = from.encode(sentence);
  encoded_sentence encoded{.text = sentence, .tokens = {tokenizer::bos}};
  encoded.tokens.insert(encoded.tokens.end(), pieces.begin(), pieces.end());
  return encoded;
}

void append(packed_batch& batch, const encoded_sentence& sentence, index_t given) {
  const std::size_t length = sentence.tokens.size();
  if (length == 0 || given < 0 || static_cast<std::size_t>(given) > length) {
    throw std::runtime_error("append: expected a sentence with a BOS and given from 0 to its length, found given " + std::to_string(given) +
                             " of " + std::to_string(length) + " tokens");
  }
  batch.tokens.insert(batch.tokens.end(), sentence.tokens.begin(), sentence.tokens.end());
  batch.targets.insert(batch.targets.end(), sentence.tokens.begin() + 1, sentence.tokens.end());
  batch.targets.push_back(tokenizer::eos);
  batch.target_weights.insert(batch.target_weights.end(), static_cast<std::size_t>(given), 0.0f);
  batch.target_weights.insert(batch.target_weights.end(), length - static_cast<std::size_t>(given), 1.0f);
  batch.cu_seqlens.push_back(batch.token_count());
}

prepared_corpus prepare(const corpus_options& options, const tokenizer* existing) {
  if (options.context < 2) throw std::runtime_error("corpus: expected a context of at least 2, found " + std::to_string(options.context));
  std::vector<parallel_split> splits = read_splits(options);
  dataset data{.high = options.high};
  std::vector<monolingual_text> texts = read_texts(options, splits, data);
  tokenizer words = existing != nullptr ? *existing : tokenizer::train(training_text(splits, {}, options.high), options.vocabulary);

  const auto longest = static_cast<std::size_t>(options.context);
  const auto length = [&](const std::string& sentence) { return words.encode(sentence).size() + 1; };
  std::vector<file_counts> parallel;
  for (parallel_split& s : splits) {
    leave_out_longer(s, longest, length);
    parallel.push_back({.file = s.file,
                        .language = s.language,
                        .training = s.training.size(),
                        .validation = s.validation.size(),
                        .test = s.test.size(),
                        .duplicates = s.duplicates,
                        .too_long = s.too_long});
  }
  for (std::size_t i = 0; i < texts.size(); ++i) {
    data.files[i].too_long = std::erase_if(texts[i].sentences, [&](const std::string& sentence) { return length(sentence) > longest; });
    data.files[i].training = texts[i].sentences.size();
    if (texts[i].sentences.empty()) {
      throw std::runtime_error(texts[i].file + ": no sentence is left: all of them are longer than " + std::to_string(longest) + " tokens");
    }
  }
  data.files.insert(data.files.begin(), parallel.begin(), parallel.end());

  const std::vector<monolingual_text> training = training_text(splits, texts, options.high);
  data.languages = encode_splits(words, splits);
  std::unordered_set<std::string> seen;
  for (const std::string& sentence : training.front().sentences) {
    if (seen.insert(sentence).second) data.high_text.push_back(encode(words, sentence));
  }
  for (const encoded_split& of : data.languages) {
    const auto text = std::find_if(training.begin(), training.end(), [&](const auto& t) { return t.language == of.language; });
    std::vector<encoded_sentence>& low = data.low_text.emplace_back();
    low.reserve(text->sentences.size());
    for (const std::string& sentence : text->sentences) low.push_back(encode(words, sentence));
  }
  return {.words = std::move(words), .data = std::move(data)};
}

std::string about(const dataset& data) {
  std::string report;
  for (const file_counts& f : data.files) {
    report += f.file + ": ";
    if (f.parallel) {
      report += data.high + "-" + f.language + ", " + thousands(f.training) + " pairs for training, " + thousands(f.validation) +
                " for validation, " + thousands(f.test) + " for test";
    } else {
      report += f.language + ", " + thousands(f.training) + " sentences for pretraining";
    }
    report += "; left out: " + thousands(f.duplicates) + " that repeat held-out sentences, " + thousands(f.too_long) +
              " longer than the context\n";
  }
  for (const encoded_split& of : data.languages) {
    const std::size_t pairs = of.training.size() + of.validation.size() + of.test.size();
    if (pairs < enough_pairs) {
      report += "warning: " + std::to_string(pairs) + " pairs of " + data.high + "-" + of.language +
                " are too few to train this model (expected 1,000 or more): the figures only illustrate\n";
    }
  }
  return report;
}

}   // namespace sara_finetune
