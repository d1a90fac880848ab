// What gate_softmax and its backward refuse, and what they do with rows that no softmax can be taken of.
#include <sara/gate_softmax.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::complains, oracle::for_each_executor;
using sara::matrix_view, sara::vector_view;

constexpr double inf = std::numeric_limits<double>::infinity(), not_a_number = std::numeric_limits<double>::quiet_NaN();

}   // namespace

TEMPLATE_TEST_CASE("gate_softmax: NaN, +inf and all -inf rows are NaN, and no other row is", "[gate_softmax]", double, float, sara::bf16,
                   sara::fp16) {
  for (const std::size_t experts : {std::size_t{1}, std::size_t{2}, std::size_t{8}, std::size_t{33}, std::size_t{128}, std::size_t{1025}}) {
    for (std::size_t at = 0; at < experts; at += std::max<std::size_t>(1, experts / 5)) {
      oracle::source from(at);
      std::vector<double> z = from.normals(9 * experts);
      z[1 * experts + at] = not_a_number;
      z[3 * experts + at] = inf;
      for (std::size_t e = 0; e < experts; ++e) z[5 * experts + e] = -inf;
      z[7 * experts + at] = experts > 1 ? -inf : 0;
      for_each_executor([&](const auto& exec, const char* name) {
        block<TestType> logits(1, 9, experts, oracle::apart, z), probs(1, 9, experts, oracle::apart);
        sara::gate_softmax_into(exec, sara::gate_softmax_inputs<TestType>{.logits = logits.matrix()}, {.probs = probs.matrix()});
        const auto p = oracle::as_doubles(probs.values());
        INFO(name << ", experts " << experts << ", at " << at);
        for (std::size_t t = 0; t < 9; ++t) {
          double sum = 0;
          for (std::size_t e = 0; e < experts; ++e) sum += p[t * experts + e];
          INFO("row " << t);
          if (t == 1 || t == 3 || t == 5)
            CHECK(std::isnan(sum));
          else
            CHECK(std::abs(sum - 1) <= oracle::tolerance<TestType>(1e-6, 1e-14));
        }
        if (experts > 1) CHECK(p[7 * experts + at] == 0);
      });
    }
  }
}

TEMPLATE_TEST_CASE("gate_softmax: probs exactly in place of logits", "[gate_softmax]", double, float, sara::bf16, sara::fp16) {
  for (const std::size_t experts : {std::size_t{1}, std::size_t{3}, std::size_t{9}, std::size_t{31}, std::size_t{64}, std::size_t{65},
                                    std::size_t{385}, std::size_t{1500}})
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      oracle::source from(7);
      const auto z = from.normals(7 * experts, 3);
      block<TestType> logits(1, 7, experts, oracle::apart, z), apart(1, 7, experts, oracle::apart);
      sara::gate_softmax_into(exec, sara::gate_softmax_inputs<TestType>{.logits = logits.matrix()}, {.probs = apart.matrix()});
      sara::gate_softmax_into(exec, sara::gate_softmax_inputs<TestType>{.logits = logits.matrix()}, {.probs = logits.matrix()});
      CHECK(oracle::same_bits(logits.values(), apart.values()));
      CHECK(logits.padding_is_untouched());
    });
}

TEST_CASE("gate_softmax: no tokens, and nothing wanted", "[gate_softmax]") {
  for_each_executor([](const auto& exec, const char*) {
    sara::gate_softmax_into(exec, sara::gate_softmax_inputs<float>{.logits = matrix_view<const float>{nullptr, 0, 5}},
                            {.probs = matrix_view<float>{nullptr, 0, 5}});
    const std::vector<float> z(10, 1);
    sara::gate_softmax_into(exec, sara::gate_softmax_inputs<float>{.logits = matrix_view{z.data(), 2, 5}}, {});
    sara::gate_softmax_backward_into(exec, sara::gate_softmax_backward_inputs<float>{.probs = matrix_view{z.data(), 2, 5}}, {});
    std::vector<float> zero(10, NAN);   // both gradients absent
    sara::gate_softmax_backward_into(exec, sara::gate_softmax_backward_inputs<float>{.probs = matrix_view{z.data(), 2, 5}},
                                     {.grad_logits = matrix_view{zero.data(), 2, 5}});
    CHECK(zero == std::vector<float>(10, 0));
  });
}

