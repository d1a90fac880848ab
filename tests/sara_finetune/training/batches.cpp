// Which sentences each step reads.
#include "sara_finetune/training/batches.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "catch.hpp"

namespace {

using namespace sara_finetune;

encoded_sentence sentence(std::size_t length, std::int32_t name) {
  encoded_sentence made;
  made.text = std::to_string(name);
  made.tokens.assign(length, name);
  return made;
}

// So many training pairs of each language, of 5 to 14 tokens a side, and as much high-resource text.
dataset made_up(const std::vector<std::size_t>& pairs) {
  dataset data;
  std::int32_t name = 0;
  for (std::size_t l = 0; l < pairs.size(); ++l) {
    encoded_split& to = data.languages.emplace_back();
    to.language = "l" + std::to_string(l);
    std::vector<encoded_sentence>& low = data.low_text.emplace_back();
    for (std::size_t i = 0; i < pairs[l]; ++i) {
      to.training.push_back({.id = std::to_string(i), .high = sentence(5 + i % 10, name), .low = sentence(5 + i % 7, name + 10'000)});
      data.high_text.push_back(to.training.back().high);
      low.push_back(to.training.back().low);
      ++name;
    }
  }
  return data;
}

std::size_t tokens_of(const step_batches& steps) {
  std::size_t tokens = 0;
  for (const auto& step : steps)
    for (const training_sequence& s : step) tokens += s.sentence->tokens.size();
  return tokens;
}

bool same(const step_batches& a, const step_batches& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](const training_sequence& s, const training_sequence& t) {
      return s.sentence == t.sentence && s.anchor_row == t.anchor_row;
    });
  });
}

bool within(const encoded_sentence* s, const std::vector<encoded_sentence>& all) { return s >= all.data() && s < all.data() + all.size(); }

}   // namespace

