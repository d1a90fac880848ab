// Padding changes nothing: hidden tokens, tokens of no sequence, and the layouts of one and the same batch.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

// The token rows of `in` moved to new places in a batch of `tokens` rows; what lies between holds NaN and weight 0.
oracle::problem moved(const oracle::problem& in, std::size_t tokens, const std::vector<std::size_t>& to) {
  auto out = in;
  out.tokens = tokens;
  out.logits.assign(in.layers * tokens * in.experts, not_a_number);
  out.token_weights.assign(tokens, 0);
  for (std::size_t t = 0; t < in.tokens; ++t) {
    out.token_weights[to[t]] = oracle::weight_or_one(in.token_weights, t);
    for (std::size_t l = 0; l < in.layers; ++l)
      std::copy_n(in.logits.begin() + static_cast<std::ptrdiff_t>((l * in.tokens + t) * in.experts), in.experts,
                  out.logits.begin() + static_cast<std::ptrdiff_t>((l * tokens + to[t]) * in.experts));
  }
  return out;
}

void expect_same_answer(const oracle::problem& in, const oracle::problem& other, const std::vector<std::size_t>& to) {
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto want = oracle::evaluate<float>(exec, in);
    const auto got = oracle::evaluate<float>(exec, other);
    REQUIRE(oracle::largest(want.grad) > 0);
    CHECK(oracle::loss_error(got.loss, want.loss, want.root_loss) <= 1);
    CHECK(oracle::relative_error(got.divergence, want.divergence) <= 2e-6);
    CHECK(oracle::relative_error(got.histograms, want.histograms) <= 1e-6);
    CHECK(oracle::relative_error(got.token_mass, want.token_mass) <= 1e-6);
    // The rows that were moved, and zeros between them.
    std::vector<double> expected(got.grad.size(), 0);
    for (std::size_t t = 0; t < in.tokens; ++t)
      for (std::size_t l = 0; l < in.layers; ++l)
        for (std::size_t e = 0; e < in.experts; ++e)
          expected[(l * other.tokens + to[t]) * in.experts + e] = want.grad[(l * in.tokens + t) * in.experts + e];
    CHECK(oracle::relative_error(got.grad, expected) <= 1e-6);
    for (std::size_t i = 0; i < expected.size(); ++i)
      if (expected[i] == 0 && got.grad[i] != 0) {
        CHECK(got.grad[i] == 0);
        break;
      }
  });
}

}   // namespace

TEST_CASE("left, right and scattered padding that holds NaN changes nothing", "[padding]") {
  constexpr std::size_t layers = 2, batch = 3, length = 17, padded = 23, experts = 33;
  const auto in = oracle::rounded_to<float>(oracle::plain_problem(1, layers, batch, length, experts));
  for (const int kind : {0, 1, 2}) {
    CAPTURE(kind);
    std::vector<std::size_t> to;
    for (std::size_t s = 0; s < batch; ++s)
      for (std::size_t i = 0; i < length; ++i) to.push_back(s * padded + (kind == 0 ? padded - length + i : kind == 1 ? i : i + i / 4));
    auto other = moved(in, batch * padded, to);
    other.length = padded;
    expect_same_answer(in, other, to);
  }
}

TEST_CASE("packed, uniform and interleaved tell of the same batch", "[padding]") {
  constexpr std::size_t layers = 2, batch = 4, length = 19, experts = 24;
  const auto in = oracle::rounded_to<float>(oracle::plain_problem(2, layers, batch, length, experts));
  std::vector<std::size_t> same, across;
  for (std::size_t t = 0; t < in.tokens; ++t) {
    same.push_back(t);
    across.push_back(t % length * batch + t / length);
  }
  auto packed = in;
  packed.layout = oracle::layout::packed;
  for (std::size_t s = 0; s <= batch; ++s) packed.offsets.push_back(static_cast<std::int64_t>(s * length));
  expect_same_answer(in, packed, same);
  packed.wide_integers = false;
  expect_same_answer(in, packed, same);
  auto interleaved = moved(in, in.tokens, across);
  interleaved.layout = oracle::layout::interleaved;
  expect_same_answer(in, interleaved, across);
}

TEST_CASE("tokens outside the offsets belong to no sequence", "[padding]") {
  const auto in = oracle::rounded_to<float>(oracle::plain_problem(3, 2, 2, 11, 9));
  std::vector<std::size_t> to;
  for (std::size_t t = 0; t < in.tokens; ++t) to.push_back(t + 5);
  auto other = moved(in, in.tokens + 9, to);
  other.token_weights.clear();   // hidden by the offsets alone
  other.layout = oracle::layout::packed;
  other.offsets = {5, 16, 27};
  expect_same_answer(in, other, to);
}

TEST_CASE("weights of 2 and 0 count as the token twice and not at all", "[padding]") {
  auto in = oracle::plain_problem(4, 1, 1, 12, 8);
  in.layout = oracle::layout::packed;
  in.offsets = {0, 12};
  in.token_weights.assign(12, 1);
  in.token_weights[3] = 2;
  in.token_weights[7] = 0;
  auto twice = in;
  twice.token_weights.clear();
  std::copy_n(in.logits.begin() + 3 * 8, 8, twice.logits.begin() + 7 * 8);   // token 3 again in the place of token 7
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto got = oracle::evaluate<double>(exec, in), want = oracle::evaluate<double>(exec, twice);
    CHECK(std::abs(got.loss - want.loss) <= 1e-13 * want.loss);
    CHECK(oracle::relative_error(got.histograms, want.histograms) <= 1e-13);
    for (std::size_t e = 0; e < 8; ++e) CHECK(std::abs(got.grad[3 * 8 + e] - 2 * want.grad[3 * 8 + e]) <= 1e-15);
  });
}
