// Near alignment the slope of the divergence, 1/2 ln(2 Q / (P + Q)), is as small as Q's own relative rounding: the softmax's rounding
// sets a floor under the gradient's error. The floor is measured here as the error of a textbook fp32 softmax with every other
// step in double, in units of oracle::result::grad_floor (the largest entry for slopes of about 1): 2.5e-8 up to 128 experts, 8e-8 up
// to 1024. The executors are held to twice of it.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

oracle::problem at_distance(double distance, std::size_t sequences, std::size_t length, std::size_t experts) {
  auto in = oracle::rounded_to<float>(oracle::plain_problem(length + experts, 1, sequences, length, experts));
  oracle::source from(5);
  in.anchors = oracle::solve(in).histograms;
  for (double& a : in.anchors) a *= 1 + distance * from.normal();
  return oracle::rounded_to<float>(in);
}

// The gradient, its softmax in fp32 and all else in double.
std::vector<double> with_rounded_softmax(const oracle::problem& in) {
  const std::size_t E = in.experts;
  std::vector<double> grad(in.logits.size());
  for (std::size_t s = 0; s < in.sequences; ++s) {
    std::vector<double> histogram(E),
        anchor(in.anchors.begin() + static_cast<std::ptrdiff_t>(s * E), in.anchors.begin() + static_cast<std::ptrdiff_t>((s + 1) * E));
    const auto rows = oracle::rows_of(in, s);
    std::vector<std::vector<double>> probs;
    for (const std::size_t t : rows) {
      const std::vector<float> z(in.logits.begin() + static_cast<std::ptrdiff_t>(t * E),
                                 in.logits.begin() + static_cast<std::ptrdiff_t>((t + 1) * E));
      const auto p = oracle::softmax(z.data(), E);
      probs.emplace_back(p.begin(), p.end());
      for (std::size_t e = 0; e < E; ++e) histogram[e] += probs.back()[e] / static_cast<double>(rows.size());
    }
    const auto slope = oracle::js_slope_p(histogram.data(), anchor.data(), E);
    const double c = in.scale / static_cast<double>(in.sequences * rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto g = oracle::softmax_backward(probs[i].data(), slope.data(), E);
      for (std::size_t e = 0; e < E; ++e) grad[rows[i] * E + e] = c * g[e];
    }
  }
  return grad;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

}   // namespace

TEST_CASE("near alignment the fp32 gradient stays within twice the floor that a softmax's rounding sets", "[precision]") {
  struct bound {
    std::vector<std::size_t> experts;
    double stated;
  };   // floor over oracle::result::grad_floor, as measured
  for (const auto& [expert_counts, stated] : {bound{{8, 64, 128}, 2.5e-8}, bound{{257, 1024}, 8.5e-8}}) {
    std::vector<oracle::problem> problems;
    for (const std::size_t experts : expert_counts)
      for (const std::size_t length : {1u, 4u, 64u, 600u})
        for (const double distance : {1e-2, 1e-3, 1e-4, 1e-6, 0.0}) problems.push_back(at_distance(distance, 2, length, experts));
    double floor = 0;
    for (const auto& in : problems) {
      const auto want = oracle::solve(in);
      floor = std::max(floor, largest_difference(with_rounded_softmax(in), want.grad) / want.grad_floor);
    }
    CHECK(floor <= stated);
    CHECK(floor >= stated / 2);   // the figure above is neither stale nor slack
    for (const auto& in : problems) {
      const auto want = oracle::solve(in);
      oracle::for_each_executor([&](const auto& exec, const char* name) {
        CAPTURE(name, in.experts, in.length, oracle::largest(want.grad), want.grad_floor);
        CHECK(largest_difference(oracle::evaluate<float>(exec, in).grad, want.grad) <=
              2 * floor * want.grad_floor + 2e-6 * oracle::largest(want.grad));
      });
    }
  }
}

TEST_CASE("at alignment to the last bit the gradient in double vanishes to rounding", "[precision]") {
  auto in = oracle::plain_problem(9, 1, 2, 50, 31);
  in.anchors = oracle::solve(in).histograms;
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto got = oracle::evaluate<double>(exec, in);
    CHECK(oracle::largest(got.grad) <= 16 * 0x1p-52 * oracle::solve(in).grad_floor);
    CHECK(got.loss >= 0);
    CHECK(got.loss <= 1e-30);
  });
}

TEST_CASE("a saved histogram that equals its anchor gives a loss and a gradient of exactly 0", "[precision]") {
  auto in = oracle::rounded_to<float>(oracle::plain_problem(10, 2, 3, 20, 33));
  in.histograms = in.anchors;
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto got = oracle::evaluate<float>(exec, in);
    CHECK(got.loss == 0);
    CHECK(oracle::relative_error(got.grad, std::vector<double>(in.logits.size())) == 0);
  });
}
