// Four-way cloze: of a sentence's first half and four second halves, which one is the model's continuation?
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "measure.hpp"

namespace sara_finetune {

struct cloze_result {
  std::int64_t right = 0, items = 0;
};

// The first half of a sentence's words, of an odd number the smaller part, and the rest; absent for fewer than 8 words. Words are what
// white space parts.
std::optional<std::pair<std::string, std::string>> halves(const std::string& sentence);

struct cloze_sentence {
  encoded_sentence prefix = {}, half = {};   // both begin with BOS
};

// Of the sentences that have two halves.
std::vector<cloze_sentence> cloze_sentences(std::span<const encoded_sentence* const> sentences, const tokenizer& words);

constexpr std::size_t cloze_choices = 4;

struct cloze_item {
  std::array<std::size_t, cloze_choices> halves = {};   // of which sentences; the first is the right one, and its prefix goes before
};

// An item a sentence. Distractors are the halves that are nearest in their number of tokens, drawn with a fixed seed where several are
// equally near; no two of the four are the same tokens. A sentence is left out if it has no three distractors, or if one of the four does
// not fit into the context behind its prefix.
std::vector<cloze_item> cloze_items(std::span<const cloze_sentence> sentences, index_t context);

// An item is right if its first half has the largest log p(half | prefix) - log p(half); a tie is wrong. `continued` [items, choices] and
// `alone` [sentences] are the negative logarithms.
cloze_result count_right(std::span<const cloze_item> items, std::span<const double> continued, std::span<const double> alone);

// Probabilities are of the half's tokens and EOS, behind BOS and the prefix, or behind BOS alone.
cloze_result cloze(const model_shape& shape, std::span<const float> parameters, std::span<const encoded_sentence* const> sentences,
                   const tokenizer& words, sara::thread_pool& pool);

}   // namespace sara_finetune
