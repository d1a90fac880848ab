// The oracle itself: its gradient against central differences in long double, its divergence against the definition.
#include "../oracle/compare.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

// The largest disagreement of sampled entries, relative to the largest entry.
double disagreement(const oracle::problem& in, std::uint64_t seed, int samples) {
  using R = long double;
  const std::vector<R> logits(in.logits.begin(), in.logits.end());
  const auto want = oracle::solve<R>(in, logits);
  R size = 0, worst = 0;
  for (const R& g : want.grad) size = std::max(size, std::abs(g));
  if (size == 0) return 0;
  oracle::source from(seed);
  for (int i = 0; i < samples; ++i) {
    const std::size_t at = from.below(logits.size());
    if (!std::isfinite(logits[at])) continue;
    const R step = 1e-4L;
    const auto loss_at = [&](R by) {
      auto moved = logits;
      moved[at] += by;
      return oracle::solve<R>(in, moved).loss;
    };
    // Five points: the error is of the fourth power of the step.
    const R slope = (8 * (loss_at(step) - loss_at(-step)) - (loss_at(2 * step) - loss_at(-2 * step))) / (12 * step);
    worst = std::max(worst, std::abs(slope * static_cast<R>(in.upstream.value_or(1)) - want.grad[at]));
  }
  return static_cast<double>(worst / size);
}

}   // namespace

TEST_CASE("the oracle's gradient is the slope of its loss", "[oracle]") {
  int seen = 0;
  for (std::uint64_t seed = 0; seed < 400 && seen < 60; ++seed) {
    auto in = oracle::random_problem(seed, 600);
    if (in.logits.empty() || !in.histograms.empty()) continue;   // a given histogram does not follow the logits
    CAPTURE(seed, in.experts, in.tokens);
    if (oracle::largest(oracle::solve(in).grad) == 0) continue;
    CHECK(disagreement(in, seed, 4) <= 1e-9);
    ++seen;
  }
  CHECK(seen == 60);
}

TEST_CASE("the oracle's gradient is the slope of its loss near alignment and far from it", "[oracle]") {
  for (const double distance : {1e-1, 1e-2, 1e-3}) {
    oracle::source from(11);
    auto in = oracle::plain_problem(5, 1, 2, 6, 12);
    in.anchors = oracle::solve(in).histograms;
    for (double& a : in.anchors) a *= 1 + distance * from.normal();
    CHECK(disagreement(in, 1, 8) <= 1e-9);
  }
  auto apart = oracle::plain_problem(6, 1, 1, 3, 8, 6);
  for (std::size_t e = 0; e < 8; ++e) apart.anchors[e] = e == 3;
  CHECK(disagreement(apart, 2, 8) <= 1e-9);
}

TEST_CASE("the oracle's divergence is 1/2 KL(p || m) + 1/2 KL(q || m)", "[oracle]") {
  oracle::source from(7);
  for (int i = 0; i < 50; ++i) {
    const std::size_t experts = 2 + from.below(60);
    const auto p = oracle::distributions(from, 1, experts, 2), q = oracle::distributions(from, 1, experts, 2);
    const std::vector<long double> wide_p(p.begin(), p.end()), wide_q(q.begin(), q.end());
    const auto want = static_cast<double>(oracle::js_by_definition(wide_p.data(), wide_q.data(), experts));
    CHECK(std::abs(oracle::js(p.data(), q.data(), experts) - want) <= 1e-14 * want);
  }
  const std::vector<double> left{1, 0}, right{0, 1};
  CHECK(std::abs(oracle::js(left.data(), right.data(), 2) - std::log(2.0)) <= 1e-15);
  CHECK(oracle::js(left.data(), left.data(), 2) == 0);
}

TEST_CASE("the oracle's slopes are the slopes of its divergence", "[oracle]") {
  oracle::source from(8);
  for (const double sigma : {0.01, 1.0, 4.0}) {
    const auto p = oracle::distributions(from, 1, 9, sigma), q = oracle::distributions(from, 1, 9, sigma);
    std::vector<long double> x(p.begin(), p.end()), y(q.begin(), q.end());
    const auto slope_p = oracle::js_slope_p(x.data(), y.data(), 9), slope_q = oracle::js_slope_q(x.data(), y.data(), 9);
    for (std::size_t e = 0; e < 9; ++e)
      for (const bool first : {true, false}) {
        auto& at = (first ? x : y)[e];
        const auto middle = at, step = at * 1e-5L;
        at = middle + step;
        const auto above = oracle::js(x.data(), y.data(), 9);
        at = middle - step;
        const auto below = oracle::js(x.data(), y.data(), 9);
        at = middle;
        CHECK(std::abs(static_cast<double>((above - below) / (2 * step) - (first ? slope_p : slope_q)[e])) <= 1e-9);
      }
  }
}
