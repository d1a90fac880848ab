// gradient_mode::accumulate is buffer + overwrite with one rounding; overwrite never reads.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

template <class T, class G> void adds_once(double size) {
  using A = sara::arithmetic_t<T>;
  for (const std::size_t experts : {1u, 7u, 64u, 129u}) {
    auto in = oracle::plain_problem(experts, 2, 3, 21, experts);
    oracle::source from(experts);
    in.token_weights = from.uniforms(in.tokens, 0, 1);
    for (double& m : in.token_weights) m = m < 0.3 ? 0 : m;
    in.layer_weights = {1, 0.5};
    in.upstream = 8;
    in = oracle::rounded_to<T>(in);
    oracle::poison_what_has_no_weight(in);
    const auto buffer = oracle::as_doubles(oracle::as_storage<G>(from.normals(in.logits.size(), size)));
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, experts, size);
      const auto fresh = oracle::evaluate<T, A>(exec, in);   // the gradient before it is rounded to G
      const auto got = oracle::evaluate<T, G>(exec, in, {.mode = sara::gradient_mode::accumulate, .buffer = buffer});
      double worst = 0;
      std::size_t changed = 0;
      for (std::size_t i = 0; i < buffer.size(); ++i) {
        const double sum = buffer[i] + fresh.grad[i],
                     size_of_either = std::max({std::abs(buffer[i]), std::abs(fresh.grad[i]), std::abs(sum)});
        worst = std::max(worst, std::abs(got.grad[i] - sum) / oracle::unit_of<G>(size_of_either));
        changed += got.grad[i] != buffer[i];
      }
      CHECK(worst <= 1);
      if (experts > 1 && size <= 1e-3) CHECK(changed > buffer.size() / 4);
      CHECK(got.loss == fresh.loss);
    });
  }
}

}   // namespace

TEST_CASE("accumulate adds the gradient with one rounding", "[accumulate]") {
  for (const double size : {1e-3, 0.1, 100.0}) {
    adds_once<double, double>(size);
    adds_once<float, float>(size);
    adds_once<sara::bf16, float>(size);
    adds_once<sara::bf16, sara::bf16>(size);
    adds_once<sara::fp16, float>(size);
    adds_once<sara::fp16, sara::fp16>(size);
  }
}

TEST_CASE("accumulate leaves what has no weight bit for bit, even NaN", "[accumulate]") {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  auto in = oracle::plain_problem(2, 3, 4, 6, 10);
  in.token_weights.assign(in.tokens, 1);
  in.token_weights[1] = in.token_weights[13] = 0;
  in.sequence_weights = {1, 1, 0, 1};
  in.layer_weights = {1, 0, 1};
  in.anchor_rows = {0, 1, 2, -1};
  oracle::poison_what_has_no_weight(in);
  auto buffer = oracle::source(2).normals(in.logits.size());
  for (std::size_t i = 0; i < buffer.size(); ++i)
    if (std::isnan(in.logits[i])) buffer[i] = i % 2 ? nan : -0.0;
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const oracle::posing how{.mode = sara::gradient_mode::accumulate, .buffer = buffer};
    const oracle::arguments<float> given(in, how);
    oracle::answers<float> before(in, how), got(in, how);
    sara::js_routing_into(exec, given.inputs(), got.outputs(), {.mode = how.mode});
    const auto was = before.grad.values(), is = got.grad.values();
    std::size_t untouched = 0;
    for (std::size_t i = 0; i < buffer.size(); ++i)
      if (std::isnan(in.logits[i])) {
        CHECK(oracle::same_bits(&is[i], &was[i], 1));
        ++untouched;
      } else {
        CHECK(std::isfinite(is[i]));
      }
    CHECK(untouched > buffer.size() / 2);
  });
}

TEST_CASE("accumulate with a scale of 0 does not touch the buffer", "[accumulate]") {
  const auto in = oracle::plain_problem(3, 2, 2, 9, 12);
  std::vector<double> buffer(in.logits.size(), -0.0);   // adding a zero would make it +0
  buffer[5] = std::numeric_limits<double>::quiet_NaN();
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const oracle::posing how{.mode = sara::gradient_mode::accumulate, .buffer = buffer};
    const oracle::arguments<float> given(in, how);
    oracle::answers<float> before(in, how), got(in, how);
    sara::js_routing_into(exec, given.inputs(), got.outputs(), {.scale = 0, .mode = how.mode});
    CHECK(oracle::same_bits(got.grad.memory(), before.grad.memory()));
    CHECK(got.loss[0] == 0);
  });
}

TEST_CASE("two calls that accumulate give the sum of both", "[accumulate]") {
  const auto in = oracle::plain_problem(4, 1, 2, 30, 16), other = oracle::plain_problem(5, 1, 2, 30, 16);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto first = oracle::evaluate<double>(exec, in);
    const auto both = oracle::evaluate<double>(exec, other, {.mode = sara::gradient_mode::accumulate, .buffer = first.grad});
    auto want = oracle::solve(other).grad;
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += first.grad[i];
    CHECK(oracle::relative_error(both.grad, want) <= 1e-14);
  });
}
