// The slopes of js_divergence, of either and of both sides: against long double, modes and scale, and what the call refuses.
#include <sara/js_divergence.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;
using sara::gradient_mode;

struct question {
  std::size_t rows = 6, experts;
  std::vector<double> p, q, grad;

  template <class T> static question make(std::size_t e, T) {
    oracle::source from(e);
    question all{6, e, oracle::distributions(from, 6, e, 3), oracle::distributions(from, 6, e, 3), from.normals(6)};
    for (std::size_t i = 0; i < e; ++i) {
      all.q[e + i] = all.p[e + i] * (1 + 1e-3 * from.normal());   // close
      if (i % 3 == 0) all.p[2 * e + i] = 0;                       // absent on one side, the other, both
      if (i % 3 == 1) all.q[2 * e + i] = 0;
      if (i % 5 == 0) all.p[2 * e + i] = all.q[2 * e + i] = 0;
      if (i % 2) all.p[3 * e + i] *= 1e-7;   // all but absent
    }
    all.p = oracle::rounded_to<T>(all.p);
    all.q = oracle::rounded_to<T>(all.q);
    all.grad = oracle::rounded_to<sara::arithmetic_t<T>>(all.grad);
    return all;
  }
  std::vector<double> answer(bool of_p, bool weighted, double scale) const {
    std::vector<double> all;
    for (std::size_t r = 0; r < rows; ++r) {
      const std::vector<long double> a(p.begin() + static_cast<std::ptrdiff_t>(r * experts),
                                       p.begin() + static_cast<std::ptrdiff_t>((r + 1) * experts));
      const std::vector<long double> b(q.begin() + static_cast<std::ptrdiff_t>(r * experts),
                                       q.begin() + static_cast<std::ptrdiff_t>((r + 1) * experts));
      const auto slopes = of_p ? oracle::js_slope_p(a.data(), b.data(), experts) : oracle::js_slope_q(a.data(), b.data(), experts);
      for (const long double s : slopes) all.push_back(static_cast<double>(s) * scale * (weighted ? grad[r] : 1));
    }
    return all;
  }
};

// Relative to each entry: slopes near alignment are small beside others of the same call, and must have digits of their own.
template <class A> double worst_entry(const std::vector<A>& got, const std::vector<double>& want) {
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double error = want[i] == 0 ? (got[i] == 0 ? 0 : HUGE_VAL) : std::abs(static_cast<double>(got[i]) - want[i]) / std::abs(want[i]);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

}   // namespace

TEMPLATE_TEST_CASE("js_divergence: slopes of both sides, and of either alone", "[js_divergence][precision]", double, float, sara::bf16,
                   sara::fp16) {
  using A = sara::arithmetic_t<TestType>;
  const double tolerance = std::is_same_v<A, double> ? 1e-14 : 5e-7;
  for (const std::size_t experts : oracle::expert_counts) {
    const question in = question::make(experts, TestType{});
    for_each_executor([&](const auto& exec, const char* name) {
      for (const bool weighted : {false, true}) {
        INFO(name << ", experts " << experts << ", grad_divergence " << weighted);
        block<TestType> p(1, in.rows, experts, oracle::apart, in.p), q(1, in.rows, experts, oracle::apart, in.q);
        const auto grad = oracle::as_storage<A>(in.grad);
        block<A> both_p(1, in.rows, experts, oracle::apart), both_q(1, in.rows, experts, oracle::apart), alone_p(1, in.rows, experts),
            alone_q(1, in.rows, experts);
        sara::js_divergence_inputs<TestType> inputs{.p = p.matrix(), .q = q.matrix()};
        if (weighted) inputs.grad_divergence = grad;
        std::vector<A> with(in.rows), without(in.rows);
        sara::js_divergence_into(exec, inputs, {.divergence = with, .grad_p = both_p.matrix(), .grad_q = both_q.matrix()}, {.scale = -2.5});
        sara::js_divergence_into(exec, inputs, {.grad_p = alone_p.matrix()}, {.scale = -2.5});
        sara::js_divergence_into(exec, inputs, {.grad_q = alone_q.matrix()}, {.scale = -2.5});
        sara::js_divergence_into(exec, inputs, {.divergence = without});
        CHECK(worst_entry(both_p.values(), in.answer(true, weighted, -2.5)) <= tolerance);
        CHECK(worst_entry(both_q.values(), in.answer(false, weighted, -2.5)) <= tolerance);
        CHECK(oracle::same_bits(both_p.values(), alone_p.values()));
        CHECK(oracle::same_bits(both_q.values(), alone_q.values()));
        CHECK(oracle::same_bits(with, without));   // scale and grad_divergence are the slopes' alone
        CHECK(both_p.padding_is_untouched());
        CHECK(both_q.padding_is_untouched());
        for (const double factor : {0.0, 2.0, -1.0}) {   // what must not pass
          auto wrong = oracle::as_doubles(both_p.values());
          for (double& x : wrong) x *= factor;
          if (experts > 1) CHECK(worst_entry(wrong, in.answer(true, weighted, -2.5)) > 0.5);
        }
      }
    });
  }
}

