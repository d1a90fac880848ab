#include "splits.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>

#include "../training/random.hpp"
#include "text_file.hpp"

namespace sara_finetune {
namespace {

constexpr std::uint64_t split_seed = 0x7361726173706c69;

using sentence_set = std::unordered_set<std::string>;

// What two sentences have in common that count as duplicates.
std::string key(const std::string& sentence) {
  std::string folded(trim(sentence));
  for (char& c : folded) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return folded;
}

void add(const std::vector<pair>& pairs, sentence_set& set) {
  for (const pair& p : pairs) {
    set.insert(key(p.high));
    set.insert(key(p.low));
  }
}

std::size_t remove_those_in(const sentence_set& set, std::vector<pair>& pairs) {
  return std::erase_if(pairs, [&](const pair& p) { return set.contains(key(p.high)) || set.contains(key(p.low)); });
}

struct named_part {
  const char* name;
  std::vector<pair> parallel_split::*pairs;
};
constexpr std::array<named_part, 3> parts{
    {{"training", &parallel_split::training}, {"validation", &parallel_split::validation}, {"test", &parallel_split::test}}};

void require_pairs(const parallel_split& text, const std::string& why) {
  for (const named_part& p : parts) {
    if ((text.*p.pairs).empty()) throw std::runtime_error(text.file + ": no pair is left for " + p.name + ": " + why);
  }
}

}   // namespace

part part_of_block(std::size_t block, const split_options& options) {
  const std::size_t first = block / options.every * options.every;
  const auto rank_before = [](std::uint64_t a, std::uint64_t b) {
    const std::uint64_t ha = random_bits(split_seed ^ a)(), hb = random_bits(split_seed ^ b)();
    return ha != hb ? ha < hb : a < b;
  };
  std::size_t rank = 0;
  for (std::size_t other = first; other < first + options.every; ++other) rank += rank_before(other, block);
  if (rank < options.test) return part::test;
  return rank < options.test + options.validation ? part::validation : part::training;
}

std::vector<parallel_split> split(const std::vector<parallel_text>& texts, const split_options& options) {
  if (options.block < 1 || options.validation < 1 || options.test < 1 || options.validation + options.test >= options.every) {
    throw std::runtime_error("split: expected block, validation and test of at least 1 and a block left for training, found block " +
                             std::to_string(options.block) + ", validation " + std::to_string(options.validation) + " and test " +
                             std::to_string(options.test) + " of every " + std::to_string(options.every));
  }
  std::vector<parallel_split> splits;
  for (const parallel_text& text : texts) {
    if (text.pairs.size() < options.every) {
      throw std::runtime_error(text.file + ": expected at least " + std::to_string(options.every) +
                               " pairs to split into training, validation and test, found " + std::to_string(text.pairs.size()));
    }
    parallel_split& to = splits.emplace_back();
    to.file = text.file;
    to.language = text.language;
    const std::size_t block = std::clamp<std::size_t>(text.pairs.size() / options.every, 1, options.block);
    for (std::size_t i = 0; i < text.pairs.size(); ++i) {
      const auto pairs = parts[static_cast<std::size_t>(part_of_block(i / block, options))].pairs;
      (to.*pairs).push_back(text.pairs[i]);
    }
  }

  sentence_set held_out;
  for (const parallel_split& s : splits) add(s.test, held_out);
  for (parallel_split& s : splits) s.duplicates += remove_those_in(held_out, s.validation);
  for (const parallel_split& s : splits) add(s.validation, held_out);
  for (parallel_split& s : splits) {
    s.duplicates += remove_those_in(held_out, s.training);
    require_pairs(s, "all of them repeat sentences that are held out");
  }
  return splits;
}

std::size_t leave_out_longer(parallel_split& text, std::size_t longest, const std::function<std::size_t(const std::string&)>& length) {
  std::size_t left_out = 0;
  for (const named_part& p : parts) {
    left_out += std::erase_if(text.*p.pairs, [&](const pair& q) { return length(q.high) > longest || length(q.low) > longest; });
  }
  text.too_long += left_out;
  require_pairs(text, "all of them are longer than " + std::to_string(longest) + " tokens");
  return left_out;
}

std::size_t leave_out_held_out(monolingual_text& text, const std::vector<parallel_split>& splits) {
  sentence_set held_out;
  for (const parallel_split& s : splits) {
    add(s.validation, held_out);
    add(s.test, held_out);
  }
  const std::size_t left_out = std::erase_if(text.sentences, [&](const std::string& s) { return held_out.contains(key(s)); });
  if (text.sentences.empty()) throw std::runtime_error(text.file + ": no sentence is left: all of them are held out");
  return left_out;
}

std::vector<monolingual_text> training_text(const std::vector<parallel_split>& splits, const std::vector<monolingual_text>& more,
                                            const std::string& high) {
  std::vector<monolingual_text> texts{{.file = {}, .language = high, .sentences = {}}};
  const auto text_of = [&](const std::string& language) -> std::vector<std::string>& {
    auto text = std::find_if(texts.begin(), texts.end(), [&](const monolingual_text& t) { return t.language == language; });
    if (text == texts.end()) text = texts.insert(text, {.file = {}, .language = language, .sentences = {}});
    return text->sentences;
  };
  sentence_set shared;
  for (const parallel_split& s : splits) {
    std::vector<std::string> own;
    for (const pair& p : s.training) {
      if (!shared.contains(p.high)) own.push_back(p.high);
      text_of(s.language).push_back(p.low);
    }
    shared.insert(own.begin(), own.end());
    std::vector<std::string>& all = text_of(high);
    all.insert(all.end(), own.begin(), own.end());
  }
  for (const monolingual_text& m : more) {
    std::vector<std::string>& all = text_of(m.language);
    all.insert(all.end(), m.sentences.begin(), m.sentences.end());
  }
  return texts;
}

}   // namespace sara_finetune
