// The hard histogram, of chosen experts: sums, means, counts, and the gradient to the weights.
#include <sara/routing_histogram.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;
using sara::gradient_mode;

constexpr std::size_t layers = 2;

struct question {
  oracle::token_batch batch;
  std::size_t experts, k;
  std::vector<std::int64_t> indices;                  // [layers, tokens, k]
  std::vector<double> weights, token_weights, grad;   // [layers, tokens, k], [tokens], [layers, sequences, experts]

  template <class W> static question make(const oracle::token_batch& batch, std::size_t experts, std::size_t k, bool masked, W) {
    using A = sara::arithmetic_t<W>;
    oracle::source from(experts + batch.tokens + k);
    question q{batch,
               experts,
               k,
               std::vector<std::int64_t>(layers * batch.tokens * k),
               from.uniforms(layers * batch.tokens * k, 0, 1),
               {},
               from.normals(layers * batch.sequences() * experts)};
    for (auto& e : q.indices)
      e = from.chance(0.1)   ? -1
          : from.chance(0.1) ? static_cast<std::int64_t>(experts + from.below(3))
                             : static_cast<std::int64_t>(from.below(experts));
    q.weights = oracle::rounded_to<W>(q.weights);
    q.grad = oracle::rounded_to<A>(q.grad);
    if (masked) {
      q.token_weights = oracle::rounded_to<A>(from.uniforms(batch.tokens, 0.25, 2));
      for (double& w : q.token_weights) w = from.chance(0.3) ? 0 : w;
      for (std::size_t i = 0; i < q.weights.size(); ++i)
        if (q.token_weights[i / k % batch.tokens] == 0) q.weights[i] = NAN;   // never read
    }
    return q;
  }
  oracle::hard_histogram_sums<double> answer(std::size_t l, std::size_t s, bool weighted) const {
    const std::size_t at = l * batch.tokens * k;
    const std::vector<double> of_layer(weights.begin() + static_cast<std::ptrdiff_t>(at),
                                       weights.begin() + static_cast<std::ptrdiff_t>(at + batch.tokens * k));
    return oracle::hard_histogram(indices.data() + at, k, experts, batch.rows[s], token_weights,
                                  weighted ? of_layer : std::vector<double>{});
  }
};

template <class W, class I> void against_the_oracle() {
  using A = sara::arithmetic_t<W>;
  const double tolerance = std::is_same_v<A, double> ? 1e-14 : 1e-6;
  for (const auto& batch : oracle::token_batches())
    for (const std::size_t experts : {std::size_t{1}, std::size_t{5}, std::size_t{64}, std::size_t{129}})
      for (const std::size_t k : {std::size_t{1}, std::size_t{3}, std::size_t{8}})
        for (int options = 0; options < 4; ++options) {
          const bool masked = options & 1, weighted = options & 2;
          const question q = question::make(batch, experts, k, masked, W{});
          std::vector<double> sums, means, mass;
          std::vector<std::int64_t> counts;
          for (std::size_t l = 0; l < layers; ++l)
            for (std::size_t s = 0; s < batch.sequences(); ++s) {
              const auto h = q.answer(l, s, weighted);
              sums.insert(sums.end(), h.sums.begin(), h.sums.end());
              counts.insert(counts.end(), h.counts.begin(), h.counts.end());
              for (const double x : h.sums) means.push_back(h.mass == 0 ? 0 : x / h.mass);
              if (l == 0) mass.push_back(h.mass);
            }
          for_each_executor([&](const auto& exec, const char* name) {
            for (const auto& place : {oracle::apart, oracle::in_a_list}) {
              INFO(name << ", " << batch.name << ", experts " << experts << ", k " << k << ", token weights " << masked << ", weights "
                        << weighted << ", list " << place.list);
              block<I> indices(layers, batch.tokens, k, place, std::vector<double>(q.indices.begin(), q.indices.end()));
              block<W> weights(layers, batch.tokens, k, place, q.weights);
              block<A> got_sums(layers, batch.sequences(), experts, place), got_means(layers, batch.sequences(), experts, place);
              block<std::int64_t> got_counts(layers, batch.sequences(), experts, place);
              const auto token_weights = oracle::as_storage<A>(q.token_weights);
              std::vector<A> got_mass(batch.sequences(), NAN);
              sara::hard_routing_histogram_inputs<W, I> in{.indices = indices.view(),
                                                           .experts = static_cast<sara::index_t>(experts),
                                                           .sequences = batch.view,
                                                           .token_weights = token_weights};
              if (weighted) in.weights = weights.view();
              sara::hard_routing_histogram_into(
                  exec, in, {.histograms = got_means.view(), .sums = got_sums.view(), .token_mass = got_mass, .counts = got_counts.view()});
              CHECK(oracle::relative_error(got_sums.values(), sums) <= tolerance);
              CHECK(oracle::relative_error(got_means.values(), means) <= tolerance);
              CHECK(oracle::relative_error(got_mass, mass) <= tolerance);
              CHECK(got_counts.values() == counts);
              CHECK(got_means.padding_is_untouched());
            }
          });
        }
}

}   // namespace

TEMPLATE_TEST_CASE("hard_routing_histogram: sums, means, mass and counts of every layout", "[routing_histogram]", double, float, sara::bf16,
                   sara::fp16) {
  against_the_oracle<TestType, std::int32_t>();
}
TEMPLATE_TEST_CASE("hard_routing_histogram: index types", "[routing_histogram]", std::int16_t, std::int64_t) {
  against_the_oracle<float, TestType>();
}

