// What top_k and its backward refuse.
#include <sara/top_k.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::complains, oracle::for_each_executor;
using sara::matrix_view;

}   // namespace

TEST_CASE("top_k: broken contracts name the argument and write nothing", "[top_k]") {
  for_each_executor([](const auto& exec, const char* name) {
    INFO(name);
    std::vector<float> s(40, 1), v(40, 2), w(60, 7);
    std::vector<std::int32_t> i(60, 7);
    using inputs = sara::top_k_inputs<float>;
    using outputs = sara::top_k_outputs<float>;
    const auto refuses = [&](const inputs& in, const outputs& out, const char* argument) {
      const auto s_before = s, v_before = v, w_before = w;
      const auto i_before = i;
      const bool right = complains([&] { sara::top_k_into(exec, in, out); }, "top_k_into", argument);
      return right && s == s_before && v == v_before && w == w_before && i == i_before;
    };
    const matrix_view<float> scores{s.data(), 4, 5, 8}, values{v.data(), 4, 5, 8}, weights{w.data(), 4, 2};
    const matrix_view<std::int32_t> indices{i.data(), 4, 2};
    CHECK(refuses({.scores = {}}, {.indices = indices}, "scores"));
    CHECK(refuses({.scores = matrix_view{s.data(), 4, 0}}, {.indices = indices}, "at least one expert (column), but has 0"));
    CHECK(refuses({.scores = matrix_view<const float>{nullptr, 4, 5}}, {.indices = indices}, "scores"));
    CHECK(refuses({.scores = matrix_view{s.data(), 4, 5, 4}}, {.indices = indices}, "scores"));
    CHECK(refuses({.scores = scores, .values = matrix_view{v.data(), 4, 4}}, {.indices = indices}, "values"));
    CHECK(refuses({.scores = scores}, {.indices = matrix_view{i.data(), 3, 2}}, "indices"));
    CHECK(refuses({.scores = scores}, {.indices = matrix_view{i.data(), 4, 6}}, "indices must have between 1 and 5"));   // k > experts
    CHECK(refuses({.scores = scores}, {.indices = matrix_view{i.data(), 4, 0}}, "indices"));
    CHECK(refuses({.scores = scores}, {.weights = matrix_view{w.data(), 4, 6}}, "weights"));
    CHECK(refuses({.scores = scores}, {.indices = indices, .weights = matrix_view{w.data(), 4, 3}}, "weights"));
    CHECK(refuses({.scores = scores, .values = values}, {.indices = indices, .weights = matrix_view{s.data() + 2, 4, 2, 8}}, "weights"));
    CHECK(refuses({.scores = scores, .values = values}, {.indices = indices, .weights = matrix_view{v.data(), 4, 2, 8}}, "weights"));
    sara::top_k_into(exec, inputs{.scores = scores}, outputs{});   // nothing wanted
    sara::top_k_into(exec, inputs{.scores = matrix_view<const float>{nullptr, 0, 5}},
                     {.indices = matrix_view{i.data(), 0, 2}});   // no tokens
    CHECK(i == std::vector<std::int32_t>(60, 7));
  });
}

TEST_CASE("top_k_backward: broken contracts name the argument and write nothing", "[top_k]") {
  for_each_executor([](const auto& exec, const char* name) {
    INFO(name);
    std::vector<float> gw(8, 1), v(40, 2), out(40, 7);
    std::vector<std::int32_t> i(24, 1);
    using inputs = sara::top_k_backward_inputs<float>;
    const auto refuses = [&](const inputs& in, const matrix_view<float>& to, const char* argument, bool renormalize = false) {
      const auto gw_before = gw, v_before = v, out_before = out;
      const bool right = complains([&] { sara::top_k_backward_into(exec, in, {.grad_values = to}, {.renormalize = renormalize}); },
                                   "top_k_backward_into", argument);
      return right && gw == gw_before && v == v_before && out == out_before;
    };
    const matrix_view<const std::int32_t> indices{i.data(), 4, 2};
    const matrix_view<float> grads{gw.data(), 4, 2}, values{v.data(), 4, 5, 8}, good{out.data(), 4, 5, 8};
    CHECK(refuses({.indices = {}, .grad_weights = grads}, good, "indices"));
    CHECK(refuses({.indices = indices}, good, "grad_weights"));
    CHECK(refuses({.indices = indices, .grad_weights = grads}, {}, "grad_values"));
    CHECK(refuses({.indices = indices, .grad_weights = grads}, good, "values", true));
    CHECK(refuses({.indices = matrix_view{i.data(), 4, 6}, .grad_weights = grads}, good,
                  "indices must have between 1 and 5 (experts) columns, but has 6"));
    CHECK(refuses({.indices = indices, .grad_weights = matrix_view{gw.data(), 2, 4}}, good, "grad_weights"));
    CHECK(refuses({.indices = indices, .grad_weights = grads, .values = matrix_view{v.data(), 4, 4}}, good, "values"));
    CHECK(refuses({.indices = indices, .grad_weights = grads}, {out.data(), 3, 5}, "indices"));
    CHECK(refuses({.indices = indices, .grad_weights = grads, .values = values}, values, "grad_values", true));
    CHECK(refuses({.indices = indices, .grad_weights = grads}, {nullptr, 4, 5}, "grad_values"));
  });
}
