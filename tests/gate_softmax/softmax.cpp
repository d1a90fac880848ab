// gate_softmax against long double: the promised ulp, rows at the edges of the range, 16-bit outputs, log-sum-exp.
#include <sara/gate_softmax.hpp>

#include <string_view>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;

struct errors {
  double entry = 0;     // |got - want| in ulp of the entry, less what |z - max| allows: promised <= 6
  double largest = 0;   // in ulp of the row's largest entry: promised <= 4
};

// Of probabilities of arithmetic A from rows of logits.
template <class A> errors compare(const std::vector<A>& got, const std::vector<double>& logits, std::size_t experts) {
  errors worst;
  for (std::size_t row = 0; row < logits.size() / experts; ++row) {
    const std::vector<long double> z(logits.begin() + static_cast<std::ptrdiff_t>(row * experts),
                                     logits.begin() + static_cast<std::ptrdiff_t>((row + 1) * experts));
    const auto p = oracle::softmax(z.data(), experts);
    const long double top = *std::max_element(z.begin(), z.end()), largest = *std::max_element(p.begin(), p.end());
    for (std::size_t e = 0; e < experts; ++e) {
#ifdef __FAST_MATH__   // which links code that flushes what is too small for a normal number
      if (p[e] < std::numeric_limits<A>::min()) continue;
#endif
      const double difference = static_cast<double>(std::abs(static_cast<long double>(got[row * experts + e]) - p[e]));
      const double ulp = difference / oracle::unit_of<A>(static_cast<double>(p[e])),
                   ulp_of_largest = difference / oracle::unit_of<A>(static_cast<double>(largest));
      if (!(ulp - static_cast<double>(top - z[e]) <= worst.entry) && difference != 0) worst.entry = ulp - static_cast<double>(top - z[e]);
      if (!(ulp_of_largest <= worst.largest)) worst.largest = ulp_of_largest;
    }
  }
  return worst;
}

template <class T, class P, class Executor>
std::vector<P> softmax_of(const Executor& exec, const std::vector<double>& logits, std::size_t experts) {
  const std::size_t tokens = logits.size() / experts;
  block<T> z(1, tokens, experts, oracle::apart, logits);
  block<P> p(1, tokens, experts, oracle::apart);
  sara::gate_softmax_into(exec, sara::gate_softmax_inputs<T>{.logits = z.matrix()}, sara::gate_softmax_outputs<T, P>{.probs = p.matrix()});
  REQUIRE(p.padding_is_untouched());
  return p.values();
}

// Rows of every kind that a router may produce, and some that it should not.
std::vector<double> rows_of_logits(oracle::source& from, std::size_t experts) {
  std::vector<double> all;
  const auto add = [&](auto&& value) {
    for (std::size_t e = 0; e < experts; ++e) all.push_back(static_cast<double>(static_cast<float>(value(e))));
  };
  for (const double spread : {1e-3, 1.0, 3.0, 20.0, 100.0, 1e4}) add([&](std::size_t) { return from.normal(spread); });
  for (const double about : {88.0, 90.0, -88.0, -90.0, 127.9, 255.9, 256.1, -300.0, 1e4, 1e8, -1e30, 1e30}) {
    add([&](std::size_t) { return about + from.normal(); });
    add([&](std::size_t) { return about; });   // equal rows
  }
  add([&](std::size_t e) { return e % 2 ? 88.0 : -88.0; });
  add([&](std::size_t e) { return e % 3 ? 90.0 : -90.0; });
  add([&](std::size_t e) { return e == experts / 2 ? 1e30 : -1e30; });
  add([&](std::size_t) { return from.normal(1e-39); });                                                 // denormals
  add([&](std::size_t e) { return -static_cast<double>(e) * 110.0 / static_cast<double>(experts); });   // probabilities down to denormals
  add([&](std::size_t e) { return 40 - static_cast<double>(e % 120); });
  if (experts > 1) add([&](std::size_t e) { return e % 4 == 1 ? -HUGE_VAL : from.normal(2); });
  if (experts > 1) add([&](std::size_t e) { return e == experts - 1 ? from.normal(2) : -HUGE_VAL; });   // one expert left
  return all;
}

}   // namespace

TEMPLATE_TEST_CASE("gate_softmax: within 6 + |z - max| ulp of an entry, 4 ulp of the row's largest", "[gate_softmax][precision]", float,
                   double) {
  oracle::source from(1);
  for (const std::size_t experts : oracle::expert_counts) {
    const auto logits = rows_of_logits(from, experts);
    for_each_executor([&](const auto& exec, const char* name) {
      const errors worst = compare(softmax_of<TestType, TestType>(exec, logits, experts), logits, experts);
      INFO(name << ", experts " << experts << ": " << worst.entry << " ulp + |z - max|, " << worst.largest << " ulp of the largest");
      CHECK(worst.entry <= 6);
      CHECK(worst.largest <= 4);
    });
  }
}

