// Divergences of made-up histograms whose answers are known, and which sentences are compared.
#include "sara_finetune/evaluation/divergences.hpp"

#include <cmath>
#include <numbers>
#include <random>
#include <set>

#include "../files.hpp"
#include "catch.hpp"

namespace {

using namespace sara_finetune;

measured_sentences histograms(index_t sentences, index_t layers, index_t experts, std::vector<float> values) {
  return {.sentences = sentences, .layers = layers, .experts = experts, .histograms = std::move(values)};
}

measured_sentences random_histograms(index_t sentences, index_t layers, index_t experts, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> values;
  for (index_t row = 0; row < sentences * layers; ++row) {
    std::vector<double> weights;
    double sum = 0;
    for (index_t e = 0; e < experts; ++e) sum += weights.emplace_back(std::exp(static_cast<double>(random() % 1000) / 150));
    for (const double weight : weights) values.push_back(static_cast<float>(weight / sum));
  }
  return histograms(sentences, layers, experts, values);
}

double entropy(const float* q, index_t experts) {
  double sum = 0;
  for (index_t e = 0; e < experts; ++e) sum -= static_cast<double>(q[e]) * std::log(static_cast<double>(q[e]));
  return sum;
}

std::vector<index_t> first_numbers(index_t count) {
  std::vector<index_t> numbers;
  for (index_t i = 0; i < count; ++i) numbers.push_back(i);
  return numbers;
}

}   // namespace

TEST_CASE("divergences: of identical, disjoint and uniform histograms", "[sara_finetune]") {
  // Layers: identical, disjoint, uniform, half shared.
  const auto p = histograms(1, 4, 4, {.1f, .2f, .3f, .4f, 1, 0, 0, 0, .25f, .25f, .25f, .25f, .5f, .5f, 0, 0});
  const auto q = histograms(1, 4, 4, {.1f, .2f, .3f, .4f, 0, 0, .5f, .5f, .25f, .25f, .25f, .25f, 0, .5f, .5f, 0});
  const std::vector<compared_sentences> both{{0, 0}};
  const mean_divergence found = compare(p, q, both);
  REQUIRE(found.plain.size() == 4);
  CHECK(found.plain[0] == 0);
  CHECK(found.plain[1] == Approx(std::numbers::ln2).epsilon(1e-12));
  CHECK(found.plain[2] == 0);
  CHECK(found.plain[3] == Approx(std::numbers::ln2 / 2).epsilon(1e-12));
  REQUIRE(found.normalized.size() == 4);
  CHECK(found.normalized[0] == 0);
  // F = ln 4 - (0 + ln 2) / 2 and ln 4 - ln 2.
  CHECK(found.normalized[1] == Approx(1 / 1.5).epsilon(1e-12));
  CHECK(found.normalized[2] == 0);
  CHECK(found.normalized[3] == Approx(0.5).epsilon(1e-12));
  // With two experts, disjoint is as far as can be.
  CHECK(compare(histograms(1, 1, 2, {1, 0}), histograms(1, 1, 2, {0, 1}), both).normalized[0] == Approx(1).epsilon(1e-12));
  // A fifth is none of single precision's numbers, and 1 / 3 rounds the other way.
  for (const auto& [experts, share] : {std::pair(5, .2f), std::pair(3, 1 / 3.f)}) {
    const std::vector<float> uniform(static_cast<std::size_t>(experts), share);
    std::vector<float> rounded = uniform;
    rounded[0] = std::nextafter(share, 1.f);
    CHECK(compare(histograms(1, 1, experts, uniform), histograms(1, 1, experts, rounded), both).normalized[0] == 0);
  }
}

TEST_CASE("divergences: means of pairs, against entropies", "[sara_finetune]") {
  const index_t layers = 3, experts = 7;
  const measured_sentences p = random_histograms(5, layers, experts, 1), q = random_histograms(4, layers, experts, 2);
  const std::vector<compared_sentences> pairs{{0, 3}, {4, 1}, {2, 2}, {2, 0}};
  const mean_divergence found = compare(p, q, pairs),
                        swapped = compare(q, p, std::vector<compared_sentences>{{3, 0}, {1, 4}, {2, 2}, {0, 2}});
  for (index_t l = 0; l < layers; ++l) {
    double plain = 0, normalized = 0;
    for (const auto& [i, j] : pairs) {
      const float* const a = p.histograms.data() + (i * layers + l) * experts;
      const float* const b = q.histograms.data() + (j * layers + l) * experts;
      std::vector<float> middle;
      for (index_t e = 0; e < experts; ++e) middle.push_back((a[e] + b[e]) / 2);
      const double mean_entropy = (entropy(a, experts) + entropy(b, experts)) / 2;
      const double js = entropy(middle.data(), experts) - mean_entropy;
      plain += js / 4;
      normalized += js / (std::log(static_cast<double>(experts)) - mean_entropy) / 4;
    }
    const auto at = static_cast<std::size_t>(l);
    CHECK(found.plain[at] == Approx(plain).epsilon(1e-5));
    CHECK(found.normalized[at] == Approx(normalized).epsilon(1e-5));
    CHECK(found.normalized[at] > 0);
    CHECK(found.normalized[at] < 1);
    CHECK(swapped.plain[at] == found.plain[at]);
    CHECK(swapped.normalized[at] == found.normalized[at]);
  }
  CHECK(compare(p, q, {}).plain.empty());
  CHECK(compare(p, q, {}).normalized.empty());
}

