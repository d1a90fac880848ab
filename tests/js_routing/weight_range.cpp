// A common factor of the token weights changes nothing, wherever in float's range it puts them.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

TEST_CASE("token weights near the ends of float's range give the same loss and gradient", "[scale]") {
  auto in = oracle::rounded_to<float>(oracle::plain_problem(7, 2, 3, 70, 24));
  oracle::source from(7);
  in.token_weights.assign(in.tokens, 0);
  for (double& w : in.token_weights) w = from.chance(0.1) ? 0 : static_cast<double>(1 + from.below(7));
  oracle::for_each_instruction_set([&](const auto& exec, const char* name) {
    const auto plain = oracle::evaluate<float>(exec, in);
    REQUIRE(plain.loss > 0.01);
    for (const int exponent : {-120, -60, -17, 17, 60, 123}) {
      INFO(name << ", weights times 2^" << exponent);
      auto scaled = in;
      for (double& w : scaled.token_weights) w = std::ldexp(w, exponent);
      const auto got = oracle::evaluate<float>(exec, scaled);
      CHECK(oracle::relative_error(std::vector{got.loss}, std::vector{plain.loss}) <= 1e-7);
      CHECK(oracle::relative_error(got.histograms, plain.histograms) <= 1e-7);
      CHECK(oracle::relative_error(got.grad, plain.grad) <= 2e-7);
    }
  });
}
