// Who is chosen: every number of experts and every k, ties, NaN, infinities and zeros of both signs, every index type.
#include <sara/top_k.hpp>

#include <set>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;

constexpr double inf = std::numeric_limits<double>::infinity(), not_a_number = std::numeric_limits<double>::quiet_NaN();

std::set<std::size_t> counts_of(std::size_t experts) {
  std::set<std::size_t> all;
  for (const std::size_t k : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{4}, std::size_t{8}, std::size_t{10},
                              std::size_t{16}, std::size_t{17}, experts / 2, experts})
    if (k >= 1 && k <= experts) all.insert(k);
  return all;
}

// Rows of scores: plain, apart in their last bits only, with ties everywhere, equal, rising, falling, of few numbers, and with what compares badly.
std::vector<double> rows_of_scores(oracle::source& from, std::size_t experts) {
  std::vector<double> all;
  const auto add = [&](auto&& value) {
    for (std::size_t e = 0; e < experts; ++e) all.push_back(value(static_cast<double>(e)));
  };
  for (int i = 0; i < 3; ++i) add([&](double) { return from.normal(2); });
  const auto close = [&] { return 1 + std::ldexp(static_cast<double>(from.below(64)), -23); };
  add([&](double) { return close(); });
  add([&](double) { return -close(); });
  add([&](double e) { return e < 7 ? 100 + e : close(); });    // so that the eighth is in doubt
  add([&](double e) { return e < 7 ? close() : -100 - e; });   // and the first seven
  add([&](double e) { return std::ldexp(close(), -140) * e; });
  add([&](double) { return std::round(from.normal(2)); });
  add([&](double) { return static_cast<double>(from.below(2)); });
  add([](double) { return 0.5; });
  add([](double e) { return e / 16; });
  add([](double e) { return -e / 16; });
  add([&](double) { return from.chance(0.5) ? 0.0 : -0.0; });
  add([&](double) { return from.chance(0.3) ? not_a_number : std::round(from.normal()); });
  add([&](double) { return from.chance(0.3) ? -inf : from.chance(0.3) ? not_a_number : from.normal(); });
  add([&](double) { return from.chance(0.2) ? inf : from.chance(0.3) ? -inf : std::round(from.normal()); });
  add([&](double) { return from.chance(0.9) ? not_a_number : -inf; });
  add([](double) { return not_a_number; });
  add([](double) { return -inf; });
  add([&](double) { return from.chance(0.5) ? 1e-40 : from.chance(0.5) ? 0.0 : -1e-40; });
  add([&](double) { return from.chance(0.5) ? -std::abs(not_a_number) : std::copysign(not_a_number, 1.0); });   // NaN of both signs
  return all;
}

template <class T, class I> void select_and_compare(std::size_t experts) {
  oracle::source from(experts);
  const auto scores = oracle::rounded_to<T>(rows_of_scores(from, experts));
  const std::size_t tokens = scores.size() / experts;
  for (const std::size_t k : counts_of(experts))
    for_each_executor([&](const auto& exec, const char* name) {
      block<T> z(1, tokens, experts, oracle::apart, scores);
      block<I> chosen(1, tokens, k, oracle::apart);
      sara::top_k_into(exec, sara::top_k_inputs<T>{.scores = z.matrix()}, sara::top_k_outputs<T, I>{.indices = chosen.matrix()});
      const auto got = chosen.values();
      REQUIRE(chosen.padding_is_untouched());
      for (std::size_t t = 0; t < tokens; ++t) {
        const std::vector<std::int64_t> row(got.begin() + static_cast<std::ptrdiff_t>(t * k),
                                            got.begin() + static_cast<std::ptrdiff_t>((t + 1) * k));
        if (row == oracle::top_k(scores.data() + t * experts, experts, k)) continue;
        INFO(name << ", experts " << experts << ", k " << k << ", row of kind " << t);
        CHECK(row == oracle::top_k(scores.data() + t * experts, experts, k));
      }
    });
}

}   // namespace

TEMPLATE_TEST_CASE("top_k: the best, best first, the lower index where scores tie, NaN last", "[top_k]", double, float, sara::bf16,
                   sara::fp16) {
  for (const std::size_t experts : oracle::expert_counts) select_and_compare<TestType, std::int32_t>(experts);
  CHECK(true);
}

