// A common factor of the token weights changes nothing, wherever in float's range it puts them; and small scales and weights keep their
// digits whatever the height of the logits, which decides by what their exponentials are divided.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

TEST_CASE("token weights near the ends of float's range give the same loss and gradient", "[scale][precision]") {
  auto in = oracle::rounded_to<float>(oracle::plain_problem(7, 2, 3, 70, 24));
  oracle::source from(7);
  in.token_weights.assign(in.tokens, 0);
  for (double& w : in.token_weights) w = from.chance(0.1) ? 0 : static_cast<double>(1 + from.below(7));
  oracle::for_each_executor([&](const auto& exec, const char* name) {
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

TEST_CASE("token weights that are denormal numbers give the same loss and gradient", "[scale]") {
  auto in = oracle::rounded_to<float>(oracle::plain_problem(7, 2, 3, 70, 24));
  in.token_weights.assign(in.tokens, 1);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    const auto plain = oracle::evaluate<float>(exec, in);
    auto scaled = in;
    for (double& w : scaled.token_weights) w = std::ldexp(w, -140);
    const auto got = oracle::evaluate<float>(exec, scaled);
    CHECK(oracle::relative_error(std::vector{got.loss}, std::vector{plain.loss}) <= 1e-7);
    CHECK(oracle::relative_error(got.histograms, plain.histograms) <= 1e-7);
    CHECK(oracle::relative_error(got.grad, plain.grad) <= 2e-7);
  });
}

TEST_CASE("a small scale and a small weight keep their digits at any height of the logits", "[scale][precision]") {
  for (const double height : {-8.0, -3.0, 3.0, 15.5, 25.0}) {
    auto in = oracle::rounded_to<float>(oracle::plain_problem(11, 1, 2, 40, 24));
    for (double& z : in.logits) z = static_cast<double>(static_cast<float>(z + height));
    in.token_weights.assign(in.tokens, 1);
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", height " << height);
      const auto plain = oracle::evaluate<float>(exec, in);
      auto small = in;
      small.scale = 1e-17;
      const auto got = oracle::evaluate<float>(exec, small);
      std::vector<double> want = plain.grad;
      for (double& g : want) g *= 1e-17;
      CHECK(oracle::relative_error(got.grad, want) <= 2e-6);

      // Expert 0 is reached by the one light token only.
      auto light = in;
      for (std::size_t t = 0; t < light.tokens; ++t)
        if (t != 3) light.logits[t * 24] = -std::numeric_limits<double>::infinity();
      light.token_weights[3] = 1e-17;
      const auto seen = oracle::evaluate<float>(exec, light), exact = oracle::solve(light);
      double reached = 0;
      for (std::size_t s = 0; s < light.sequences; ++s) {
        const double want_mass = exact.histograms[s * 24];
        CHECK(std::abs(seen.histograms[s * 24] - want_mass) <= 2e-6 * want_mass);
        reached += want_mass;
      }
      CHECK(reached > 0);
    });
  }
}
