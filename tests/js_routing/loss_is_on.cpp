// The loss is on: a step against the gradient lowers it by what the gradient says.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

oracle::problem stepped(oracle::problem in, const std::vector<double>& grad, double step) {
  for (std::size_t i = 0; i < grad.size(); ++i) in.logits[i] -= step * grad[i];
  return in;
}

double square(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return sum;
}

oracle::problem some_batch(std::uint64_t seed, double scale) {
  oracle::source from(seed);
  auto in = oracle::plain_problem(seed, 2, 3, 14, 12);
  in.layout = seed % 2 ? oracle::layout::interleaved : oracle::layout::uniform;
  in.token_weights = from.uniforms(in.tokens, 0, 1);
  in.layer_weights = {1, 3};
  in.scale = scale;
  return in;
}

}   // namespace

TEST_CASE("a step against the gradient lowers the loss by the first-order amount", "[gradient]") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const auto in = some_batch(seed, 1.5);
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, seed);
      const auto start = oracle::evaluate<double>(exec, in);
      const double predicted = square(start.grad), step = 1e-5 * start.loss / predicted;
      const auto after = oracle::evaluate<double>(exec, stepped(in, start.grad, step));
      REQUIRE(predicted > 0);
      CHECK(std::abs((start.loss - after.loss) / (step * predicted) - 1) <= 1e-3);
    });
  }
}

TEST_CASE("so it does in fp32, between a step forward and a step back", "[gradient]") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const auto in = oracle::rounded_to<float>(some_batch(seed, 1));
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, seed);
      const auto start = oracle::evaluate<float>(exec, in);
      const double predicted = square(start.grad), step = 0.02 * start.loss / predicted;
      const auto down = oracle::evaluate<float>(exec, stepped(in, start.grad, step)),
                 up = oracle::evaluate<float>(exec, stepped(in, start.grad, -step));
      CHECK(std::abs((up.loss - down.loss) / (2 * step * predicted) - 1) <= 1e-3);
    });
  }
}

TEST_CASE("many steps bring every histogram to its anchor", "[gradient]") {
  auto in = oracle::plain_problem(7, 1, 2, 5, 6, 1);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    auto now = in;
    const double first = oracle::evaluate<double>(exec, in).loss;
    double last = first;
    for (int i = 0; i < 300; ++i) {
      const auto at = oracle::evaluate<double>(exec, now);
      REQUIRE(at.loss <= last * (1 + 1e-12));
      last = at.loss;
      now = stepped(now, at.grad, 100);
    }
    CHECK(last <= 1e-3 * first);
  });
}
