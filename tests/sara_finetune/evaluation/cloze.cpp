// Cloze: halves, distractors, and a count of items whose right answers are known.
#include "sara_finetune/evaluation/cloze.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "../files.hpp"
#include "../model/small_model.hpp"
#include "catch.hpp"
#include "sara_finetune/text/dataset.hpp"

namespace {

using namespace sara_finetune;

// Sentences of which only the tokens' number and, by `mark`, their difference matter.
cloze_sentence made_up(int prefix, int half, std::int32_t mark) {
  cloze_sentence sentence;
  sentence.prefix.tokens.assign(static_cast<std::size_t>(prefix), 3);
  sentence.half.tokens.assign(static_cast<std::size_t>(half), mark);
  sentence.prefix.tokens[0] = sentence.half.tokens[0] = tokenizer::bos;
  return sentence;
}

}   // namespace

TEST_CASE("cloze: a sentence is cut in the middle of its words", "[sara_finetune]") {
  CHECK(*halves("a b c d e f g h") == std::pair<std::string, std::string>("a b c d", "e f g h"));
  CHECK(*halves("  one\ttwo  three four five six seven eight nine. \n") ==
        std::pair<std::string, std::string>("one two three four", "five six seven eight nine."));
  CHECK_FALSE(halves("a b c d e f g"));
  CHECK_FALSE(halves("a,b,c,d,e,f,g,h,i"));
  CHECK_FALSE(halves("   "));
  CHECK_FALSE(halves(""));
}

TEST_CASE("cloze: distractors are the nearest in length, and other sentences'", "[sara_finetune]") {
  std::vector<cloze_sentence> sentences;
  for (const int length : {20, 5, 6, 9, 21, 40, 22, 8}) sentences.push_back(made_up(4, length, length));
  const std::vector<cloze_item> items = cloze_items(sentences, 200);
  REQUIRE(items.size() == sentences.size());
  const auto distractors = [&](std::size_t i) {
    REQUIRE(items[i].halves[0] == i);
    return std::set<std::size_t>(items[i].halves.begin() + 1, items[i].halves.end());
  };
  CHECK(distractors(0) == std::set<std::size_t>{4, 6, 3});   // 20: 21, 22, and 9 before 40
  CHECK(distractors(1) == std::set<std::size_t>{2, 7, 3});   // 5: 6, 8, 9
  CHECK(distractors(5) == std::set<std::size_t>{6, 4, 0});   // 40: 22, 21, 20
  CHECK(distractors(3) == std::set<std::size_t>{7, 2, 1});   // 9: 8, 6, 5
}

TEST_CASE("cloze: four different halves that fit, or no item", "[sara_finetune]") {
  // The first two have the same half.
  std::vector<cloze_sentence> sentences{made_up(4, 7, 3), made_up(5, 7, 3), made_up(6, 7, 4), made_up(7, 7, 5)};
  CHECK(cloze_items(sentences, 200).empty());
  sentences.push_back(made_up(8, 9, 6));
  const std::vector<cloze_item> items = cloze_items(sentences, 200);
  REQUIRE(items.size() == 5);
  for (const cloze_item& item : items) {
    std::set<std::vector<std::int32_t>> different;
    for (const std::size_t half : item.halves) different.insert(sentences[half].half.tokens);
    CHECK(different.size() == cloze_choices);
  }
  // Behind a prefix of n the longest half makes n + 8.
  CHECK(cloze_items(sentences, 16).size() == 5);
  const std::vector<cloze_item> fewer = cloze_items(sentences, 14);
  REQUIRE(fewer.size() == 3);
  CHECK(fewer[2].halves[0] == 2);
  CHECK(cloze_items(sentences, 11).empty());
  CHECK(cloze_items({}, 200).empty());
  sentences.resize(1);
  CHECK(cloze_items(sentences, 200).empty());
}