TEST_CASE("divergences: derangements have no fixed point", "[sara_finetune]") {
  CHECK(derangement(0, 1).empty());
  CHECK(derangement(1, 1).empty());
  CHECK(derangement(2, 1) == std::vector<index_t>{1, 0});
  std::set<std::vector<index_t>> different;
  for (const index_t size : {3, 4, 17, 300})
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
      const std::vector<index_t> at = derangement(size, seed);
      REQUIRE(std::set<index_t>(at.begin(), at.end()).size() == static_cast<std::size_t>(size));
      REQUIRE(*std::min_element(at.begin(), at.end()) == 0);
      REQUIRE(*std::max_element(at.begin(), at.end()) == size - 1);
      for (index_t i = 0; i < size; ++i) REQUIRE(at[static_cast<std::size_t>(i)] != i);
      CHECK(at == derangement(size, seed));
      different.insert(at);
    }
  CHECK(different.size() > 2 + 5 + 45 + 45);
}

TEST_CASE("divergences: strangers are never a sentence and its own", "[sara_finetune]") {
  const std::vector<index_t> numbers = first_numbers(50);
  const std::vector<compared_sentences> pairs = strangers(numbers, numbers, 1, 8);
  CHECK(pairs.size() == 400);
  std::vector<int> as_p(50), as_q(50);
  std::set<std::pair<index_t, index_t>> different;
  for (const auto& [p, q] : pairs) {
    CHECK(p != q);
    ++as_p[static_cast<std::size_t>(p)];
    ++as_q[static_cast<std::size_t>(q)];
    different.emplace(p, q);
  }
  CHECK(as_p == std::vector<int>(50, 8));
  CHECK(as_q == std::vector<int>(50, 8));
  CHECK(different.size() > 350);
  CHECK(pairs == strangers(numbers, numbers, 1, 8));
  CHECK(pairs != strangers(numbers, numbers, 2, 8));

  // Places 0 and 1 hold the same high sentence, 2 and 3 the same low one: neither is the other's stranger.
  const std::vector<index_t> low{0, 1, 2, 2, 3}, high{0, 0, 1, 2, 3};
  std::set<std::pair<index_t, index_t>> seen;
  for (const auto& [p, q] : strangers(low, high, 1, 200)) seen.emplace(p, q);
  const std::set<std::pair<index_t, index_t>> expected{{0, 1}, {0, 2}, {0, 3}, {1, 1}, {1, 2}, {1, 3},
                                                       {2, 0}, {2, 3}, {3, 0}, {3, 1}, {3, 2}};
  CHECK(seen == expected);

  const std::vector<index_t> two{4, 9}, one{4}, same{4, 4, 4};
  CHECK(strangers(two, two, 1, 1) == std::vector<compared_sentences>{{4, 9}, {9, 4}});
  CHECK(strangers(one, one, 1).empty());
  CHECK(strangers(same, same, 1).empty());
  CHECK(strangers({}, {}, 1).empty());
  CHECK(files::complaint([&] { strangers(one, two, 1); }) == "strangers: expected as many places on either side, found 1 and 2");
}

TEST_CASE("divergences: what cannot be compared is one sentence", "[sara_finetune]") {
  const measured_sentences p = random_histograms(2, 2, 4, 1);
  const std::vector<compared_sentences> both{{1, 1}}, beyond{{1, 2}}, negative{{-1, 0}};
  const auto complaint = [&](const measured_sentences& q, const std::vector<compared_sentences>& pairs) {
    return files::complaint([&] { compare(p, q, pairs); });
  };
  CHECK(complaint(p, both) == "");
  CHECK(complaint(p, beyond) == "compare: sentences must be below 2 and 2, but are 1 and 2");
  CHECK(complaint(p, negative) == "compare: sentences must be below 2 and 2, but are -1 and 0");
  CHECK(
      complaint(random_histograms(2, 3, 4, 1), both) ==
      "compare: both sides must be of one model shape, but are [2 sentences, 2 layers, 4 experts] and [2 sentences, 3 layers, 4 experts]");
  CHECK(complaint(histograms(2, 2, 4, {1, 2}), both) ==
        "compare: histograms must be [2 sentences, 2 layers, 4 experts], but have 2 entries");
}
