// The edges: nothing there, one expert, everything masked, -inf, +inf, NaN, ties, offsets out of range.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(), not_a_number = std::numeric_limits<double>::quiet_NaN();

// Every output against the oracle, NaN where it has NaN, in double and fp32.
void expect_the_oracles_answer(const oracle::problem& in) {
  const auto want = oracle::solve(in);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto wide = oracle::evaluate<double>(exec, in);
    CHECK(oracle::relative_error(std::vector{wide.loss}, std::vector{want.loss}, 16 * 0x1p-52 * want.root_loss) <= 1e-12);
    CHECK(oracle::relative_error(wide.divergence, want.divergence) <= 1e-12);
    CHECK(oracle::relative_error(wide.histograms, want.histograms) <= 1e-12);
    CHECK(oracle::relative_error(wide.token_mass, want.token_mass) <= 1e-12);
    CHECK(oracle::relative_error(wide.grad, want.grad, 16 * 0x1p-52 * want.grad_floor) <= 1e-12);
    const auto rounded = oracle::rounded_to<float>(in);
    const auto wanted = oracle::solve(rounded), narrow = oracle::evaluate<float>(exec, rounded);
    CHECK(oracle::loss_error(narrow.loss, wanted.loss, wanted.root_loss) <= 1);
    CHECK(oracle::relative_error(narrow.histograms, wanted.histograms) <= 2e-6);
    CHECK(oracle::relative_error(narrow.grad, wanted.grad, 16 * 0x1p-23 * wanted.grad_floor) <= 2e-6);
  });
}

void set_row(oracle::problem& in, std::size_t layer, std::size_t token, double value) {
  std::fill_n(in.logits.begin() + static_cast<std::ptrdiff_t>((layer * in.tokens + token) * in.experts), in.experts, value);
}

}   // namespace

TEST_CASE("no tokens and no sequences: zeros", "[edges]") {
  for (const auto how : {oracle::layout::packed, oracle::layout::uniform, oracle::layout::interleaved})
    for (const std::size_t sequences : {0u, 1u, 3u}) {
      oracle::problem in;
      in.layers = 2;
      in.experts = 5;
      in.sequences = in.anchor_count = sequences;
      in.layout = how;
      if (how == oracle::layout::packed) in.offsets.assign(sequences + 1, 0);
      oracle::source from(1);
      in.anchors = oracle::distributions(from, 2 * sequences, 5);
      oracle::for_each_executor([&](const auto& exec, const char* name) {
        CAPTURE(name, sequences);
        const auto got = oracle::evaluate<float>(exec, in);
        CHECK(got.loss == 0);
        for (const auto& zeros : {got.divergence, got.histograms, got.token_mass})
          CHECK(oracle::relative_error(zeros, std::vector<double>(zeros.size())) == 0);
        CHECK(sara::js_routing(exec, oracle::arguments<float>(in).inputs()) == 0);
      });
    }
}

TEST_CASE("one expert: the loss and the gradient are exactly 0", "[edges]") {
  for (const bool weighted : {false, true}) {
    auto in = oracle::plain_problem(2, 2, 3, 40, 1);
    oracle::source from(2);
    if (weighted) in.token_weights = from.uniforms(in.tokens, 0.1, 3);
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, weighted);
      const auto exactly_zero = [](const auto& got) {
        return got.loss == 0 && oracle::relative_error(got.grad, std::vector<double>(got.grad.size())) == 0;
      };
      CHECK(exactly_zero(oracle::evaluate<double>(exec, in)));
      CHECK(exactly_zero(oracle::evaluate<float>(exec, oracle::rounded_to<float>(in))));
      CHECK(exactly_zero(oracle::evaluate<sara::bf16>(exec, oracle::rounded_to<sara::bf16>(in))));
      CHECK(exactly_zero(oracle::evaluate<sara::fp16, float>(exec, oracle::rounded_to<sara::fp16>(in))));
    });
  }
}