TEST_CASE("hard_routing_histogram: a token that lists an expert twice counts twice; huge indices are not routed", "[routing_histogram]") {
  const std::vector<std::int64_t> indices{2, 2, 0, -1, std::int64_t{1} << 40, std::numeric_limits<std::int64_t>::min()};
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    std::vector<double> sums(3, NAN);
    std::vector<std::int64_t> counts(3, -1);
    sara::hard_routing_histogram_into(
        exec,
        sara::hard_routing_histogram_inputs<double, std::int64_t>{
            .indices = sara::matrix_view{indices.data(), 3, 2}, .experts = 3, .sequences = sara::sequences_view::uniform(1, 3)},
        {.sums = sara::matrix_view{sums.data(), 1, 3}, .counts = sara::matrix_view{counts.data(), 1, 3}});
    CHECK(counts == std::vector<std::int64_t>{1, 0, 2});
    CHECK(sums == std::vector<double>{1, 0, 2});
  });
}

TEMPLATE_TEST_CASE("hard_routing_histogram_backward: token weight / mass times the chosen expert's gradient", "[routing_histogram]", double,
                   float, sara::bf16, sara::fp16) {
  using A = sara::arithmetic_t<TestType>;
  for (const auto& batch : oracle::token_batches())
    for (const bool masked : {false, true}) {
      constexpr std::size_t experts = 9, k = 3;
      const question q = question::make(batch, experts, k, masked, TestType{});
      oracle::source from(2);
      std::vector<double> mass;
      if (masked) mass = oracle::rounded_to<A>(from.uniforms(batch.sequences(), 5, 9));
      const auto before = oracle::rounded_to<TestType>(from.normals(q.weights.size()));
      std::vector<double> want(q.weights.size(), 0);
      for (std::size_t l = 0; l < layers; ++l)
        for (std::size_t s = 0; s < batch.sequences(); ++s)
          for (const std::size_t t : batch.rows[s])
            for (std::size_t i = 0; i < k; ++i) {
              const std::size_t at = (l * batch.tokens + t) * k + i;
              const std::int64_t e = q.indices[at];
              const double n = masked ? mass[s] : static_cast<double>(batch.rows[s].size());
              if (e >= 0 && e < static_cast<std::int64_t>(experts))
                want[at] = 1.5 * (masked ? q.token_weights[t] : 1) / n *
                           q.grad[(l * batch.sequences() + s) * experts + static_cast<std::size_t>(e)];
            }
      for_each_executor([&](const auto& exec, const char* name) {
        INFO(name << ", " << batch.name << ", masked " << masked);
        block<std::int32_t> indices(layers, batch.tokens, k, oracle::apart, std::vector<double>(q.indices.begin(), q.indices.end()));
        block<A> grad(layers, batch.sequences(), experts, oracle::apart, q.grad);
        block<TestType> out(layers, batch.tokens, k, oracle::in_a_list), sum(layers, batch.tokens, k, oracle::apart, before);
        const auto token_weights = oracle::as_storage<A>(q.token_weights), n = oracle::as_storage<A>(mass);
        const sara::hard_routing_histogram_backward_inputs<TestType> in{.indices = indices.view(),
                                                                        .sequences = batch.view,
                                                                        .token_weights = token_weights,
                                                                        .token_mass = n,
                                                                        .grad_histograms = grad.view()};
        sara::hard_routing_histogram_backward_into(exec, in, {.grad_weights = out.view()}, {.scale = 1.5});
        CHECK(oracle::relative_error(out.values(), want) <= oracle::tolerance<TestType>(1e-6, 1e-15));
        CHECK(out.padding_is_untouched());
        sara::hard_routing_histogram_backward_into(exec, in, {.grad_weights = sum.view()},
                                                   {.scale = 1.5, .mode = gradient_mode::accumulate});
        const auto got = oracle::as_doubles(sum.values());
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < want.size(); ++i)
          wrong += !(std::abs(got[i] - before[i] - want[i]) <=
                     0.5 * oracle::unit_of<TestType>(before[i] + want[i]) + (std::is_same_v<A, double> ? 1e-15 : 1e-6) * std::abs(want[i]));
        CHECK(wrong == 0);
      });
    }
}

TEST_CASE("hard_routing_histogram_backward: central differences of the forward", "[routing_histogram]") {
  const question q = question::make(oracle::token_batches()[4], 5, 2, false, double{});
  const auto& batch = q.batch;
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    block<std::int32_t> indices(layers, batch.tokens, q.k, {}, std::vector<double>(q.indices.begin(), q.indices.end()));
    std::vector<double> h(layers * batch.sequences() * q.experts), grad(q.weights.size());
    const auto f = [&](const std::vector<double>& w) {
      sara::hard_routing_histogram_into(
          exec,
          sara::hard_routing_histogram_inputs<double>{.indices = indices.view(),
                                                      .experts = static_cast<sara::index_t>(q.experts),
                                                      .sequences = batch.view,
                                                      .weights = sara::layers_view<const double>{w.data(), layers, batch.tokens, q.k}},
          {.histograms = sara::layers_view<double>{h.data(), layers, batch.sequences(), q.experts}});
      double sum = 0;
      for (std::size_t i = 0; i < h.size(); ++i) sum += h[i] * q.grad[i];
      return sum;
    };
    const auto want = oracle::central_differences(f, q.weights);
    sara::hard_routing_histogram_backward_into(
        exec,
        sara::hard_routing_histogram_backward_inputs<double>{
            .indices = indices.view(),
            .sequences = batch.view,
            .grad_histograms = sara::layers_view<const double>{q.grad.data(), layers, batch.sequences(), q.experts}},
        {.grad_weights = sara::layers_view<double>{grad.data(), layers, batch.tokens, q.k}});
    CHECK(oracle::relative_error(grad, want) <= 1e-10);
  });
}
