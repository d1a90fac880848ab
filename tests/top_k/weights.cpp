// The weights of the chosen: gathered, renormalised, scaled; and their gradient.
#include <sara/top_k.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;
using sara::gradient_mode;

struct question {
  std::size_t tokens = 7, experts, k;
  std::vector<double> scores, values;

  question(unsigned seed, std::size_t e, std::size_t chosen) : experts(e), k(chosen) {
    oracle::source from(seed);
    scores = oracle::rounded_to<sara::bf16>(from.normals(tokens * e));   // the same choice in every storage
    values = from.uniforms(tokens * e, 0.01, 1);
  }
  std::vector<std::int64_t> chosen(std::size_t t) const { return oracle::top_k(scores.data() + t * experts, experts, k); }
};

template <class T, class V> void gather_and_compare() {
  using A = sara::arithmetic_t<T>;
  for (const std::size_t experts : {std::size_t{1}, std::size_t{3}, std::size_t{8}, std::size_t{60}, std::size_t{64}, std::size_t{129}})
    for (const std::size_t k : {std::size_t{1}, std::size_t{2}, std::size_t{8}, experts}) {
      if (k > experts) continue;
      question q(static_cast<unsigned>(experts + k), experts, k);
      q.values = oracle::rounded_to<V>(q.values);
      for_each_executor([&](const auto& exec, const char* name) {
        for (const bool renormalize : {false, true})
          for (const double scale : {1.0, 2.5})
            for (const bool biased : {false, true}) {   // weights from values, or from the scores themselves
              INFO(name << ", experts " << experts << ", k " << k << ", renormalize " << renormalize << ", scale " << scale << ", values "
                        << biased);
              auto scores = q.scores;
              if (renormalize && !biased)
                for (double& s : scores) s = std::abs(s) + 0.25;
              scores = oracle::rounded_to<T>(scores);
              block<T> s(1, q.tokens, experts, oracle::apart, scores);
              block<V> v(1, q.tokens, experts, oracle::apart, q.values);
              block<A> w(1, q.tokens, k, oracle::apart), alone(1, q.tokens, k);
              block<std::int32_t> indices(1, q.tokens, k);
              sara::top_k_inputs<T, V> in{.scores = s.matrix()};
              if (biased) in.values = v.matrix();
              const sara::top_k_options options{.renormalize = renormalize, .scale = scale};
              sara::top_k_into(exec, in, sara::top_k_outputs<T>{.indices = indices.matrix(), .weights = w.matrix()}, options);
              sara::top_k_into(exec, in, sara::top_k_outputs<T>{.weights = alone.matrix()}, options);
              CHECK(oracle::same_bits(w.values(), alone.values()));
              CHECK(w.padding_is_untouched());
              std::vector<double> want;
              for (std::size_t t = 0; t < q.tokens; ++t)
                for (const double x : oracle::top_k_weights((biased ? q.values : scores).data() + t * experts,
                                                            oracle::top_k(scores.data() + t * experts, experts, k), renormalize, scale))
                  want.push_back(x);
              const double error = oracle::relative_error(w.values(), want);
              CHECK(error <= (!renormalize && scale == 1  ? (std::is_same_v<V, double> && !std::is_same_v<A, double> ? 1e-7 : 0)
                              : std::is_same_v<A, double> ? 1e-15
                                                          : 5e-7));
            }
      });
    }
}

}   // namespace

TEMPLATE_TEST_CASE("top_k: weights are the values at the indices, renormalised and scaled if asked", "[top_k]", double, float, sara::bf16,
                   sara::fp16) {
  gather_and_compare<TestType, TestType>();
}
TEST_CASE("top_k: values of another storage than the scores'", "[top_k]") {
  gather_and_compare<sara::bf16, float>();
  gather_and_compare<float, sara::fp16>();
}

