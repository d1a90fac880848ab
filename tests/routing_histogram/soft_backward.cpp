// The soft histogram's gradient: the formula over layouts, weights, layers and modes; central differences; reduced mass.
#include <sara/routing_histogram.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;
using sara::gradient_mode;

constexpr std::size_t layers = 2;

// token weight / mass * scale * p (g - sum p g), 0 where there is no weight, no mass or no sequence.
std::vector<double> formula(const oracle::token_batch& batch, const std::vector<double>& logits, const std::vector<double>& weights,
                            const std::vector<double>& mass, const std::vector<double>& grad, std::size_t experts, double scale) {
  std::vector<double> out(logits.size(), 0);
  for (std::size_t l = 0; l < layers; ++l)
    for (std::size_t s = 0; s < batch.sequences(); ++s) {
      double n = 0;
      for (const std::size_t t : batch.rows[s]) n += weights.empty() ? 1 : weights[t];
      if (!mass.empty()) n = mass[s];
      for (const std::size_t t : batch.rows[s]) {
        const double w = weights.empty() ? 1 : weights[t];
        if (w == 0 || n == 0) continue;
        const std::size_t at = (l * batch.tokens + t) * experts;
        const auto p = oracle::softmax(logits.data() + at, experts);
        const auto g = oracle::softmax_backward(p.data(), grad.data() + (l * batch.sequences() + s) * experts, experts);
        for (std::size_t e = 0; e < experts; ++e) out[at + e] = experts == 1 ? 0 : scale * w / n * g[e];
      }
    }
  return out;
}

template <class T, class G> void against_the_formula() {
  using A = sara::arithmetic_t<T>;
  for (const auto& batch : oracle::token_batches())
    for (const std::size_t experts : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{33}, std::size_t{64}, std::size_t{129}})
      for (const bool weighted : {false, true}) {
        oracle::source from(experts + batch.tokens);
        auto logits = oracle::rounded_to<T>(from.normals(layers * batch.tokens * experts, 2));
        const auto grad = oracle::rounded_to<A>(from.normals(layers * batch.sequences() * experts));
        std::vector<double> weights, mass;
        if (weighted) {
          weights = oracle::rounded_to<A>(from.uniforms(batch.tokens, 0.25, 2));
          for (double& w : weights) w = from.chance(0.3) ? 0 : w;
          mass = oracle::rounded_to<A>(from.uniforms(batch.sequences(), 10, 20));
          if (mass.size() > 2) mass[2] = 0;
        }
        const auto before = oracle::rounded_to<G>(from.normals(logits.size(), 0.1));
        std::vector<bool> read(batch.tokens, false);
        for (std::size_t s = 0; s < batch.sequences(); ++s)
          for (const std::size_t t : batch.rows[s]) read[t] = !weighted || (weights[t] != 0 && mass[s] != 0);
        for (std::size_t i = 0; i < logits.size(); ++i)
          if (!read[i / experts % batch.tokens]) logits[i] = NAN;
        const auto want = formula(batch, logits, weights, mass, grad, experts, -1.5);
        for_each_executor([&](const auto& exec, const char* name) {
          for (const auto& place : {oracle::apart, oracle::in_a_list}) {
            INFO(name << ", " << batch.name << ", experts " << experts << ", weights " << weighted << ", list " << place.list);
            block<T> z(layers, batch.tokens, experts, place, logits);
            block<A> g(layers, batch.sequences(), experts, place, grad);
            block<G> out(layers, batch.tokens, experts, place), sum(layers, batch.tokens, experts, place, before);
            const auto w = oracle::as_storage<A>(weights), n = oracle::as_storage<A>(mass);
            const sara::routing_histogram_backward_inputs<T> in{
                .logits = z.view(), .sequences = batch.view, .token_weights = w, .token_mass = n, .grad_histograms = g.view()};
            sara::routing_histogram_backward_into(exec, in, sara::routing_histogram_backward_outputs<T, G>{.grad_logits = out.view()},
                                                  {.scale = -1.5});
            CHECK(oracle::relative_error(out.values(), want) <= oracle::tolerance<G>(2e-6, 1e-14));
            CHECK(out.padding_is_untouched());
            sara::routing_histogram_backward_into(exec, in, sara::routing_histogram_backward_outputs<T, G>{.grad_logits = sum.view()},
                                                  {.scale = -1.5, .mode = gradient_mode::accumulate});
            const auto got = oracle::as_doubles(sum.values());
            const double slack = (std::is_same_v<G, double> ? 1e-14 : 2e-6) * oracle::largest(want);
            std::size_t wrong = 0;
            for (std::size_t i = 0; i < want.size(); ++i)
              wrong += !(std::abs(got[i] - before[i] - want[i]) <=
                         (read[i / experts % batch.tokens] ? 0.5 * oracle::unit_of<G>(before[i] + want[i]) + slack : 0));
            CHECK(wrong == 0);
            CHECK(sum.padding_is_untouched());
          }
        });
      }
}

}   // namespace

TEMPLATE_TEST_CASE("routing_histogram_backward: the formula, every layout, both modes", "[routing_histogram][precision]", double, float,
                   sara::bf16, sara::fp16) {
  against_the_formula<TestType, TestType>();
}
TEMPLATE_TEST_CASE("routing_histogram_backward: 16-bit logits, fp32 gradient", "[routing_histogram]", sara::bf16, sara::fp16) {
  against_the_formula<TestType, float>();
}

