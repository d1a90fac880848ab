// top_k and its backward in plain Eigen.
#pragma once

#include <algorithm>
#include <numeric>

#include "../eigen/executor.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// Contract and rules of choice: sara/top_k.hpp.
template <class T, class V, class I = std::int32_t>
void top_k_into(const eigen_executor&, const top_k_inputs<T, V>& in, const top_k_outputs<std::type_identity_t<T>, I>& out,
                const top_k_options& options = {}) {
  using A = arithmetic_t<T>;
  using U = arithmetic_t<V>;
  check_top_k("top_k_into", in, out, options);
  if (!out.indices.given() && !out.weights.given()) return;

  const index_t experts = in.scores.columns(), k = out.indices.given() ? out.indices.columns() : out.weights.columns();
  std::vector<index_t> best(static_cast<std::size_t>(experts));
  for (index_t t = 0; t < in.scores.rows(); ++t) {
    const eigen::array<A> scores = eigen::load_row(in.scores.row(t), experts);
    // Higher first, NaN after -inf, equal ones (-0 and +0 too) by index.
    const auto ranks_before = [&](index_t a, index_t b) {
      const bool a_is_nan = scores[a] != scores[a], b_is_nan = scores[b] != scores[b];
      if (a_is_nan != b_is_nan) return b_is_nan;
      if (!a_is_nan && scores[a] != scores[b]) return scores[a] > scores[b];
      return a < b;
    };
    std::iota(best.begin(), best.end(), index_t(0));
    std::partial_sort(best.begin(), best.begin() + k, best.end(), ranks_before);

    for (index_t i = 0; i < k && out.indices.given(); ++i) out.indices(t, i) = static_cast<I>(best[static_cast<std::size_t>(i)]);
    if (!out.weights.given()) continue;
    const eigen::array<A> own = options.softmax ? eigen::softmax(scores).probs : scores;
    eigen::array<U> weights(k);
    for (index_t i = 0; i < k; ++i) {
      const index_t e = best[static_cast<std::size_t>(i)];
      weights[i] = in.values.given() ? load_value(in.values(t, e)) : static_cast<U>(own[e]);
    }
    if (options.renormalize) {
      const U sum = weights.sum();
      if (sum == U(0))
        weights.setZero();
      else
        weights /= sum;
    }
    eigen::store_row<A>((weights * eigen::scalar<U>(options.scale)).template cast<A>(), gradient_mode::overwrite, out.weights.row(t));
  }
}

// Contract and formulas: sara/top_k.hpp.
template <class V, class I, class G = V>
void top_k_backward_into(const eigen_executor&, const top_k_backward_inputs<V, I>& in,
                         const top_k_backward_outputs<std::type_identity_t<V>, G>& out, const top_k_backward_options& options = {}) {
  using A = arithmetic_t<V>;
  using array = eigen::array<A>;
  check_top_k_backward("top_k_backward_into", in, out, options);
  if (options.mode == gradient_mode::accumulate && options.scale == 0) return;

  const index_t experts = out.grad_values.columns(), k = in.indices.columns();
  for (index_t t = 0; t < in.indices.rows(); ++t) {
    // The slots that are routed somewhere.
    std::vector<index_t> slots;
    for (index_t i = 0; i < k; ++i)
      if (in.indices(t, i) >= 0 && static_cast<index_t>(in.indices(t, i)) < experts) slots.push_back(i);
    const auto count = static_cast<index_t>(slots.size());
    const auto slot = [&](index_t i) { return slots[static_cast<std::size_t>(i)]; };
    const auto expert = [&](index_t i) { return static_cast<index_t>(in.indices(t, slot(i))); };

    array grad = array::NullaryExpr(count, [&](Eigen::Index i) { return in.grad_weights(t, slot(i)); });
    if (options.renormalize) {   // w = v / S: dv = (g - sum of g w) / S
      const array values = array::NullaryExpr(count, [&](Eigen::Index i) { return load_value(in.values(t, expert(i))); });
      const A sum = values.sum();
      if (sum == A(0))
        grad.setZero();
      else
        grad = array((grad - (grad * values).sum() / sum) / sum);
    }
    grad *= eigen::scalar<A>(options.scale);

    array of_experts = array::Zero(experts);   // a slot after the other: a row may list an expert twice
    std::vector<bool> chosen(static_cast<std::size_t>(experts), options.mode == gradient_mode::overwrite);
    for (index_t i = 0; i < count; ++i) {
      of_experts[expert(i)] += grad[i];
      chosen[static_cast<std::size_t>(expert(i))] = true;
    }
    for (index_t e = 0; e < experts; ++e)
      if (chosen[static_cast<std::size_t>(e)]) eigen::store_row<G>(of_experts.segment(e, 1), options.mode, &out.grad_values(t, e));
  }
}

}   // namespace SARA_ABI
}   // namespace sara
