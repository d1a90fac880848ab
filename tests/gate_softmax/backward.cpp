// gate_softmax_backward against its formula and against central differences of the forward; both modes, scale, in place.
#include <sara/gate_softmax.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;
using sara::gradient_mode;

struct question {
  std::size_t tokens, experts;
  std::vector<double> probs, grad_probs, grad_lse;

  question(unsigned seed, std::size_t t, std::size_t e) : tokens(t), experts(e) {
    oracle::source from(seed);
    probs = oracle::distributions(from, t, e, 2);
    grad_probs = from.normals(t * e);
    grad_lse = from.normals(t);
  }

  template <class P> void round() {
    probs = oracle::rounded_to<P>(probs);
    grad_probs = oracle::rounded_to<P>(grad_probs);
    grad_lse = oracle::rounded_to<sara::arithmetic_t<P>>(grad_lse);
  }

  std::vector<double> answer(bool of_probs, bool of_lse, double scale) const {
    std::vector<double> all;
    const std::vector<double> none(experts, 0);
    for (std::size_t t = 0; t < tokens; ++t)
      for (const double g : oracle::softmax_backward(probs.data() + t * experts, of_probs ? grad_probs.data() + t * experts : none.data(),
                                                     experts, of_lse ? grad_lse[t] : 0))
        all.push_back(scale * g);
    return all;
  }
};

template <class P, class G> void against_the_formula() {
  unsigned seed = 0;
  std::vector<std::size_t> counts(std::begin(oracle::expert_counts), std::end(oracle::expert_counts));
  counts.push_back(1025);
  for (const std::size_t experts : counts) {
    question q(++seed, 9, experts);
    q.round<P>();
    for_each_executor([&](const auto& exec, const char* name) {
      for (int which = 1; which <= 3; ++which) {
        const bool of_probs = which & 1, of_lse = which & 2;
        INFO(name << ", experts " << experts << (of_probs ? ", of probs" : "") << (of_lse ? ", of log_sum_exp" : ""));
        block<P> p(1, q.tokens, experts, oracle::apart, q.probs), g(1, q.tokens, experts, oracle::apart, q.grad_probs);
        const auto lse = oracle::as_storage<sara::arithmetic_t<P>>(q.grad_lse);
        block<G> out(1, q.tokens, experts, oracle::apart);   // NaN: overwrite never reads it
        sara::gate_softmax_backward_inputs<P> in{.probs = p.matrix()};
        if (of_probs) in.grad_probs = g.matrix();
        if (of_lse) in.grad_log_sum_exp = lse;
        sara::gate_softmax_backward_into(exec, in, sara::gate_softmax_backward_outputs<P, G>{.grad_logits = out.matrix()}, {.scale = -1.5});
        // Rounding of the sum of p g, in units of the row's largest p g.
        CHECK(oracle::relative_error(out.values(), q.answer(of_probs, of_lse, -1.5)) <=
              (experts == 1 && !of_lse ? 0 : oracle::tolerance<G>(2e-6, 2e-14)));
        CHECK(out.padding_is_untouched());
      }
    });
  }
}

}   // namespace

TEMPLATE_TEST_CASE("gate_softmax_backward: the formula, for every number of experts", "[gate_softmax][precision]", double, float,
                   sara::bf16, sara::fp16) {
  against_the_formula<TestType, TestType>();
}
TEST_CASE("gate_softmax_backward: the gradient's storage is free", "[gate_softmax]") {
  against_the_formula<sara::bf16, float>();
  against_the_formula<float, sara::fp16>();
}