TEST_CASE("routing_histogram_backward: central differences of the forward", "[routing_histogram][precision]") {
  oracle::source from(31);
  constexpr std::size_t experts = 5, tokens = 6;
  const auto logits = from.normals(layers * tokens * experts), weights = from.uniforms(tokens, 0, 2),
             g = from.normals(layers * 2 * experts);
  const auto sequences = sara::sequences_view::interleaved(3, 2);
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    std::vector<double> h(layers * 2 * experts), grad(logits.size(), NAN);
    const auto f = [&](const std::vector<double>& z) {
      sara::routing_histogram_into(
          exec,
          sara::routing_histogram_inputs<double>{.logits = sara::layers_view<const double>{z.data(), layers, tokens, experts},
                                                 .sequences = sequences,
                                                 .token_weights = weights},
          {.histograms = sara::layers_view<double>{h.data(), layers, 2, experts}});
      double sum = 0;
      for (std::size_t i = 0; i < h.size(); ++i) sum += h[i] * g[i];
      return sum;
    };
    const auto want = oracle::central_differences(f, logits);
    sara::routing_histogram_backward_into(
        exec,
        sara::routing_histogram_backward_inputs<double>{.logits = sara::layers_view<const double>{logits.data(), layers, tokens, experts},
                                                        .sequences = sequences,
                                                        .token_weights = weights,
                                                        .grad_histograms = sara::layers_view<const double>{g.data(), layers, 2, experts}},
        {.grad_logits = sara::layers_view<double>{grad.data(), layers, tokens, experts}});
    CHECK(oracle::relative_error(grad, want) <= 1e-9);
    for (const double factor : {0.0, 2.0, -1.0}) {   // what must not pass
      auto wrong = grad;
      for (double& x : wrong) x *= factor;
      CHECK(oracle::relative_error(wrong, want) > 0.5);
    }
  });
}

// Where one expert takes nearly all of a row, its slope and the mean of the slopes cancel but for the least digits.
TEMPLATE_TEST_CASE("routing_histogram_backward: rows that one expert nearly takes, and slopes far from 0, cost no digits",
                   "[routing_histogram][precision]", double, float) {
  for (const std::size_t experts :
       {std::size_t{8}, std::size_t{16}, std::size_t{60}, std::size_t{128}, std::size_t{385}, std::size_t{1025}})
    for (const double far : {0.0, 1.0, 100.0, -100.0})
      for (const double height : {0.0, 4.0, 12.0}) {   // of one of a token's logits
        constexpr std::size_t tokens = 30;
        oracle::source from(35);
        auto logits = from.normals(tokens * experts), slopes = from.normals(experts);
        const auto top = [&](std::size_t t) { return 7 * t % experts; };
        for (std::size_t t = 0; t < tokens; ++t) logits[t * experts + top(t)] += height;
        for (double& slope : slopes) slope += far;
        logits = oracle::rounded_to<TestType>(logits);
        slopes = oracle::rounded_to<TestType>(slopes);
        std::vector<double> want;
        for (std::size_t t = 0; t < tokens; ++t) {
          auto less = slopes;   // one of them, which changes no gradient
          for (double& slope : less) slope -= slopes[top(t)];
          const auto p = oracle::softmax(logits.data() + t * experts, experts);
          for (const double g : oracle::softmax_backward(p.data(), less.data(), experts)) want.push_back(g / tokens);
        }
        block<TestType> z(1, tokens, experts, {}, logits), grad(1, 1, experts, {}, slopes), out(1, tokens, experts);
        const sara::routing_histogram_backward_inputs<TestType> in{
            .logits = z.view(), .sequences = sara::sequences_view::uniform(1, tokens), .grad_histograms = grad.view()};
        const auto costs_no_digits = [&](const auto& exec, const char* name) {
          sara::routing_histogram_backward_into(exec, in, {.grad_logits = out.view()});
          INFO(name << ", experts " << experts << ", slopes about " << far << ", height " << height);
          const std::vector<double> got = oracle::as_doubles(out.values());
          CHECK(oracle::relative_error(got, want) <= oracle::tolerance<TestType>(1e-6, 2e-14));
          for (std::size_t t = 0; t < tokens; ++t) {   // each by its own largest
            INFO("token " << t);
            const auto row = [&](const std::vector<double>& of) {
              return std::vector<double>(&of[t * experts], &of[t * experts] + experts);
            };
            CHECK(oracle::relative_error(row(got), row(want)) <= oracle::tolerance<TestType>(4e-6, 4e-14));
          }
        };
        oracle::for_each_instruction_set(costs_no_digits);
        oracle::for_the_device(costs_no_digits);
      }
}

TEMPLATE_TEST_CASE("routing_histogram_backward: exactly in place of the logits; a scale of 0", "[routing_histogram]", double, float,
                   sara::bf16) {
  for (const std::size_t experts : {std::size_t{1}, std::size_t{3}, std::size_t{33}, std::size_t{64}, std::size_t{385}}) {
    oracle::source from(33);
    const auto logits = from.normals(layers * 8 * experts, 2), g = from.normals(layers * 2 * experts);
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      block<TestType> z(layers, 8, experts, oracle::apart, logits), out(layers, 8, experts, oracle::apart), untouched(layers, 8, experts);
      block<sara::arithmetic_t<TestType>> grad(layers, 2, experts, {}, g);
      const sara::routing_histogram_backward_inputs<TestType> in{
          .logits = z.view(), .sequences = sara::sequences_view::uniform(2, 4), .grad_histograms = grad.view()};
      sara::routing_histogram_backward_into(exec, in, {.grad_logits = untouched.view()}, {.scale = 0, .mode = gradient_mode::accumulate});
      CHECK(oracle::same_bits(untouched.memory(), block<TestType>(layers, 8, experts).memory()));
      sara::routing_histogram_backward_into(exec, in, {.grad_logits = out.view()});
      sara::routing_histogram_backward_into(exec, in, {.grad_logits = z.view()});
      CHECK(oracle::same_bits(z.values(), out.values()));
    });
  }
}