TEMPLATE_TEST_CASE("js_divergence: equal rows are 0 with slopes exactly 0; disjoint rows are finite", "[js_divergence][precision]", double,
                   float, sara::bf16, sara::fp16) {
  using A = sara::arithmetic_t<TestType>;
  for (const std::size_t experts : oracle::expert_counts) {
    oracle::source from(1);
    const auto equal = oracle::distributions(from, 4, experts, 3);
    std::vector<double> left(4 * experts, 0), right(4 * experts, 0);
    for (std::size_t i = 0; i < left.size(); ++i) (i % 2 ? left : right)[i] = 1.0 / static_cast<double>(experts);
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      const auto run = [&](const std::vector<double>& p_values, const std::vector<double>& q_values) {
        block<TestType> p(1, 4, experts, {}, p_values), q(1, 4, experts, {}, q_values);
        block<A> grad_p(1, 4, experts), grad_q(1, 4, experts);
        std::vector<A> divergence(4, NAN);
        sara::js_divergence_into(exec, sara::js_divergence_inputs<TestType>{.p = p.matrix(), .q = q.matrix()},
                                 {.divergence = divergence, .grad_p = grad_p.matrix(), .grad_q = grad_q.matrix()});
        for (const auto& more : {grad_p.values(), grad_q.values()}) divergence.insert(divergence.end(), more.begin(), more.end());
        return divergence;
      };
      const auto zeros = run(equal, equal), finite = run(left, right);
      CHECK(std::all_of(zeros.begin(), zeros.end(), [](A x) { return x == 0; }));
      CHECK(std::all_of(finite.begin(), finite.end(), [](A x) { return std::isfinite(x) && x >= 0 && x <= A(0.6931472); }));
    });
  }
}

TEMPLATE_TEST_CASE("js_divergence: overwrite never reads, accumulate adds with one rounding, a scale of 0 touches nothing",
                   "[js_divergence]", double, float, sara::bf16) {
  using A = sara::arithmetic_t<TestType>;
  for (const std::size_t experts : {std::size_t{1}, std::size_t{5}, std::size_t{64}, std::size_t{129}}) {
    const question in = question::make(experts, TestType{});
    oracle::source from(8);
    const auto before = oracle::rounded_to<A>(from.normals(in.rows * experts));
    const auto want = in.answer(true, true, 1.5);
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      block<TestType> p(1, in.rows, experts, {}, in.p), q(1, in.rows, experts, {}, in.q);
      const auto grad = oracle::as_storage<A>(in.grad);
      const sara::js_divergence_inputs<TestType> inputs{.p = p.matrix(), .q = q.matrix(), .grad_divergence = grad};
      block<A> sum(1, in.rows, experts, oracle::apart, before), nothing(1, in.rows, experts);
      sara::js_divergence_into(exec, inputs, {.grad_p = sum.matrix()}, {.scale = 1.5, .mode = gradient_mode::accumulate});
      const auto got = oracle::as_doubles(sum.values());
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < want.size(); ++i)
        wrong +=
            !(std::abs(got[i] - before[i] - want[i]) <= oracle::unit_of<A>(before[i] + want[i]) * 0.51 + oracle::unit_of<A>(want[i]) * 4);
      CHECK(wrong == 0);
      sara::js_divergence_into(exec, inputs, {.grad_p = nothing.matrix()}, {.scale = 0, .mode = gradient_mode::accumulate});
      CHECK(oracle::same_bits(nothing.memory(), block<A>(1, in.rows, experts).memory()));
    });
  }
}