TEST_CASE("everything masked: zeros, and nothing is read", "[edges]") {
  auto in = oracle::plain_problem(3, 2, 3, 7, 12);
  in.token_weights.assign(in.tokens, 0);
  oracle::poison_what_has_no_weight(in);
  REQUIRE(std::isnan(in.logits[0]));
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto got = oracle::evaluate<float>(exec, in);
    CHECK(got.loss == 0);
    for (const auto& zeros : {got.divergence, got.histograms, got.token_mass, got.grad})
      CHECK(oracle::relative_error(zeros, std::vector<double>(zeros.size())) == 0);
  });
}

TEST_CASE("empty sequences first, in the middle and last", "[edges]") {
  for (const bool wide : {true, false}) {
    auto in = oracle::plain_problem(4, 2, 7, 6, 20);
    in.layout = oracle::layout::packed;
    in.wide_integers = wide;
    in.offsets = {0, 0, 13, 13, 13, 40, 42, 42};
    oracle::poison_what_has_no_weight(in);
    REQUIRE(std::isnan(in.anchors[0]));
    expect_the_oracles_answer(in);
  }
}

TEST_CASE("offsets are clamped to the tokens, and one that falls back counts as the largest before it", "[edges]") {
  auto in = oracle::plain_problem(5, 1, 4, 10, 8);
  in.layout = oracle::layout::packed;
  in.offsets = {-5, 12, 7, 90, 1000};
  expect_the_oracles_answer(in);
  in.offsets = {8, 3, 20, 20, 2};
  expect_the_oracles_answer(in);
}

TEST_CASE("anchor rows outside of the anchors mean none", "[edges]") {
  auto in = oracle::plain_problem(6, 2, 5, 6, 9);
  in.anchor_rows = {-1, 0, 4, 99, -7};
  for (const bool wide : {true, false}) {
    in.wide_integers = wide;
    expect_the_oracles_answer(in);
  }
  in.anchor_rows.assign(5, -1);
  expect_the_oracles_answer(in);
}

TEST_CASE("a logit of -inf has probability 0 and gradient 0", "[edges]") {
  auto in = oracle::plain_problem(7, 1, 3, 11, 33);
  for (std::size_t t = 0; t < in.tokens; ++t) in.logits[t * 33 + t % 33] = -infinity;
  for (std::size_t t = 11; t < 22; ++t) in.logits[t * 33 + 5] = -infinity;   // never used by sequence 1, though its anchor does
  for (std::size_t e = 0; e < 33; ++e) in.anchors[2 * 33 + e] = e == 32;
  for (std::size_t t = 22; t < 33; ++t) in.logits[t * 33 + 32] = -infinity;   // sequence 2: disjoint from its anchor
  expect_the_oracles_answer(in);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto got = oracle::evaluate<float>(exec, in);
    for (std::size_t i = 0; i < in.logits.size(); ++i)
      if (in.logits[i] == -infinity) CHECK(got.grad[i] == 0);
    CHECK(std::abs(got.divergence[2] - std::log(2.0)) <= 2e-6);
  });
}

TEST_CASE("a NaN, +inf or all -inf row spoils its own sequence and no other", "[edges]") {
  for (const std::size_t experts : {5u, 16u, 64u, 130u})
    for (const int kind : {0, 1, 2, 3}) {
      CAPTURE(experts, kind);
      auto in = oracle::plain_problem(8, 2, 4, 9, experts);
      in.layout = kind % 2 ? oracle::layout::interleaved : oracle::layout::uniform;
      const auto clean = oracle::solve(in);
      const std::size_t sequence = 2, token = oracle::rows_of(in, sequence)[4], layer = 1;
      if (kind == 0) set_row(in, layer, token, not_a_number);
      if (kind == 1) in.logits[(layer * in.tokens + token) * experts + experts - 1] = not_a_number;
      if (kind == 2) in.logits[(layer * in.tokens + token) * experts + 1] = infinity;
      if (kind == 3) set_row(in, layer, token, -infinity);
      const auto rows = oracle::rows_of(in, sequence);
      oracle::for_each_executor([&](const auto& exec, const char* name) {
        CAPTURE(name);
        const auto got = oracle::evaluate<float>(exec, oracle::rounded_to<float>(in));
        CHECK(std::isnan(got.loss));
        std::size_t spoilt_well = 0, clean_well = 0;
        for (std::size_t l = 0; l < 2; ++l)
          for (std::size_t s = 0; s < 4; ++s) {
            const bool spoilt = l == layer && s == sequence;
            CHECK(std::isnan(got.divergence[l * 4 + s]) == spoilt);
            const auto rows_here = oracle::rows_of(in, s);
            for (const std::size_t t : rows_here)
              for (std::size_t e = 0; e < experts; ++e) {
                const std::size_t i = (l * in.tokens + t) * experts + e;
                if (spoilt)
                  spoilt_well += std::isnan(got.grad[i]);
                else
                  clean_well += std::abs(got.grad[i] - clean.grad[i]) <= 4e-6 * oracle::largest(clean.grad);
              }
            for (std::size_t e = 0; e < experts; ++e) {
              const std::size_t i = (l * 4 + s) * experts + e;
              if (!spoilt) CHECK(std::abs(got.histograms[i] - clean.histograms[i]) <= 2e-6);
              if (spoilt) CHECK(std::isnan(got.histograms[i]));
            }
          }
        CHECK(spoilt_well == rows.size() * experts);
        CHECK(clean_well == in.logits.size() - rows.size() * experts);
      });
    }
}

