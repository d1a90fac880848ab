#include "batches.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "random.hpp"

namespace sara_finetune {
namespace {

// Entries in random order, then all of them again in another.
class passes {
 public:
  passes(std::vector<training_sequence> entries, std::uint64_t seed) : entries_(std::move(entries)), random_(seed) {}

  const training_sequence& next() {
    if (at_ == 0) random_.shuffle(entries_);
    const training_sequence& chosen = entries_[at_];
    at_ = (at_ + 1) % entries_.size();
    return chosen;
  }

 private:
  std::vector<training_sequence> entries_;
  random_bits random_;
  std::size_t at_ = 0;
};

std::vector<training_sequence> of_sentences(const std::vector<encoded_sentence>& sentences) {
  std::vector<training_sequence> all;
  for (const encoded_sentence& s : sentences) all.push_back({.sentence = &s});
  return all;
}

void check_share(const char* name, double share, bool may_be_all) {
  if (!(share >= 0) || share > 1 || (share == 1 && !may_be_all))
    throw std::runtime_error(std::string(name) + " must be from 0 to " + (may_be_all ? "1" : "less than 1") + ", but is " +
                             std::to_string(share));
}

// Steps of sequences until there are tokens enough; `share` of them from second(), the others from first().
template <class First, class Second> step_batches dealt(const batch_options& options, double share, First&& first, Second&& second) {
  if (options.sequences < 1) throw std::runtime_error("a step must have at least 1 sequence, but has " + std::to_string(options.sequences));
  if (options.tokens < 1) throw std::runtime_error("a stage must have at least 1 token, but has " + std::to_string(options.tokens));
  step_batches steps;
  double owed = 0;
  for (index_t tokens = 0; tokens < options.tokens;) {
    std::vector<training_sequence>& step = steps.emplace_back();
    owed += share * static_cast<double>(options.sequences);
    const double of_second = std::floor(owed + 1e-9);   // 0.1 ten times is less than 1
    owed -= of_second;
    for (index_t i = 0; i < options.sequences; ++i) {
      step.push_back(static_cast<double>(i) < of_second ? second() : first());
      tokens += step.back().sentence->length();
    }
  }
  return steps;
}

}   // namespace

step_batches pretraining_batches(const dataset& data, double low_share, double low_sentences, const batch_options& options) {
  check_share("the low-resource share of pretraining", low_share, true);
  check_share("the share of low-resource sentences that pretraining reads", low_sentences, true);
  passes high(of_sentences(data.high_text), mixed(options.seed, 1));
  std::vector<passes> low;
  for (std::size_t i = 0; i < data.low_text.size(); ++i) {
    std::vector<training_sequence> entries = of_sentences(data.low_text[i]);
    random_bits(mixed(options.seed, 100 + i)).shuffle(entries);
    const double kept = std::round(low_sentences * static_cast<double>(entries.size()));
    entries.resize(std::max<std::size_t>(1, static_cast<std::size_t>(kept)));
    low.emplace_back(std::move(entries), mixed(options.seed, 200 + i));
  }
  std::size_t turn = 0;
  return dealt(
      options, low_share, [&] { return high.next(); }, [&] { return low[turn++ % low.size()].next(); });
}

step_batches finetuning_batches(const dataset& data, double rehearsal, const batch_options& options) {
  check_share("rehearsal", rehearsal, false);
  std::vector<training_sequence> pairs;
  for (const encoded_split& language : data.languages)
    for (const encoded_pair& p : language.training)
      pairs.push_back({.sentence = &p.low, .anchor_row = static_cast<std::int32_t>(pairs.size())});
  passes low(std::move(pairs), mixed(options.seed, 2)), high(of_sentences(data.high_text), mixed(options.seed, 3));
  return dealt(
      options, rehearsal, [&] { return low.next(); }, [&] { return high.next(); });
}

std::vector<std::int32_t> shuffled_rows(const dataset& data, std::span<const std::int32_t> rows, std::uint64_t seed) {
  std::vector<std::int32_t> others(rows.begin(), rows.end());
  random_bits random(mixed(seed, 4));
  std::size_t first = 0;
  for (const encoded_split& language : data.languages) {
    // A random cycle through the pairs that have an anchor: none is its own neighbour.
    std::vector<std::size_t> cycle;
    for (std::size_t i = first; i < first + language.training.size(); ++i)
      if (rows[i] >= 0) cycle.push_back(i);
    first += language.training.size();
    if (cycle.size() == 1) throw std::runtime_error("anchors of " + language.language + " cannot be shuffled: there is only one");
    random.shuffle(cycle);
    for (std::size_t i = 0; i < cycle.size(); ++i) others[cycle[i]] = rows[cycle[(i + 1) % cycle.size()]];
  }
  return others;
}

}   // namespace sara_finetune