TEST_CASE("js_divergence: broken contracts name the argument and write nothing", "[js_divergence]") {
  for_each_executor([](const auto& exec, const char* name) {
    INFO(name);
    std::vector<float> p(40, 0.2f), q(40, 0.2f), d(8, 7), gp(40, 7), gq(40, 7);
    using inputs = sara::js_divergence_inputs<float>;
    using outputs = sara::js_divergence_outputs<float>;
    const auto refuses = [&](const inputs& in, const outputs& out, const char* argument) {
      const std::vector<std::vector<float>> before{p, q, d, gp, gq};
      const bool right = oracle::complains([&] { sara::js_divergence_into(exec, in, out); }, "js_divergence_into", argument);
      return right && before == std::vector<std::vector<float>>{p, q, d, gp, gq};
    };
    const sara::matrix_view<float> a{p.data(), 4, 5, 8}, b{q.data(), 4, 5, 8};
    const sara::vector_view<float> out{d.data(), 4};
    CHECK(refuses({.p = {}, .q = b}, {.divergence = out}, "p is required"));
    CHECK(refuses({.p = a}, {.divergence = out}, "q is required"));
    CHECK(refuses({.p = sara::matrix_view{p.data(), 4, 0}, .q = b}, {.divergence = out}, "p must"));
    CHECK(refuses({.p = a, .q = sara::matrix_view{q.data(), 4, 4}}, {.divergence = out}, "q must"));
    CHECK(refuses({.p = a, .q = sara::matrix_view<const float>{nullptr, 4, 5}}, {.divergence = out}, "q must"));
    CHECK(refuses({.p = a, .q = b, .grad_divergence = sara::vector_view{gq.data(), 3}}, {.divergence = out}, "grad_divergence"));
    CHECK(refuses({.p = a, .q = b}, {.divergence = sara::vector_view{d.data(), 5}}, "divergence"));
    CHECK(refuses({.p = a, .q = b}, {.divergence = out, .grad_p = sara::matrix_view{gp.data(), 3, 5}}, "grad_p"));
    CHECK(refuses({.p = a, .q = b}, {.divergence = out, .grad_q = sara::matrix_view{gq.data(), 4, 6}}, "grad_q"));
    CHECK(refuses({.p = a, .q = b}, {.grad_p = a}, "grad_p"));
    CHECK(refuses({.p = a, .q = b}, {.grad_p = sara::matrix_view{gp.data(), 4, 5}, .grad_q = sara::matrix_view{gp.data() + 3, 4, 5}},
                  "grad_q"));
    CHECK(refuses({.p = a, .q = b}, {.divergence = sara::vector_view{q.data() + 8, 4}}, "divergence"));
    sara::js_divergence_into(
        exec, inputs{.p = sara::matrix_view<const float>{nullptr, 0, 5}, .q = sara::matrix_view<const float>{nullptr, 0, 5}}, outputs{});
    sara::js_divergence_into(exec, inputs{.p = a, .q = b}, outputs{});
    CHECK(d == std::vector<float>(8, 7));
  });
}
