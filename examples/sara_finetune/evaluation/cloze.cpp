#include "cloze.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "../training/random.hpp"

namespace sara_finetune {
namespace {

constexpr std::size_t least_words = 8;
constexpr std::uint64_t cloze_seed = 1;
constexpr const char* white_space = " \t\n\v\f\r";

encoded_sentence continued(const cloze_sentence& begun, const cloze_sentence& ended) {
  encoded_sentence whole{.text = begun.prefix.text + " " + ended.half.text, .tokens = begun.prefix.tokens};
  whole.tokens.insert(whole.tokens.end(), ended.half.tokens.begin() + 1, ended.half.tokens.end());
  return whole;
}

}   // namespace

std::optional<std::pair<std::string, std::string>> halves(const std::string& sentence) {
  std::vector<std::string> words;
  for (std::size_t at = sentence.find_first_not_of(white_space); at != std::string::npos;) {
    const std::size_t end = std::min(sentence.find_first_of(white_space, at), sentence.size());
    words.push_back(sentence.substr(at, end - at));
    at = sentence.find_first_not_of(white_space, end);
  }
  if (words.size() < least_words) return std::nullopt;
  std::pair<std::string, std::string> both;
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string& half = i < words.size() / 2 ? both.first : both.second;
    half += (half.empty() ? "" : " ") + words[i];
  }
  return both;
}

std::vector<cloze_sentence> cloze_sentences(std::span<const encoded_sentence* const> sentences, const tokenizer& words) {
  std::vector<cloze_sentence> all;
  for (const encoded_sentence* sentence : sentences)
    if (const auto both = halves(sentence->text))
      all.push_back({.prefix = encode(words, both->first), .half = encode(words, both->second)});
  return all;
}

std::vector<cloze_item> cloze_items(std::span<const cloze_sentence> sentences, index_t context) {
  const auto length = [&](std::size_t i) { return sentences[i].half.length(); };
  std::vector<std::size_t> by_length(sentences.size());
  std::iota(by_length.begin(), by_length.end(), std::size_t(0));
  random_bits random(cloze_seed);
  random.shuffle(by_length);
  std::stable_sort(by_length.begin(), by_length.end(), [&](std::size_t a, std::size_t b) { return length(a) < length(b); });

  const auto item_at = [&](std::size_t place) -> std::optional<cloze_item> {
    const std::size_t right = by_length[place];
    cloze_item item{.halves = {right}};
    std::size_t found = 1;
    for (std::size_t below = place, above = place + 1; found < cloze_choices && (below > 0 || above < by_length.size());) {
      const bool none_below = below == 0, none_above = above == by_length.size();
      const index_t to_below = none_below ? 0 : length(right) - length(by_length[below - 1]);
      const index_t to_above = none_above ? 0 : length(by_length[above]) - length(right);
      // Of equally near ones by turns: a longer half has more to gain from its prefix, or to lose.
      const bool is_above_next = to_above < to_below || (to_above == to_below && (right + found) % 2 == 0);
      const bool take_above = none_below || (!none_above && is_above_next);
      const std::size_t next = by_length[take_above ? above++ : --below];
      const bool is_new = std::all_of(item.halves.begin(), item.halves.begin() + static_cast<std::ptrdiff_t>(found),
                                      [&](std::size_t i) { return sentences[i].half.tokens != sentences[next].half.tokens; });
      if (is_new) item.halves[found++] = next;
    }
    const bool fits = std::all_of(item.halves.begin(), item.halves.end(),
                                  [&](std::size_t i) { return sentences[right].prefix.length() + length(i) - 1 <= context; });
    return found == cloze_choices && fits ? std::optional(item) : std::nullopt;
  };

  std::vector<cloze_item> items;
  for (std::size_t place = 0; place < by_length.size(); ++place)
    if (const auto item = item_at(place)) items.push_back(*item);
  std::sort(items.begin(), items.end(), [](const cloze_item& a, const cloze_item& b) { return a.halves[0] < b.halves[0]; });
  return items;
}

cloze_result count_right(std::span<const cloze_item> items, std::span<const double> continued, std::span<const double> alone) {
  if (continued.size() != items.size() * cloze_choices)
    throw std::runtime_error("count_right: continued must have " + std::to_string(items.size() * cloze_choices) + " entries, but has " +
                             std::to_string(continued.size()));
  cloze_result result{.items = static_cast<std::int64_t>(items.size())};
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto score = [&](std::size_t choice) {
      const std::size_t half = items[i].halves[choice];
      if (half >= alone.size())
        throw std::runtime_error("count_right: alone must have more than " + std::to_string(half) + " entries, but has " +
                                 std::to_string(alone.size()));
      return alone[half] - continued[i * cloze_choices + choice];
    };
    bool largest = true;
    for (std::size_t choice = 1; choice < cloze_choices; ++choice) largest = score(0) > score(choice) && largest;
    result.right += largest;
  }
  return result;
}

cloze_result cloze(const model_shape& shape, std::span<const float> parameters, std::span<const encoded_sentence* const> sentences,
                   const tokenizer& words, sara::thread_pool& pool) {
  const std::vector<cloze_sentence> all = cloze_sentences(sentences, words);
  const std::vector<cloze_item> items = cloze_items(all, shape.context);
  std::vector<encoded_sentence> wholes;
  std::vector<continued_sentence> behind_prefix, alone;
  std::vector<std::size_t> compared;
  wholes.reserve(items.size() * cloze_choices);
  for (const cloze_item& item : items) {
    const cloze_sentence& right = all[item.halves[0]];
    for (const std::size_t half : item.halves) {
      wholes.push_back(continued(right, all[half]));
      behind_prefix.push_back({.sentence = &wholes.back(), .given = right.prefix.length() - 1});
      compared.push_back(half);
    }
  }
  std::sort(compared.begin(), compared.end());
  compared.erase(std::unique(compared.begin(), compared.end()), compared.end());
  for (const std::size_t half : compared) alone.push_back({.sentence = &all[half].half});

  std::vector<double> of_halves(all.size());
  const std::vector<double> of_compared = cross_entropies(shape, parameters, alone, pool);
  for (std::size_t i = 0; i < compared.size(); ++i) of_halves[compared[i]] = of_compared[i];
  return count_right(items, cross_entropies(shape, parameters, behind_prefix, pool), of_halves);
}

}   // namespace sara_finetune