TEMPLATE_TEST_CASE("top_k: index types", "[top_k]", std::int16_t, std::int64_t) {
  for (const std::size_t experts : {std::size_t{1}, std::size_t{8}, std::size_t{33}, std::size_t{128}, std::size_t{385}})
    select_and_compare<float, TestType>(experts);
  CHECK(true);
}

TEST_CASE("top_k: every number of experts up to 70 with every k", "[top_k]") {
  oracle::source from(1);
  for (std::size_t experts = 1; experts <= 70; ++experts) {
    std::vector<float> scores(2 * experts);
    for (float& s : scores) s = static_cast<float>(std::round(from.normal(4)));
    const std::vector<double> exact(scores.begin(), scores.end());
    for (std::size_t k = 1; k <= experts; ++k)
      for_each_executor([&](const auto& exec, const char* name) {
        std::vector<std::int32_t> chosen(2 * k, -7);
        sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = sara::matrix_view{scores.data(), 2, experts}},
                         sara::top_k_outputs<float>{.indices = sara::matrix_view{chosen.data(), 2, k}});
        auto want = oracle::top_k(exact.data(), experts, k);
        const auto second = oracle::top_k(exact.data() + experts, experts, k);
        want.insert(want.end(), second.begin(), second.end());
        if (!std::equal(want.begin(), want.end(), chosen.begin())) {
          INFO(name << ", experts " << experts << ", k " << k);
          CHECK(want == std::vector<std::int64_t>(chosen.begin(), chosen.end()));
        }
      });
  }
  CHECK(true);
}

TEST_CASE("top_k: int16 counts 32768 experts, and no more", "[top_k]") {
  std::vector<float> scores(32769);
  for (std::size_t e = 0; e < scores.size(); ++e) scores[e] = static_cast<float>(e);
  for_each_executor([&](const auto& exec, const char*) {
    std::vector<std::int16_t> chosen(2);
    const sara::top_k_outputs<float, std::int16_t> out{.indices = sara::matrix_view{chosen.data(), 1, 2}};
    sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = sara::matrix_view{scores.data(), 1, 32768}}, out);
    CHECK(chosen == std::vector<std::int16_t>{32767, 32766});
    CHECK(oracle::complains(
        [&] {
          sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = sara::matrix_view{scores.data(), 1, 32769}}, out);
        },
        "top_k_into", "scores"));
    std::vector<std::int32_t> wide(1);
    sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = sara::matrix_view{scores.data(), 1, 32769}},
                     sara::top_k_outputs<float>{.indices = sara::matrix_view{wide.data(), 1, 1}});
    CHECK(wide[0] == 32768);
  });
}

TEST_CASE("top_k: 65536 experts of 16-bit scores and one more, where a GPU's keys no longer tell the index", "[top_k]") {
  for (const std::size_t experts : {std::size_t{65536}, std::size_t{65537}}) {
    std::vector<sara::bf16> scores(2 * experts, sara::bf16(-std::numeric_limits<float>::infinity()));
    scores[experts - 1] = scores[7] = sara::bf16(1);                                   // the last of the first row, after an equal one
    for (std::size_t e = 0; e < experts; ++e) scores[experts + e] = sara::bf16(NAN);   // and nothing but NaN and -inf in the second
    scores[2 * experts - 1] = scores[experts + 3] = sara::bf16(-std::numeric_limits<float>::infinity());
    for_each_executor([&](const auto& exec, const char* name) {
      std::vector<std::int32_t> chosen(6);
      sara::top_k_into(exec, sara::top_k_inputs<sara::bf16>{.scores = sara::matrix_view{scores.data(), 2, experts}},
                       sara::top_k_outputs<sara::bf16>{.indices = sara::matrix_view{chosen.data(), 2, 3}});
      const auto last = static_cast<std::int32_t>(experts - 1);
      INFO(name << ", experts " << experts);
      CHECK(chosen == std::vector<std::int32_t>{7, last, 0, 3, last, 0});
    });
  }
}

TEST_CASE("top_k: the oracle's order by hand", "[top_k]") {
  const std::vector<double> scores{1, not_a_number, -0.0, 3, 0.0, -inf, 3};
  CHECK(oracle::top_k(scores.data(), 7, 7) == std::vector<std::int64_t>{3, 6, 0, 2, 4, 5, 1});
}