TEST_CASE("top_k: a sum of 0 leaves renormalised weights 0", "[top_k]") {
  const std::vector<float> scores{3, 2, 1, 0}, values{0, 0, 1, 1};
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    std::vector<float> weights(2, NAN), grad(4, NAN);
    std::vector<std::int32_t> chosen(2);
    sara::top_k_into(
        exec, sara::top_k_inputs<float>{.scores = sara::matrix_view{scores.data(), 1, 4}, .values = sara::matrix_view{values.data(), 1, 4}},
        {.indices = sara::matrix_view{chosen.data(), 1, 2}, .weights = sara::matrix_view{weights.data(), 1, 2}}, {.renormalize = true});
    CHECK(weights == std::vector<float>{0, 0});
    const std::vector<float> grad_weights{1, 2};
    sara::top_k_backward_into(exec,
                              sara::top_k_backward_inputs<float>{.indices = sara::matrix_view{chosen.data(), 1, 2},
                                                                 .grad_weights = sara::matrix_view{grad_weights.data(), 1, 2},
                                                                 .values = sara::matrix_view{values.data(), 1, 4}},
                              {.grad_values = sara::matrix_view{grad.data(), 1, 4}}, {.renormalize = true});
    CHECK(grad == std::vector<float>(4, 0));
  });
}

TEST_CASE("top_k: equal weights that are added up one after the other are not all rounded alike", "[top_k]") {
  constexpr int k = 64;
  const std::vector<float> values(k, 0.1f);
  std::vector<float> weights(k), grad_weights(k, 0.f), grad(k);
  std::vector<std::int32_t> chosen(k);
  const sara::cpu_executor cpu;
  sara::top_k_into(cpu, sara::top_k_inputs<float>{.scores = sara::matrix_view{values.data(), 1, k}},
                   {.indices = sara::matrix_view{chosen.data(), 1, k}, .weights = sara::matrix_view{weights.data(), 1, k}},
                   {.renormalize = true});
  CHECK(weights == std::vector<float>(k, 1.f / k));

  grad_weights[3] = 1;   // of the weight of expert 3, as the lower index comes first
  sara::top_k_backward_into(cpu,
                            sara::top_k_backward_inputs<float>{.indices = sara::matrix_view<const std::int32_t>{chosen.data(), 1, k},
                                                               .grad_weights = sara::matrix_view<const float>{grad_weights.data(), 1, k},
                                                               .values = sara::matrix_view<const float>{values.data(), 1, k}},
                            {.grad_values = sara::matrix_view{grad.data(), 1, k}}, {.renormalize = true});
  const double sum = k * static_cast<double>(0.1f);
  for (int e = 0; e < k; ++e) {
    const double want = ((e == 3) - 1. / k) / sum;
    CHECK(std::abs(static_cast<double>(grad[static_cast<std::size_t>(e)]) - want) <= 6e-8 * std::abs(want));
  }
}

