// fp32 against fp64: the loss from ln 2 down to 1e-12, and the gradient for up to 2^20 tokens.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

// Every sequence's histogram about `distance` from its anchor, relatively.
oracle::problem near_alignment(std::uint64_t seed, std::size_t sequences, std::size_t length, std::size_t experts, double distance) {
  auto in = oracle::rounded_to<float>(oracle::plain_problem(seed, 1, sequences, length, experts));
  oracle::source from(seed + 77);
  in.anchors = oracle::solve(in).histograms;
  for (std::size_t row = 0; row < sequences; ++row) {
    double* const a = in.anchors.data() + row * experts;
    double sum = 0;
    for (std::size_t e = 0; e < experts; ++e) sum += a[e] *= std::exp(distance * from.normal());
    for (std::size_t e = 0; e < experts; ++e) a[e] /= sum;
  }
  return oracle::rounded_to<float>(in);
}

}   // namespace

TEST_CASE("the fp32 loss is within 2e-6 JS + 1e-7 sqrt(JS) from ln 2 down to 1e-12", "[precision]") {
  double least = 1;
  for (const double distance : {4.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 3e-6})
    for (const std::size_t experts : {8u, 63u, 128u, 257u, 1024u})
      for (const std::size_t length : {1u, 37u, 300u}) {
        const auto in = near_alignment(experts + length, 2, length, experts, distance);
        const auto want = oracle::solve(in);
        oracle::for_each_executor([&](const auto& exec, const char* name) {
          CAPTURE(name, distance, experts, length);
          const auto got = oracle::evaluate<float>(exec, in);
          CHECK(oracle::loss_error(got.loss, want.loss, want.root_loss) <= 1);
          for (std::size_t s = 0; s < 2; ++s) {
            CHECK(oracle::loss_error(got.divergence[s], want.divergence[s], std::sqrt(want.divergence[s])) <= 1);
            CHECK(got.divergence[s] >= 0);
            least = std::min(least, want.divergence[s]);
          }
        });
      }
  CHECK(least < 1.5e-12);
}

TEST_CASE("the fp32 loss of disjoint supports is ln 2 and not more", "[precision]") {
  for (const std::size_t experts : {2u, 5u, 64u, 129u}) {
    auto in = oracle::plain_problem(experts, 1, 1, 40, experts);
    for (std::size_t i = 0; i < in.logits.size(); ++i)
      if (i % experts == experts - 1) in.logits[i] = -std::numeric_limits<double>::infinity();
    for (std::size_t e = 0; e < experts; ++e) in.anchors[e] = e == experts - 1;
    in = oracle::rounded_to<float>(in);
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, experts);
      const auto got = oracle::evaluate<float>(exec, in);
      CHECK(std::abs(got.loss - std::log(2.0)) <= 2e-6 * std::log(2.0));
      CHECK(oracle::relative_error(got.grad, oracle::solve(in).grad, 8 * 0x1p-23 * oracle::solve(in).grad_floor) <= 2e-6);
    });
  }
}

TEST_CASE("the fp32 gradient is within 2e-6 of its largest entry away from alignment, up to 2^20 tokens", "[precision]") {
  struct shape {
    std::size_t sequences, length, experts;
  };
  for (const shape& of : {shape{3, 1, 64}, shape{2, 100, 128}, shape{1, 4096, 60}, shape{5, 777, 33}, shape{1, 3000, 257},
                          shape{2, 60, 1024}, shape{1, std::size_t{1} << 17, 16}, shape{1, std::size_t{1} << 20, 4}}) {
    const auto in = oracle::rounded_to<float>(oracle::plain_problem(of.length, 1, of.sequences, of.length, of.experts, 1.5));
    const auto want = oracle::solve(in);
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, of.sequences, of.length, of.experts);
      const auto got = oracle::evaluate<float>(exec, in);
      CHECK(oracle::relative_error(got.grad, want.grad) <= 2e-6);
      CHECK(oracle::relative_error(got.histograms, want.histograms) <= 2e-6);
      CHECK(oracle::loss_error(got.loss, want.loss, want.root_loss) <= 1);
    });
  }
}

TEST_CASE("one expert that a token all but never uses does not spoil its row", "[precision]") {
  // Logits of spread 30: for Q << P, (Q - P) / (Q + P) rounds to -1.
  for (const double spread : {15.0, 30.0, 80.0}) {
    const auto in = oracle::rounded_to<float>(oracle::plain_problem(4, 1, 3, 20, 24, spread));
    const auto want = oracle::solve(in);
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, spread);
      const auto narrow = oracle::evaluate<float>(exec, in), wide = oracle::evaluate<double>(exec, in);
      CHECK(oracle::relative_error(narrow.grad, want.grad, 8 * 0x1p-23 * want.grad_floor) <= 2e-6);
      CHECK(oracle::relative_error(wide.grad, want.grad, 8 * 0x1p-52 * want.grad_floor) <= 1e-12);
    });
  }
}
