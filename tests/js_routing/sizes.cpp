// Shapes that change how the work is cut: more sequences than a block plans at a time, tiles of every size, more experts than registers
// hold, more layers than one launch can name.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

void expect_the_oracles_answer(const oracle::problem& in, const oracle::posing& how = {}) {
  const auto want = oracle::solve(in);
  REQUIRE(oracle::largest(want.grad) > 0);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    auto got = oracle::evaluate<double>(exec, in, how);
    if (!how.buffer.empty())
      for (std::size_t i = 0; i < got.grad.size(); ++i) got.grad[i] -= how.buffer[i];
    const double allowance = 16 * 0x1p-52 * want.grad_floor + (how.buffer.empty() ? 0 : 0x1p-51);
    CHECK(oracle::relative_error(std::vector{got.loss}, std::vector{want.loss}, 16 * 0x1p-52 * want.root_loss) <= 1e-12);
    CHECK(oracle::relative_error(got.divergence, want.divergence) <= 1e-12);
    CHECK(oracle::relative_error(got.histograms, want.histograms) <= 1e-12);
    CHECK(oracle::relative_error(got.token_mass, want.token_mass) <= 1e-12);
    CHECK(oracle::relative_error(got.grad, want.grad, allowance) <= 1e-12);
  });
}

}   // namespace

TEST_CASE("many short sequences, some empty, with offsets that fall back", "[sizes]") {
  oracle::source from(1);
  auto in = oracle::plain_problem(1, 2, 1, 2000, 6);
  oracle::pack(in, from, 700, true);
  in.offsets[300] = in.offsets[299] - 7;
  in.offsets[511] = -3;
  in.anchor_count = 5;
  in.anchors = oracle::distributions(from, 2 * 5, 6);
  for (std::size_t s = 0; s < 700; ++s) in.anchor_rows.push_back(static_cast<std::int64_t>(from.below(6)) - 1);
  SECTION("without token weights") {}
  SECTION("with them") { in.token_weights = from.uniforms(2000, 0, 1); }
  expect_the_oracles_answer(in);
}

TEST_CASE("few sequences that are long", "[sizes]") {   // token masses are summed by more threads
  oracle::source from(2);
  for (const auto how : {oracle::layout::packed, oracle::layout::uniform, oracle::layout::interleaved}) {
    auto in = oracle::plain_problem(2, 1, 3, 1000, 4);
    in.layout = how;
    if (how == oracle::layout::packed) in.offsets = {0, 1500, 1501, 3000};
    in.token_weights = from.uniforms(3000, 0, 1);
    expect_the_oracles_answer(in);
  }
}

TEST_CASE("tiles of 128, 256 and 512 rows", "[sizes]") {
  for (const std::size_t tokens : {99'000u, 198'000u, 397'000u}) {
    CAPTURE(tokens);
    oracle::source from(tokens);
    auto in = oracle::plain_problem(tokens, 1, 1, tokens, 3);
    oracle::pack(in, from, 5);
    in.anchor_count = 1;
    in.anchors = oracle::distributions(from, 1, 3);
    in.anchor_rows = {0, 0, 0, 0, 0};
    const auto want = oracle::solve(in);
    oracle::for_the_device([&](const auto& exec, const char*) {
      const auto got = oracle::evaluate<double>(exec, in);
      CHECK(oracle::relative_error(got.grad, want.grad, 16 * 0x1p-52 * want.grad_floor) <= 1e-12);
      CHECK(oracle::relative_error(got.histograms, want.histograms) <= 1e-12);
      const auto narrow = oracle::evaluate<float>(exec, oracle::rounded_to<float>(in));
      CHECK(oracle::relative_error(narrow.grad, want.grad, 16 * 0x1p-23 * want.grad_floor) <= 2e-6);
    });
  }
}

TEST_CASE("more experts than registers hold", "[sizes]") {
  for (const std::size_t experts : {1025u, 1537u, 4100u})
    for (const auto how : {oracle::layout::packed, oracle::layout::interleaved}) {
      CAPTURE(experts);
      oracle::source from(experts);
      auto in = oracle::plain_problem(experts, 2, 2, 45, experts);
      in.layout = how;
      if (how == oracle::layout::packed) in.offsets = {3, 70, 88};
      in.token_weights = from.uniforms(90, 0, 1);
      in.token_weights[20] = 0;
      expect_the_oracles_answer(in);
      expect_the_oracles_answer(in, {.logits = {.row_padding = 1, .offset = 1},
                                     .mode = sara::gradient_mode::accumulate,
                                     .buffer = oracle::source(7).uniforms(in.logits.size(), -1, 1)});
    }
}

TEST_CASE("a list of more layers than one launch can name", "[sizes]") {
  const auto in = oracle::plain_problem(3, 2500, 2, 2, 3);
  const oracle::placement list{.list = true};
  expect_the_oracles_answer(in, {.logits = list, .others = list, .grad = list});
}
