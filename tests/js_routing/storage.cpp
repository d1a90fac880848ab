// Storage types: the same fp32 arithmetic behind each, results rounded to nearest even, and 16-bit types of others.
#include <Eigen/Core>

#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

oracle::problem batch(std::size_t experts) {
  auto in = oracle::plain_problem(experts, 2, 3, 21, experts);
  oracle::source from(experts);
  in.token_weights = from.uniforms(in.tokens, 0, 1);
  in.upstream = 16;
  return in;
}

}   // namespace

TEMPLATE_TEST_CASE("a 16-bit gradient is the fp32 gradient rounded to nearest even, bit by bit", "[storage]", sara::bf16, sara::fp16) {
  for (const std::size_t experts : {1u, 7u, 8u, 33u, 64u, 129u, 257u}) {
    const auto in = oracle::rounded_to<TestType>(batch(experts));
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, experts);
      const auto narrow = oracle::evaluate<TestType, TestType>(exec, in), wide = oracle::evaluate<TestType, float>(exec, in);
      CHECK(narrow.grad == oracle::as_doubles(oracle::as_storage<TestType>(wide.grad)));
      CHECK(narrow.loss == wide.loss);
      CHECK(narrow.histograms == wide.histograms);
    });
  }
}

TEMPLATE_TEST_CASE("16-bit logits give what the same logits in float give", "[storage]", sara::bf16, sara::fp16) {
  for (const std::size_t experts : {1u, 7u, 8u, 33u, 64u, 129u, 257u}) {
    const auto in = oracle::rounded_to<TestType>(batch(experts));
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, experts);
      const auto narrow = oracle::evaluate<TestType, float>(exec, in), wide = oracle::evaluate<float>(exec, in);
      CHECK(oracle::relative_error(narrow.grad, wide.grad) <= 4e-6);
      CHECK(oracle::relative_error(narrow.histograms, wide.histograms) <= 2e-6);
      CHECK(oracle::loss_error(narrow.loss, wide.loss, oracle::solve(in).root_loss) <= 1);
    });
  }
}

TEST_CASE("Eigen's 16-bit types are the library's own, bit by bit", "[storage]") {
  const auto check = [](auto ours, auto theirs) {
    using T = decltype(ours);
    using U = decltype(theirs);
    const auto in = oracle::rounded_to<T>(batch(24));
    oracle::for_each_host_executor([&](const auto& exec, const char* name) {
      CAPTURE(name);
      const auto got = oracle::evaluate<U, U>(exec, in), want = oracle::evaluate<T, T>(exec, in);
      CHECK(got.loss == want.loss);
      CHECK(got.grad == want.grad);
    });
  };
  check(sara::bf16{}, Eigen::bfloat16{});
  check(sara::fp16{}, Eigen::half{});
}

TEST_CASE("fp16 gradients that are denormal or too large", "[storage]") {
  for (const double upstream : {1e-4, 1e-2, 1e8}) {
    auto in = oracle::rounded_to<sara::fp16>(batch(40));
    in.upstream = static_cast<double>(static_cast<float>(upstream));
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, upstream);
      const auto narrow = oracle::evaluate<sara::fp16>(exec, in), wide = oracle::evaluate<sara::fp16, float>(exec, in);
      CHECK(narrow.grad == oracle::as_doubles(oracle::as_storage<sara::fp16>(wide.grad)));
      if (upstream > 1) CHECK(std::any_of(narrow.grad.begin(), narrow.grad.end(), [](double g) { return std::isinf(g); }));
    });
  }
}

TEST_CASE("-inf and NaN survive 16-bit storage", "[storage]") {
  auto in = oracle::plain_problem(1, 1, 3, 5, 9);
  in.logits[3] = -std::numeric_limits<double>::infinity();
  in.logits[7 * 9 + 2] = std::numeric_limits<double>::quiet_NaN();
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    for (const auto& got : {oracle::evaluate<sara::bf16>(exec, in), oracle::evaluate<sara::fp16>(exec, in)}) {
      CHECK(got.grad[3] == 0);
      CHECK(std::isfinite(got.divergence[0]));
      CHECK(std::isnan(got.divergence[1]));
      CHECK(std::isfinite(got.divergence[2]));
      CHECK(std::isnan(got.grad[5 * 9]));
      CHECK(std::isfinite(got.grad[10 * 9]));
    }
  });
}
