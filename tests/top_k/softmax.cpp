// The weights from the softmax of the scores that nobody writes: the same as from the probabilities of gate_softmax.
#include <sara/gate_softmax.hpp>
#include <sara/top_k.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;
using sara::matrix_view;

constexpr double inf = std::numeric_limits<double>::infinity(), not_a_number = std::numeric_limits<double>::quiet_NaN();

// Rows of every kind; the last four have no softmax, but in `hidden` a -inf or more.
std::vector<double> rows_of_scores(oracle::source& from, std::size_t experts) {
  std::vector<double> all;
  const auto add = [&](auto&& value) {
    for (std::size_t e = 0; e < experts; ++e) all.push_back(value(e));
  };
  for (const double spread : {0.01, 1.0, 5.0, 300.0}) add([&](std::size_t) { return from.normal(spread); });
  for (const double about : {88.0, -300.0, 3e4}) add([&](std::size_t) { return about + from.normal(); });
  add([&](std::size_t) { return std::round(from.normal()); });
  add([&](std::size_t) { return 0.5; });
  add([&](std::size_t e) { return e % 3 == 1 ? -inf : from.normal(); });
  add([&](std::size_t e) { return e + 1 < experts ? -inf : 2.0; });
  add([&](std::size_t e) { return e == experts / 2 ? not_a_number : from.normal(); });
  add([&](std::size_t e) { return e == experts / 3 ? std::copysign(not_a_number, -1.0) : from.normal(); });
  add([&](std::size_t e) { return e == experts - 1 ? inf : from.normal(); });
  add([&](std::size_t) { return -inf; });
  return all;
}
constexpr std::size_t rows_without_softmax = 4;

}   // namespace

TEMPLATE_TEST_CASE("top_k: weights from the softmax over all experts, without its probabilities", "[top_k]", double, float, sara::bf16,
                   sara::fp16) {
  using A = sara::arithmetic_t<TestType>;
  for (const std::size_t experts : {std::size_t{1}, std::size_t{3}, std::size_t{8}, std::size_t{33}, std::size_t{64}, std::size_t{129},
                                    std::size_t{257}, std::size_t{1040}})
    for (const std::size_t k : {std::size_t{1}, std::size_t{4}, std::size_t{8}, std::size_t{20}, std::size_t{33}, experts}) {
      if (k > experts || (experts == 1040 && k > 33)) continue;
      oracle::source from(experts + k);
      const auto scores = oracle::rounded_to<TestType>(rows_of_scores(from, experts));
      const std::size_t tokens = scores.size() / experts;
      for (const bool in_packets : {false, true})   // rows that begin at 16 bytes, where there are whole ones
        for_each_executor([&](const auto& exec, const char* name) {
          block<TestType> z(1, tokens, experts, in_packets ? oracle::placement{} : oracle::apart, scores);
          block<A> probs(1, tokens, experts), want(1, tokens, k), got(1, tokens, k, oracle::apart), alone(1, tokens, k);
          block<std::int32_t> chosen(1, tokens, k), same(1, tokens, k);
          sara::gate_softmax_into(exec, sara::gate_softmax_inputs<TestType>{.logits = z.matrix()},
                                  sara::gate_softmax_outputs<TestType, A>{.probs = probs.matrix()});
          const sara::top_k_inputs<TestType> of_scores{.scores = z.matrix()},
              of_probs{.scores = z.matrix(), .values = sara::matrix_view<const A>(probs.matrix())};
          for (const bool renormalize : {false, true}) {
            INFO(name << ", experts " << experts << ", k " << k << ", renormalize " << renormalize << ", in packets " << in_packets);
            sara::top_k_into(exec, of_probs, sara::top_k_outputs<TestType>{.indices = same.matrix(), .weights = want.matrix()},
                             {.renormalize = renormalize, .scale = 2.5});
            const sara::top_k_options options{.renormalize = renormalize, .scale = 2.5, .softmax = true};
            sara::top_k_into(exec, of_scores, sara::top_k_outputs<TestType>{.indices = chosen.matrix(), .weights = got.matrix()}, options);
            sara::top_k_into(exec, of_scores, sara::top_k_outputs<TestType>{.weights = alone.matrix()}, options);
            CHECK(chosen.values() == same.values());
            CHECK(oracle::same_bits(got.values(), alone.values()));
            CHECK(got.padding_is_untouched());
            const auto w = oracle::as_doubles(got.values()), right = oracle::as_doubles(want.values());
            std::size_t wrong = 0;
            for (std::size_t i = 0; i < w.size(); ++i) {
              if (i / k >= tokens - rows_without_softmax)
                wrong += !std::isnan(w[i]);
              else   // a few units in the last place, or of the least number there is
                wrong += !(std::abs(w[i] - right[i]) <= (std::is_same_v<A, double> ? 2e-15 : 1e-6) * right[i] + 8 * oracle::unit_of<A>(0));
            }
            CHECK(wrong == 0);
          }
        });
    }
}

TEST_CASE("top_k: softmax changes no indices, and takes no values", "[top_k]") {
  for_each_executor([](const auto& exec, const char* name) {
    INFO(name);
    const std::vector<float> z{1, 3, 2, 0}, v{1, 1, 1, 1};
    std::vector<std::int32_t> chosen(2, -7);
    std::vector<float> weights(2, 7);
    sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = matrix_view{z.data(), 1, 4}}, {.indices = matrix_view{chosen.data(), 1, 2}},
                     {.softmax = true});
    CHECK(chosen == std::vector<std::int32_t>{1, 2});
    CHECK(oracle::complains(
        [&] {
          sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = matrix_view{z.data(), 1, 4}, .values = matrix_view{v.data(), 1, 4}},
                           {.weights = matrix_view{weights.data(), 1, 2}}, {.softmax = true});
        },
        "top_k_into", "values"));
    CHECK(weights == std::vector<float>{7, 7});
  });
}

// Whoever takes numerator and sum by exponentials that round differently gives a lone score more than all there is.
TEST_CASE("top_k: no weight of a softmax is above 1, however its score's exponential rounds", "[top_k]") {
  constexpr std::size_t experts = 16, tokens = 4096;
  oracle::source from(5);
  std::vector<float> scores(tokens * experts, -static_cast<float>(inf)), weights(tokens);
  for (std::size_t t = 0; t < tokens; ++t) scores[t * experts + t % experts] = static_cast<float>(from.normal(20));
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = matrix_view{scores.data(), tokens, experts}},
                     sara::top_k_outputs<float>{.weights = matrix_view{weights.data(), tokens, 1}}, {.softmax = true});
    const auto [least, most] = std::minmax_element(weights.begin(), weights.end());
    CHECK(*least >= 1 - 1e-6f);
    CHECK(*most <= 1);
  });
}