TEMPLATE_TEST_CASE("top_k_backward: the formula, both modes, indices that are not routed", "[top_k]", double, float, sara::bf16,
                   sara::fp16) {
  using A = sara::arithmetic_t<TestType>;
  for (const std::size_t experts : {std::size_t{1}, std::size_t{3}, std::size_t{64}, std::size_t{129}})
    for (const std::size_t k : {std::size_t{1}, std::size_t{2}, std::size_t{8}}) {
      if (k > experts) continue;
      question q(static_cast<unsigned>(40 + experts + k), experts, k);
      q.values = oracle::rounded_to<TestType>(q.values);
      oracle::source from(41);
      const auto grad_weights = oracle::rounded_to<A>(from.normals(q.tokens * k));
      const auto before = oracle::rounded_to<TestType>(from.normals(q.tokens * experts));
      std::vector<std::int64_t> indices;
      for (std::size_t t = 0; t < q.tokens; ++t)
        for (const std::int64_t e : q.chosen(t))
          indices.push_back(t == 2 && indices.size() % 2 ? -1 : t == 4 ? e + static_cast<std::int64_t>(experts / 2) : e);
      for (const bool renormalize : {false, true}) {
        std::vector<double> want;
        for (std::size_t t = 0; t < q.tokens; ++t)
          for (const double x : oracle::top_k_backward(
                   q.values.data() + t * experts, experts,
                   {indices.begin() + static_cast<std::ptrdiff_t>(t * k), indices.begin() + static_cast<std::ptrdiff_t>((t + 1) * k)},
                   grad_weights.data() + t * k, renormalize, 2.5))
            want.push_back(x);
        for_each_executor([&](const auto& exec, const char* name) {
          INFO(name << ", experts " << experts << ", k " << k << ", renormalize " << renormalize);
          block<std::int64_t> i(1, q.tokens, k, oracle::apart, std::vector<double>(indices.begin(), indices.end()));
          block<A> gw(1, q.tokens, k, oracle::apart, grad_weights);
          block<TestType> v(1, q.tokens, experts, oracle::apart, q.values), out(1, q.tokens, experts, oracle::apart),
              sum(1, q.tokens, experts, oracle::apart, before);
          sara::top_k_backward_inputs<TestType, std::int64_t> in{.indices = i.matrix(), .grad_weights = gw.matrix()};
          if (renormalize) in.values = v.matrix();
          sara::top_k_backward_into(exec, in, {.grad_values = out.matrix()}, {.renormalize = renormalize, .scale = 2.5});
          const bool nothing = renormalize && k == 1;   // a weight of 1, whatever the value
          if (nothing)
            CHECK(oracle::largest(oracle::as_doubles(out.values())) <= (std::is_same_v<A, double> ? 1e-12 : 1e-3));
          else
            CHECK(oracle::relative_error(out.values(), want) <= oracle::tolerance<TestType>(4e-6, 1e-14));
          CHECK(out.padding_is_untouched());
          sara::top_k_backward_into(exec, in, {.grad_values = sum.matrix()},
                                    {.renormalize = renormalize, .scale = 2.5, .mode = gradient_mode::accumulate});
          const auto got = oracle::as_doubles(sum.values());
          std::size_t wrong = 0;
          for (std::size_t n = 0; n < want.size(); ++n)
            wrong +=
                want[n] == 0
                    ? got[n] != before[n] && !nothing
                    : !(std::abs(got[n] - before[n] - want[n]) <= 0.5 * oracle::unit_of<TestType>(before[n] + want[n]) +
                                                                      (std::is_same_v<A, double> ? 1e-14 : 4e-6) * oracle::largest(want));
          CHECK(wrong == 0);
        });
      }
    }
}

TEST_CASE("top_k_backward: central differences of the forward, inside a cell of the choice", "[top_k]") {
  oracle::source from(51);
  constexpr std::size_t experts = 9, tokens = 3, k = 4;
  const auto scores = from.normals(tokens * experts), values = from.uniforms(tokens * experts, 0.1, 1), g = from.normals(tokens * k);
  for_each_executor([&](const auto& exec, const char* name) {
    for (const bool renormalize : {false, true}) {
      INFO(name << ", renormalize " << renormalize);
      std::vector<double> weights(tokens * k), grad(tokens * experts, NAN);
      std::vector<std::int32_t> chosen(tokens * k);
      const auto f = [&](const std::vector<double>& v) {
        sara::top_k_into(exec,
                         sara::top_k_inputs<double>{.scores = sara::matrix_view{scores.data(), tokens, experts},
                                                    .values = sara::matrix_view{v.data(), tokens, experts}},
                         {.indices = sara::matrix_view{chosen.data(), tokens, k}, .weights = sara::matrix_view{weights.data(), tokens, k}},
                         {.renormalize = renormalize, .scale = 16});
        double sum = 0;
        for (std::size_t i = 0; i < g.size(); ++i) sum += g[i] * weights[i];
        return sum;
      };
      const auto want = oracle::central_differences(f, values);
      sara::top_k_backward_into(exec,
                                sara::top_k_backward_inputs<double>{.indices = sara::matrix_view{chosen.data(), tokens, k},
                                                                    .grad_weights = sara::matrix_view{g.data(), tokens, k},
                                                                    .values = sara::matrix_view{values.data(), tokens, experts}},
                                {.grad_values = sara::matrix_view{grad.data(), tokens, experts}},
                                {.renormalize = renormalize, .scale = 16});
      CHECK(oracle::relative_error(grad, want) <= 1e-9);
      for (const double factor : {0.0, 2.0, -1.0}) {
        auto wrong = grad;
        for (double& x : wrong) x *= factor;
        CHECK(oracle::relative_error(wrong, want) > 0.5);
      }
    }
  });
}