TEST_CASE("gate_softmax: broken contracts name the argument and write nothing", "[gate_softmax]") {
  for_each_executor([](const auto& exec, const char* name) {
    INFO(name);
    std::vector<float> z(40, 1), p(60, 7), v(8, 7);
    const auto refuses = [&](const matrix_view<const float>& logits, const sara::gate_softmax_outputs<float>& out, const char* argument) {
      const std::vector<float> z_before = z, p_before = p, v_before = v;
      const bool right = complains([&] { sara::gate_softmax_into(exec, sara::gate_softmax_inputs<float>{.logits = logits}, out); },
                                   "gate_softmax_into", argument);
      return right && z == z_before && p == p_before && v == v_before;
    };
    const matrix_view<float> good{z.data(), 4, 5, 8};
    CHECK(refuses({}, {.probs = matrix_view{p.data(), 4, 5}}, "logits"));
    CHECK(refuses({z.data(), 4, 0}, {.probs = matrix_view{p.data(), 4, 0}}, "logits"));
    CHECK(refuses({nullptr, 4, 5}, {.probs = matrix_view{p.data(), 4, 5}}, "logits"));
    CHECK(refuses({z.data(), 4, 5, 4}, {.probs = matrix_view{p.data(), 4, 5}}, "logits"));
    CHECK(refuses(good, {.probs = matrix_view{p.data(), 3, 5}}, "probs"));
    CHECK(refuses(good, {.probs = matrix_view{p.data(), 4, 6}}, "probs"));
    CHECK(refuses(good, {.probs = matrix_view{p.data(), 4, 5, 3}}, "probs"));
    CHECK(refuses(good, {.probs = matrix_view{p.data(), 4, 5}, .log_sum_exp = vector_view{v.data(), 5}}, "log_sum_exp"));
    CHECK(refuses(good, {.probs = matrix_view{p.data(), 4, 5}, .log_sum_exp = vector_view{p.data() + 3, 4}}, "log_sum_exp"));
    CHECK(refuses(good, {.probs = matrix_view{z.data() + 1, 4, 5, 8}}, "probs"));
    CHECK(refuses(good, {.log_sum_exp = vector_view{z.data() + 6, 4}}, "log_sum_exp"));
    CHECK(!refuses(good, {.probs = matrix_view{z.data() + 5, 4, 3, 8}}, "logits"));   // of another shape: names probs
  });
}

TEST_CASE("gate_softmax_backward: broken contracts name the argument and write nothing", "[gate_softmax]") {
  for_each_executor([](const auto& exec, const char* name) {
    INFO(name);
    std::vector<float> p(40, 1), g(40, 2), out(60, 7), v(8, 7);
    using inputs = sara::gate_softmax_backward_inputs<float>;
    const auto refuses = [&](const inputs& in, const matrix_view<float>& to, const char* argument,
                             sara::gradient_mode mode = sara::gradient_mode::overwrite) {
      const auto p_before = p, g_before = g, out_before = out, v_before = v;
      const bool right = complains([&] { sara::gate_softmax_backward_into(exec, in, {.grad_logits = to}, {.mode = mode}); },
                                   "gate_softmax_backward_into", argument);
      return right && p == p_before && g == g_before && out == out_before && v == v_before;
    };
    const matrix_view<float> probs{p.data(), 4, 5, 8}, grads{g.data(), 4, 5, 8}, good{out.data(), 4, 5};
    CHECK(refuses({.probs = {}, .grad_probs = grads}, good, "probs"));
    CHECK(refuses({.probs = probs, .grad_probs = matrix_view{g.data(), 3, 5}}, good, "grad_probs"));
    CHECK(refuses({.probs = probs, .grad_log_sum_exp = vector_view{v.data(), 3}}, good, "grad_log_sum_exp"));
    CHECK(refuses({.probs = probs, .grad_probs = grads}, {out.data(), 5, 4}, "grad_logits"));
    CHECK(refuses({.probs = probs, .grad_probs = grads}, {nullptr, 4, 5}, "grad_logits"));
    CHECK(refuses({.probs = probs, .grad_probs = grads}, {p.data() + 1, 4, 5, 8}, "grad_logits"));
    CHECK(refuses({.probs = probs, .grad_probs = grads}, probs, "grad_logits", sara::gradient_mode::accumulate));
    CHECK(refuses({.probs = probs, .grad_log_sum_exp = vector_view{out.data() + 2, 4}}, good, "grad_logits"));
  });
}