TEST_CASE("a NaN in a long sequence spoils all of it, however many threads share it", "[edges]") {
  auto in = oracle::rounded_to<float>(oracle::plain_problem(13, 1, 2, 4000, 16));
  in.logits[3999 * 16 + 7] = not_a_number;
  oracle::for_each_executor(
      [&](const auto& exec, const char* name) {
        CAPTURE(name);
        const auto got = oracle::evaluate<float>(exec, in);
        const auto half = got.grad.begin() + 4000 * 16;
        CHECK(std::all_of(got.grad.begin(), half, [](double g) { return std::isnan(g); }));
        CHECK(std::none_of(half, got.grad.end(), [](double g) { return std::isnan(g); }));
      },
      4);
}

TEST_CASE("more experts than a kernel handles in one piece", "[edges]") {
  for (const std::size_t experts : {1500u, 4097u, 20000u}) {
    CAPTURE(experts);
    expect_the_oracles_answer(oracle::plain_problem(14, 1, 2, 7, experts));
  }
}

TEST_CASE("a hidden token in a spoilt sequence still has a gradient of 0", "[edges]") {
  auto in = oracle::plain_problem(9, 1, 2, 6, 8);
  in.token_weights.assign(in.tokens, 1);
  in.token_weights[2] = 0;
  set_row(in, 0, 1, not_a_number);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto got = oracle::evaluate<float>(exec, in);
    for (std::size_t e = 0; e < 8; ++e) CHECK(got.grad[2 * 8 + e] == 0);
    CHECK(std::isnan(got.grad[0]));
    CHECK(std::isfinite(got.grad[6 * 8]));
  });
}

TEST_CASE("ties everywhere", "[edges]") {
  for (const std::size_t experts : {2u, 8u, 63u, 257u}) {
    auto in = oracle::plain_problem(10, 1, 2, 15, experts);
    for (std::size_t i = 0; i < in.logits.size(); ++i) in.logits[i] = i / experts % 3 == 0 ? 0 : i / experts % 3 == 1 ? -7.5 : 1e4;
    expect_the_oracles_answer(in);
  }
}

TEST_CASE("logits at the ends of their range", "[edges]") {
  for (const double size : {88.0, 90.0, 700.0, 1e4, 3e38, 1e-42}) {
    CAPTURE(size);
    auto in = oracle::plain_problem(11, 1, 2, 8, 17, 1);
    for (std::size_t i = 0; i < in.logits.size(); ++i)
      if (i % 3 == 0) in.logits[i] = i % 2 ? size : -size;
    expect_the_oracles_answer(in);
  }
}

TEST_CASE("anchors of zeros and of one expert are finite", "[edges]") {
  auto in = oracle::plain_problem(12, 1, 3, 10, 9);
  for (std::size_t e = 0; e < 9; ++e) {
    in.anchors[e] = e == 4;
    in.anchors[9 + e] = e < 3 ? 1.0 / 3 : 0;
    in.anchors[18 + e] = 0;   // no distribution, yet no NaN either
  }
  expect_the_oracles_answer(in);
}