TEST_CASE("pretraining: its tokens, its low-resource share in every batch, and no more low-resource sentences than asked for",
          "[batches]") {
  const dataset data = made_up({200, 100});
  const step_batches steps = pretraining_batches(data, 0.1, 0.1, {.sequences = 32, .tokens = 20'000, .seed = 3});
  CHECK(tokens_of(steps) >= 20'000);
  CHECK(tokens_of({steps.begin(), steps.end() - 1}) < 20'000);
  std::set<const encoded_sentence*> low[2];
  std::size_t low_so_far = 0, high_so_far = 0;
  for (std::size_t n = 0; n < steps.size(); ++n) {
    REQUIRE(steps[n].size() == 32);
    for (const training_sequence& s : steps[n]) {
      CHECK(s.anchor_row == -1);
      bool is_low = false;
      for (const std::size_t l : {0u, 1u})
        if (within(s.sentence, data.low_text[l])) {
          low[l].insert(s.sentence);
          is_low = true;
        }
      if (!is_low) REQUIRE(within(s.sentence, data.high_text));
      ++(is_low ? low_so_far : high_so_far);
    }
    // never more than a sequence behind the share
    CHECK(low_so_far == (32 * (n + 1)) / 10);
  }
  CHECK(low[0].size() == 20);
  CHECK(low[1].size() == 10);
}

TEST_CASE("pretraining: a pass reads every sentence once, in an order of its own", "[batches]") {
  const dataset data = made_up({64});
  const step_batches steps = pretraining_batches(data, 0, 1, {.sequences = 32, .tokens = 1'500, .seed = 1});
  REQUIRE(steps.size() >= 4);
  std::vector<const encoded_sentence*> passes[2];
  for (std::size_t n = 0; n < 4; ++n)
    for (const training_sequence& s : steps[n]) passes[n / 2].push_back(s.sentence);
  CHECK(passes[0] != passes[1]);
  for (auto& pass : passes) CHECK(std::set(pass.begin(), pass.end()).size() == 64);
}

TEST_CASE("fine-tuning: rehearsal without anchors, low sides with their pair's row", "[batches]") {
  const dataset data = made_up({50, 30});
  const step_batches steps = finetuning_batches(data, 0.3, {.sequences = 10, .tokens = 5'000, .seed = 2});
  std::map<std::int32_t, const encoded_sentence*> seen;
  for (const auto& step : steps) {
    std::size_t rehearsed = 0;
    for (const training_sequence& s : step) {
      rehearsed += s.anchor_row < 0;
      if (s.anchor_row < 0) {
        CHECK(within(s.sentence, data.high_text));
        continue;
      }
      const auto row = static_cast<std::size_t>(s.anchor_row);
      REQUIRE(row < 80);
      CHECK(s.sentence == (row < 50 ? &data.languages[0].training[row].low : &data.languages[1].training[row - 50].low));
      seen[s.anchor_row] = s.sentence;
    }
    CHECK(rehearsed == 3);
  }
  CHECK(seen.size() == 80);
  for (const auto& step : finetuning_batches(data, 0, {.sequences = 10, .tokens = 500, .seed = 2}))
    for (const training_sequence& s : step) CHECK(s.anchor_row >= 0);
}

TEST_CASE("batches: the same for a seed, others for another", "[batches]") {
  const dataset data = made_up({50});
  const batch_options one{.sequences = 8, .tokens = 2'000, .seed = 1}, two{.sequences = 8, .tokens = 2'000, .seed = 2};
  CHECK(same(pretraining_batches(data, 0.1, 0.5, one), pretraining_batches(data, 0.1, 0.5, one)));
  CHECK_FALSE(same(pretraining_batches(data, 0.1, 0.5, one), pretraining_batches(data, 0.1, 0.5, two)));
  CHECK(same(finetuning_batches(data, 0.3, one), finetuning_batches(data, 0.3, one)));
  CHECK_FALSE(same(finetuning_batches(data, 0.3, one), finetuning_batches(data, 0.3, two)));
}

TEST_CASE("shuffled anchors: every pair gets another one's of its language, each once", "[batches]") {
  for (const std::size_t second : {2u, 3u, 30u}) {
    const dataset data = made_up({50, second});
    std::vector<std::int32_t> rows(50 + second);
    std::iota(rows.begin(), rows.end(), 0);
    const std::vector<std::int32_t> others = shuffled_rows(data, rows, 7);
    REQUIRE(others.size() == 50 + second);
    CHECK(std::set(others.begin(), others.end()).size() == others.size());
    for (std::size_t i = 0; i < others.size(); ++i) {
      CHECK(others[i] != rows[i]);
      CHECK((others[i] < 50) == (i < 50));
    }
    CHECK(others == shuffled_rows(data, rows, 7));
    if (second > 3) CHECK(others != shuffled_rows(data, rows, 8));
  }
}

TEST_CASE("shuffled anchors: the pairs that have one are the same as without", "[batches]") {
  const dataset data = made_up({40});
  std::vector<std::int32_t> rows;
  for (std::int32_t i = 0; i < 40; ++i) rows.push_back(i % 3 == 0 ? -1 : i - i / 3 - 1);
  const std::vector<std::int32_t> others = shuffled_rows(data, rows, 1);
  for (std::size_t i = 0; i < 40; ++i) {
    CHECK((others[i] == -1) == (rows[i] == -1));
    CHECK((rows[i] == -1 || others[i] != rows[i]));
  }
  CHECK(std::set(others.begin(), others.end()) == std::set(rows.begin(), rows.end()));
  const std::vector<std::int32_t> one = {0};
  CHECK_THROWS_WITH(shuffled_rows(made_up({1}), one, 1), Catch::Contains("only one"));
}

TEST_CASE("batches: what cannot be is refused by name", "[batches]") {
  const dataset data = made_up({10});
  CHECK_THROWS_WITH(finetuning_batches(data, 1, {}), Catch::Contains("rehearsal") && Catch::Contains("less than 1"));
  CHECK_THROWS_WITH(pretraining_batches(data, -0.5, 1, {}), Catch::Contains("share"));
  CHECK_THROWS_WITH(finetuning_batches(data, 0, {.sequences = 0}), Catch::Contains("at least 1 sequence"));
  CHECK_THROWS_WITH(finetuning_batches(data, 0, {.tokens = 0}), Catch::Contains("at least 1 token"));
}
