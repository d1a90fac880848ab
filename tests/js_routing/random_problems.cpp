// A thousand and more random problems: every layout, weight, mask, total, anchor row, saved histogram and upstream, for every
// executor, against the oracle. double at 1e-12; fp32 and the 16-bit types at what their arithmetic allows.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

// Some of the memory layouts a caller may have, by seed.
oracle::posing any_posing(std::uint64_t seed, const oracle::problem& in) {
  oracle::source from(seed + 1000003);
  const auto place = [&] {
    return oracle::placement{.list = from.chance(0.4),
                             .row_padding = from.chance(0.3) ? 1 + static_cast<sara::index_t>(from.below(9)) : 0,
                             .layer_padding = static_cast<sara::index_t>(from.below(5)),
                             .offset = static_cast<sara::index_t>(from.below(4))};
  };
  oracle::posing how{.logits = place(), .others = place(), .grad = place()};
  if (from.chance(0.4)) {
    how.mode = sara::gradient_mode::accumulate;
    how.buffer = from.uniforms(in.logits.size(), -1, 1);
  }
  return how;
}

// How far the answers are, all in units of what is allowed: relative `tolerance`, plus `units` roundings of the arithmetic.
template <class T, class G, class Executor>
void check_against_the_oracle(const Executor& exec, const oracle::problem& in, const oracle::posing& how, double tolerance) {
  using A = sara::arithmetic_t<T>;
  constexpr double epsilon = std::numeric_limits<A>::epsilon(), units = 16;
  const auto want = oracle::solve(in);
  auto got = oracle::evaluate<T, G>(exec, in, how);

  if constexpr (std::is_same_v<A, double>)
    CHECK(oracle::relative_error(std::vector{got.loss}, std::vector{want.loss}, units * epsilon * want.root_loss) <= tolerance);
  else
    CHECK(oracle::loss_error(got.loss, want.loss, want.root_loss) <= 1);
  CHECK(oracle::relative_error(got.histograms, want.histograms) <= tolerance);
  CHECK(oracle::relative_error(got.token_mass, want.token_mass) <= tolerance);
  CHECK(oracle::relative_error(got.divergence, want.divergence, std::is_same_v<A, double> ? units * epsilon : 1e-7) <= tolerance);

  double allowance = units * epsilon * want.grad_floor;
  std::vector<double> expected = want.grad;
  if (how.mode == sara::gradient_mode::accumulate) {
    // Compared as the difference to the buffer, which one rounding of the sum blurs.
    const auto buffer = oracle::as_doubles(oracle::as_storage<G>(how.buffer));
    double blur = 0;
    for (std::size_t i = 0; i < buffer.size(); ++i) {
      blur = std::max({blur, oracle::unit_of<G>(got.grad[i]), oracle::unit_of<G>(buffer[i] + expected[i])});
      if (!std::isnan(got.grad[i])) got.grad[i] -= buffer[i];
    }
    allowance += blur;
    if (oracle::largest(expected) == 0) CHECK(oracle::relative_error(got.grad, expected) == 0);   // untouched
  } else if constexpr (!std::is_same_v<G, A>) {
    allowance += oracle::unit_of<G>(oracle::largest(expected)) / 2;
  }
  CHECK(oracle::relative_error(got.grad, expected, allowance) <= tolerance);
}

template <class T, class G> void solve_random_problems(std::uint64_t first, std::uint64_t count, double tolerance) {
  std::size_t gradients = 0;
  sara::thread_pool pool(3);   // a pool's threads are cheap enough for problems of this size
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    auto in = oracle::rounded_to<T>(oracle::random_problem(seed));
    if (std::is_same_v<G, sara::fp16> && in.upstream) in.upstream = std::min(*in.upstream, 128.0);   // what fp16 can hold
    const auto how = any_posing(seed, in);
    gradients += oracle::largest(oracle::solve(in).grad) > 0;
    oracle::for_each_executor(
        [&](const auto& exec, const char* name) {
          INFO(name << ", seed " << seed << ": layers " << in.layers << ", tokens " << in.tokens << ", sequences " << in.sequences
                    << ", experts " << in.experts << ", layout " << static_cast<int>(in.layout)
                    << (how.mode == sara::gradient_mode::accumulate ? ", accumulate" : ""));
          check_against_the_oracle<T, G>(exec, in, how, tolerance);
        },
        1 + static_cast<int>(seed % 3), pool);
  }
  CHECK(gradients > count / 2);   // the problems are not empty ones
}

}   // namespace

TEST_CASE("random problems in double agree with the oracle to 1e-12", "[random]") { solve_random_problems<double, double>(0, 1980, 1e-12); }

TEST_CASE("random problems in float agree with the oracle", "[random]") { solve_random_problems<float, float>(2000, 220, 2e-6); }
TEST_CASE("random problems in bf16 with a bf16 gradient agree with the oracle", "[random]") {
  solve_random_problems<sara::bf16, sara::bf16>(3000, 132, 2e-6);
}
TEST_CASE("random problems in bf16 with a float gradient agree with the oracle", "[random]") {
  solve_random_problems<sara::bf16, float>(4000, 132, 2e-6);
}
TEST_CASE("random problems in fp16 with an fp16 gradient agree with the oracle", "[random]") {
  solve_random_problems<sara::fp16, sara::fp16>(5000, 132, 2e-6);
}
TEST_CASE("random problems in fp16 with a float gradient agree with the oracle", "[random]") {
  solve_random_problems<sara::fp16, float>(6000, 132, 2e-6);
}
