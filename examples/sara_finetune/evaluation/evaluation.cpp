#include "evaluation.hpp"

#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include "divergences.hpp"

namespace sara_finetune {
namespace {

constexpr std::uint64_t unpaired_seed = 1, within_high_seed = 2, within_low_seed = 3;

// Sentences without repeats.
class distinct_sentences {
 public:
  index_t number(const encoded_sentence& sentence) {
    const auto [at, is_new] = numbers_.emplace(sentence.text, static_cast<index_t>(all_.size()));
    if (is_new) all_.push_back(&sentence);
    return at->second;
  }
  std::span<const encoded_sentence* const> all() const { return all_; }

 private:
  std::vector<const encoded_sentence*> all_;
  std::unordered_map<std::string_view, index_t> numbers_;
};

const std::vector<encoded_pair>& pairs_of(const encoded_split& split, part of) {
  switch (of) {
    case part::training:
      return split.training;
    case part::validation:
      return split.validation;
    case part::test:
      break;
  }
  return split.test;
}

double finite_bits_a_byte(const std::string& language, const measured_sentences& measured,
                          std::span<const encoded_sentence* const> sentences) {
  if (sentences.empty()) throw std::runtime_error("evaluate: expected text in " + language + ", found none");
  const double bits = bits_a_byte(measured.cross_entropies, sentences);
  if (!std::isfinite(bits))
    throw std::runtime_error("evaluate: the cross-entropy in " + language + " must be finite, but is " + std::to_string(bits));
  return bits;
}

void check(const std::string& language, const measured_sentences& frozen, const measured_sentences& live, std::size_t pairs) {
  if (frozen.sentences == static_cast<index_t>(pairs) && frozen.layers == live.layers && frozen.experts == live.experts) return;
  const auto extents = [](index_t n, const measured_sentences& m) {
    return std::string("[") + std::to_string(n) + " pairs, " + std::to_string(m.layers) + " layers, " + std::to_string(m.experts) +
           " experts]";
  };
  throw std::runtime_error("evaluate: the frozen histograms of " + language + " must be " + extents(static_cast<index_t>(pairs), live) +
                           ", but are " + extents(frozen.sentences, frozen));
}

}   // namespace

model_evaluation evaluate(const model_shape& shape, std::span<const float> parameters, const dataset& data, part of, const tokenizer& words,
                          const std::map<std::string, measured_sentences>& frozen, sara::thread_pool& pool) {
  model_evaluation evaluation;
  const auto of_language = [&](const std::string& language, std::span<const encoded_sentence* const> sentences) {
    measured_sentences measured = measure(shape, parameters, sentences, pass::evaluation, pool);
    evaluation.bits_per_byte[language] = finite_bits_a_byte(language, measured, sentences);
    evaluation.cloze[language] = cloze(shape, parameters, sentences, words, pool);
    evaluation.entropy[language] = measured.entropies;
    std::vector<std::vector<double>>& use = evaluation.expert_use[language];
    for (auto at = measured.expert_use.begin(); at != measured.expert_use.end(); at += shape.experts)
      use.emplace_back(at, at + shape.experts);
    return measured;
  };

  distinct_sentences high;
  for (const encoded_split& split : data.languages)
    for (const encoded_pair& pair : pairs_of(split, of)) high.number(pair.high);
  const measured_sentences of_high = of_language(data.high, high.all());

  for (const encoded_split& split : data.languages) {
    distinct_sentences low;
    std::vector<index_t> low_numbers, high_numbers;   // [pairs]
    std::vector<compared_sentences> translations, anchors;
    for (const encoded_pair& pair : pairs_of(split, of)) {
      anchors.push_back({.p = low.number(pair.low), .q = static_cast<index_t>(anchors.size())});
      translations.push_back({.p = anchors.back().p, .q = high.number(pair.high)});
      low_numbers.push_back(translations.back().p);
      high_numbers.push_back(translations.back().q);
    }
    const measured_sentences of_low = of_language(split.language, low.all());

    const mean_divergence live = compare(of_low, of_high, translations);
    const mean_divergence unpaired = compare(of_low, of_high, strangers(low_numbers, high_numbers, unpaired_seed));
    const mean_divergence within_high = compare(of_high, of_high, strangers(high_numbers, high_numbers, within_high_seed));
    const mean_divergence within_low = compare(of_low, of_low, strangers(low_numbers, low_numbers, within_low_seed));
    mean_divergence anchored = live;
    if (const auto at = frozen.find(split.language); at != frozen.end()) {
      check(split.language, at->second, of_low, anchors.size());
      anchored = compare(of_low, at->second, anchors);
    }
    evaluation.divergence[split.language] = {.live = live.plain,
                                             .anchored = anchored.plain,
                                             .unpaired = unpaired.plain,
                                             .within_high = within_high.plain,
                                             .within_low = within_low.plain};
    evaluation.normalized[split.language] = {.live = live.normalized,
                                             .unpaired = unpaired.normalized,
                                             .within_high = within_high.normalized,
                                             .within_low = within_low.normalized};
  }
  return evaluation;
}

std::map<std::string, measured_sentences> freeze(const model_shape& shape, std::span<const float> parameters, const dataset& data, part of,
                                                 sara::thread_pool& pool) {
  std::map<std::string, measured_sentences> frozen;
  for (const encoded_split& split : data.languages) {
    std::vector<const encoded_sentence*> high;
    for (const encoded_pair& pair : pairs_of(split, of)) high.push_back(&pair.high);
    frozen[split.language] = measure(shape, parameters, high, pass::routing, pool);
  }
  return frozen;
}

}   // namespace sara_finetune