TEST_CASE("cloze: equally near distractors are drawn from all", "[sara_finetune]") {
  std::vector<cloze_sentence> sentences;
  for (int i = 0; i < 200; ++i) sentences.push_back(made_up(4, 7, i));
  const std::vector<cloze_item> items = cloze_items(sentences, 200);
  REQUIRE(items.size() == 200);
  std::vector<int> used(200);
  std::size_t furthest = 0;
  for (const cloze_item& item : items)
    for (std::size_t choice = 1; choice < cloze_choices; ++choice) {
      ++used[item.halves[choice]];
      furthest = std::max(furthest, std::max(item.halves[0], item.halves[choice]) - std::min(item.halves[0], item.halves[choice]));
    }
  CHECK(furthest > 150);
  CHECK(*std::max_element(used.begin(), used.end()) <= 6);
  // As many longer as shorter ones where both are equally near.
  std::vector<cloze_sentence> stairs;
  for (int i = 0; i < 200; ++i) stairs.push_back(made_up(4, 10 + i, i));
  int longer = 0;
  for (const cloze_item& item : cloze_items(stairs, 400))
    for (std::size_t choice = 1; choice < cloze_choices; ++choice) longer += item.halves[choice] > item.halves[0];
  CHECK(std::abs(longer - 300) <= 5);
  const std::vector<cloze_item> again = cloze_items(sentences, 200);
  CHECK(std::equal(items.begin(), items.end(), again.begin(), [](const auto& a, const auto& b) { return a.halves == b.halves; }));
}

TEST_CASE("cloze: the largest gain by the prefix is right, a tie is wrong", "[sara_finetune]") {
  const std::vector<cloze_item> items{{{0, 1, 2, 3}}, {{1, 0, 2, 3}}, {{2, 3, 0, 1}}, {{3, 2, 1, 0}}};
  const std::vector<double> alone{10, 20, 30, 40};
  // Negative logarithms behind the prefix; the gains are alone - continued.
  const std::vector<double> continued{8,  19, 29, 39,    // 2 against 1, 1, 1: right
                                      15, 2,  30, 40,    // 5 against 8: wrong, although 15 is not the least likely
                                      29, 39, 10, 20,    // 1, 1: a tie
                                      41, 32, 23, 14};   // -1 against -2, -3, -4: right, although the least likely
  const cloze_result result = count_right(items, continued, alone);
  CHECK(result.items == 4);
  CHECK(result.right == 2);
  std::vector<double> unknown = continued;
  unknown[0] = std::nan("");
  unknown[13] = std::nan("");
  CHECK(count_right(items, unknown, alone).right == 0);
  CHECK(count_right({}, {}, {}).items == 0);
  CHECK(files::complaint([&] { count_right(items, alone, alone); }) == "count_right: continued must have 16 entries, but has 4");
  CHECK(files::complaint([&] { count_right(items, continued, std::span(alone).first(3)); }) ==
        "count_right: alone must have more than 3 entries, but has 3");
}

TEST_CASE("cloze: a model's answers, a sequence at a time", "[sara_finetune]") {
  const prepared_corpus corpus = prepare({.parallel = {files::embedded()}, .vocabulary = 600, .context = 128});
  const tokenizer& words = corpus.words;
  model_shape shape = small::shape();
  shape.vocabulary = words.vocabulary();
  shape.context = 128;
  const std::vector<float> parameters = small::parameters<float>(shape, 3);
  std::vector<const encoded_sentence*> pointers;
  for (const encoded_pair& pair : corpus.data.languages[0].test) pointers.push_back(&pair.low);

  const std::vector<cloze_sentence> all = cloze_sentences(pointers, words);
  const std::vector<cloze_item> items = cloze_items(all, shape.context);
  REQUIRE(items.size() >= 10);
  moe_model<float> model(shape);
  const auto log_probability = [&](const std::vector<std::int32_t>& tokens, std::size_t from) {
    packed_batch batch;
    append(batch, {.tokens = tokens});
    model.forward(parameters, batch, pass::evaluation);
    double sum = 0;
    for (std::size_t t = from; t < tokens.size(); ++t) sum -= static_cast<double>(model.cross_entropies()[t]);
    return sum;
  };
  std::int64_t right = 0;
  for (const cloze_item& item : items) {
    std::vector<double> gains;
    for (const std::size_t half : item.halves) {
      std::vector<std::int32_t> whole = all[item.halves[0]].prefix.tokens;
      // The prefix's last token predicts the half's first.
      const std::size_t from = whole.size() - 1;
      whole.insert(whole.end(), all[half].half.tokens.begin() + 1, all[half].half.tokens.end());
      gains.push_back(log_probability(whole, from) - log_probability(all[half].half.tokens, 0));
    }
    right += std::max_element(gains.begin(), gains.end()) == gains.begin();
  }
  sara::thread_pool one(1), three(3);
  const cloze_result found = cloze(shape, parameters, pointers, words, one);
  CHECK(found.items == static_cast<std::int64_t>(items.size()));
  CHECK(found.right == right);
  CHECK(cloze(shape, parameters, pointers, words, three).right == right);
  CHECK(cloze(shape, parameters, {}, words, one).items == 0);
}