TEST_CASE("gate_softmax_backward: central differences of the forward", "[gate_softmax][precision]") {
  oracle::source from(11);
  constexpr std::size_t experts = 7, tokens = 2;
  const auto z = from.normals(tokens * experts, 2), g = from.normals(tokens * experts), lse_weight = from.normals(tokens);
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    std::vector<double> probs(tokens * experts), lse(tokens), grad(tokens * experts);
    const auto f = [&](const std::vector<double>& logits) {
      sara::gate_softmax_into(exec, sara::gate_softmax_inputs<double>{.logits = sara::matrix_view{logits.data(), tokens, experts}},
                              {.probs = sara::matrix_view{probs.data(), tokens, experts}, .log_sum_exp = lse});
      double sum = 0;
      for (std::size_t i = 0; i < probs.size(); ++i) sum += probs[i] * g[i];
      for (std::size_t t = 0; t < tokens; ++t) sum += lse[t] * lse_weight[t];
      return sum;
    };
    const auto want = oracle::central_differences(f, z);
    f(z);
    sara::gate_softmax_backward_into(exec,
                                     sara::gate_softmax_backward_inputs<double>{.probs = sara::matrix_view{probs.data(), tokens, experts},
                                                                                .grad_probs = sara::matrix_view{g.data(), tokens, experts},
                                                                                .grad_log_sum_exp = lse_weight},
                                     {.grad_logits = sara::matrix_view{grad.data(), tokens, experts}});
    CHECK(oracle::relative_error(grad, want) <= 1e-9);
    for (const double factor : {0.0, 2.0, -1.0}) {   // what must not pass
      auto wrong = grad;
      for (double& x : wrong) x *= factor;
      CHECK(oracle::relative_error(wrong, want) > 0.5);
    }
  });
}

TEMPLATE_TEST_CASE("gate_softmax_backward: accumulate adds with one rounding; a scale of 0 touches nothing", "[gate_softmax]", double,
                   float, sara::bf16, sara::fp16) {
  for (const std::size_t experts : {std::size_t{1}, std::size_t{5}, std::size_t{64}, std::size_t{129}, std::size_t{1025}}) {
    question q(21, 6, experts);
    q.round<TestType>();
    oracle::source from(22);
    const auto before = oracle::rounded_to<TestType>(from.normals(q.tokens * experts));
    const auto want = q.answer(true, true, 0.75);
    const auto lse = oracle::as_storage<sara::arithmetic_t<TestType>>(q.grad_lse);
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      block<TestType> p(1, q.tokens, experts, oracle::apart, q.probs), g(1, q.tokens, experts, oracle::apart, q.grad_probs),
          out(1, q.tokens, experts, oracle::apart, before);
      const sara::gate_softmax_backward_inputs<TestType> in{.probs = p.matrix(), .grad_probs = g.matrix(), .grad_log_sum_exp = lse};
      sara::gate_softmax_backward_into(exec, in, {.grad_logits = out.matrix()}, {.scale = 0.75, .mode = gradient_mode::accumulate});
      const auto got = oracle::as_doubles(out.values());
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double sum = before[i] + want[i], slack = std::is_same_v<TestType, double> ? 1e-15 : 1e-6;
        REQUIRE(std::abs(got[i] - sum) <= oracle::unit_of<TestType>(sum) * 0.5 + slack * (1 + std::abs(want[i])));
      }
      block<TestType> untouched(1, q.tokens, experts);
      sara::gate_softmax_backward_into(exec, in, {.grad_logits = untouched.matrix()}, {.scale = 0, .mode = gradient_mode::accumulate});
      CHECK(oracle::same_bits(untouched.memory(), block<TestType>(1, q.tokens, experts).memory()));
      sara::gate_softmax_backward_into(exec, in, {.grad_logits = untouched.matrix()}, {.scale = 0});
      for (const double x : oracle::as_doubles(untouched.values())) REQUIRE(x == 0);
    });
  }
}

TEMPLATE_TEST_CASE("gate_softmax_backward: exactly in place of probs or of grad_probs", "[gate_softmax]", double, float, sara::bf16,
                   sara::fp16) {
  for (const std::size_t experts :
       {std::size_t{1}, std::size_t{3}, std::size_t{31}, std::size_t{64}, std::size_t{129}, std::size_t{1025}}) {
    question q(31, 6, experts);
    q.round<TestType>();
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      for (const bool of_probs : {true, false}) {
        block<TestType> p(1, q.tokens, experts, oracle::apart, q.probs), g(1, q.tokens, experts, oracle::apart, q.grad_probs),
            out(1, q.tokens, experts, oracle::apart);
        const sara::gate_softmax_backward_inputs<TestType> in{.probs = p.matrix(), .grad_probs = g.matrix()};
        sara::gate_softmax_backward_into(exec, in, {.grad_logits = out.matrix()});
        block<TestType>& place = of_probs ? p : g;
        sara::gate_softmax_backward_into(exec, in, {.grad_logits = place.matrix()});
        CHECK(oracle::same_bits(place.values(), out.values()));
      }
    });
  }
}