TEMPLATE_TEST_CASE("gate_softmax: thousands of experts", "[gate_softmax][precision]", float, double) {
  oracle::source from(6);
  for (const std::size_t experts : {std::size_t{1025}, std::size_t{3000}}) {
    const auto logits = rows_of_logits(from, experts);
    for_each_executor([&](const auto& exec, const char* name) {
      const errors worst = compare(softmax_of<TestType, TestType>(exec, logits, experts), logits, experts);
      INFO(name << ", experts " << experts << ": " << worst.entry << " ulp + |z - max|, " << worst.largest << " ulp of the largest");
      CHECK(worst.entry <= 6);
      CHECK(worst.largest <= 4);
    });
  }
}

TEMPLATE_TEST_CASE("gate_softmax: many rows of one width", "[gate_softmax][precision]", float, double) {
  oracle::source from(2);
  for (const std::size_t tokens : {std::size_t{1}, std::size_t{3}, std::size_t{5}, std::size_t{200}}) {
    const std::size_t experts = 128;
    const auto logits = oracle::rounded_to<float>(from.normals(tokens * experts, 2));
    for_each_executor([&](const auto& exec, const char* name) {
      const errors worst = compare(softmax_of<TestType, TestType>(exec, logits, experts), logits, experts);
      INFO(name << ", tokens " << tokens);
      CHECK(worst.entry <= 6);
      CHECK(worst.largest <= 4);
    });
  }
}

TEMPLATE_TEST_CASE("gate_softmax: 16-bit probabilities are the fp32 ones rounded to nearest even, bit by bit", "[gate_softmax]", sara::bf16,
                   sara::fp16) {
  oracle::source from(3);
  for (const std::size_t experts : {std::size_t{1}, std::size_t{7}, std::size_t{33}, std::size_t{128}, std::size_t{385}}) {
    auto logits = rows_of_logits(from, experts);
    for (double& z : logits) z = std::clamp(z, -6e4, 6e4);   // what fp16 can hold
    logits = oracle::rounded_to<TestType>(logits);
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      const auto wide = softmax_of<float, float>(exec, logits, experts), from_16_bit = softmax_of<TestType, float>(exec, logits, experts);
      // The arithmetic does not depend on the storage, but for the order of a row's sum on a GPU.
      if (std::string_view(name) != "device") CHECK(oracle::same_bits(wide, from_16_bit));
      const auto narrow = softmax_of<TestType, TestType>(exec, logits, experts),
                 narrow_of_wide = softmax_of<float, TestType>(exec, logits, experts);
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < wide.size(); ++i)
        wrong += narrow[i].bits != TestType(from_16_bit[i]).bits || narrow_of_wide[i].bits != TestType(wide[i]).bits;
      CHECK(wrong == 0);
    });
  }
}

TEMPLATE_TEST_CASE("gate_softmax: log-sum-exp, with the probabilities and alone", "[gate_softmax][precision]", float, double, sara::bf16,
                   sara::fp16) {
  using A = sara::arithmetic_t<TestType>;
  oracle::source from(4);
  for (const std::size_t experts : oracle::expert_counts) {
    std::vector<double> logits;
    for (const double about : {0.0, 88.0, -90.0, 255.9, 3000.0, -3000.0})
      for (std::size_t e = 0; e < experts; ++e) logits.push_back(about + from.normal(3));
    logits = oracle::rounded_to<TestType>(logits);
    const std::size_t tokens = logits.size() / experts;
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      block<TestType> z(1, tokens, experts, {}, logits);
      std::vector<A> with(tokens, NAN), alone(tokens, NAN);
      block<TestType> p(1, tokens, experts);
      const sara::gate_softmax_inputs<TestType> in{.logits = z.matrix()};
      sara::gate_softmax_into(exec, in, {.probs = p.matrix(), .log_sum_exp = with});
      sara::gate_softmax_into(exec, in, {.log_sum_exp = alone});
      CHECK(oracle::same_bits(with, alone));
      for (std::size_t t = 0; t < tokens; ++t) {
        const std::vector<long double> row(logits.begin() + static_cast<std::ptrdiff_t>(t * experts),
                                           logits.begin() + static_cast<std::ptrdiff_t>((t + 1) * experts));
        const auto want = static_cast<double>(oracle::log_sum_exp(row.data(), experts));
        INFO("want " << want << ", got " << with[t]);
        CHECK(std::abs(static_cast<double>(with[t]) - want) <=
              (std::is_same_v<A, double> ? 64 : 1.5) * oracle::unit_of<A>(std::max(1.0, std::abs(want))));
      }
    });
  }
}

TEST_CASE("gate_softmax: the comparator refuses zeros, doubled and sign-flipped probabilities", "[gate_softmax][precision]") {
  oracle::source from(5);
  const auto logits = oracle::rounded_to<float>(from.normals(64, 2));
  const auto right = softmax_of<float, float>(sara::cpu_executor{}, logits, 64);
  CHECK(compare(right, logits, 64).largest <= 4);
  for (const float factor : {0.0f, 2.0f, -1.0f, 1.000001f}) {
    auto wrong = right;
    for (float& p : wrong) p *= factor;
    INFO(factor);
    CHECK((compare(wrong, logits, 64).largest > 4 || compare(wrong, logits, 64).entry > 6));
  }
}
