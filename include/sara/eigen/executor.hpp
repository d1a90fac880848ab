// eigen_executor, and what the operations of this backend share: rows as Eigen arrays, the softmax of a row, sums over the tokens
// of a sequence, and the gradient back through them. It knows no loss.
//
// Everything is written to be read: one row at a time, in array expressions, on one thread. Rows are computed with in the
// arithmetic of their storage (core/types.hpp), what is summed over tokens in `wide`, one token after the other.
//
// Scalars may be AutoDiffScalars whose derivatives are not there yet (constants): each product of two is made a scalar of its own,
// W(a * b), as Eigen 3.4 gives only those, not the expressions in a longer formula, the size of their neighbours' derivatives.
#pragma once

#if defined(__CUDACC__)
#error "sara's Eigen headers are not for nvcc: Eigen turns its vectorisation off there, and objects built both ways disagree"
#endif

#include <Eigen/Core>
#include <cmath>
#include <vector>

#include "../core/executor.hpp"
#include "../core/sequences.hpp"
#include "auto_diff.hpp"

namespace sara {

// Plain Eigen on the calling thread: the readable twin of cpu_executor, and its oracle. For any scalar that Eigen takes (float,
// double, long double, Eigen::AutoDiffScalar, ...) and every 16-bit storage; any compiler, no flag. Calls have run when they return.
struct eigen_executor {
  static constexpr bool runs_on_host = true;
};

namespace eigen {
inline namespace SARA_ABI {

template <class A> using array = Eigen::Array<A, 1, Eigen::Dynamic>;

// What sums over tokens and a step on [experts] are computed in: double for float, else the scalar itself.
template <class A> using wide = std::conditional_t<std::is_same_v<A, float>, double, A>;

// Scalars whose data a checked build looks at.
template <class A> inline constexpr bool checks_data_of = std::is_floating_point_v<A>;

// A number of the options as a scalar.
template <class A> A scalar(double x) { return A(static_cast<typename Eigen::NumTraits<A>::Literal>(x)); }

// A row of storage in its arithmetic type.
template <class T> array<arithmetic_t<T>> load_row(const T* row, index_t columns) {
  return array<arithmetic_t<T>>::NullaryExpr(columns, [row](Eigen::Index e) { return load_value(row[e]); });
}

// A row of arithmetic to storage: rounded once, after the addition where it is one.
template <class G> void store_row(const array<arithmetic_t<G>>& x, gradient_mode mode, G* to) {
  for (Eigen::Index e = 0; e < x.size(); ++e) {
    if (mode == gradient_mode::accumulate)
      store_value(to[e], load_value(to[e]) + x[e]);
    else
      store_value(to[e], x[e]);
  }
}

// Sum of a row, folded in half again and again: its error grows with the logarithm of the length, its bits do not depend on the
// width of Eigen's vectors.
template <class A> A sum_of(array<A> row) {
  if (row.size() == 0) return A(0);
  for (Eigen::Index size = row.size(); size > 1; size = (size + 1) / 2) row.head(size / 2) += row.segment((size + 1) / 2, size / 2);
  return row[0];
}

template <class A> struct softmax_row {
  array<A> probs;
  A log_sum_exp;
};

// NaN, +inf or only -inf in a row make all of it NaN.
template <class A> softmax_row<A> softmax(const array<A>& logits) {
  const A peak = logits.maxCoeff();
  // One exponential at a time: Eigen's own vector one gives 3e-39, not 0, for -inf.
  const array<A> powers = (logits - peak).unaryExpr([](const A& x) -> A {
    using std::exp;
    return exp(x);
  });
  const wide<A> sum = sum_of<wide<A>>(powers.template cast<wide<A>>());
  using std::log;
  return {powers / A(sum), A(wide<A>(peak) + log(sum))};
}

// d loss / d logits of a row, from its probabilities and d loss / d probs: p (g - sum of p g).
template <class A> array<A> softmax_gradient(const array<A>& probs, const array<A>& grad_probs) {
  return probs * (grad_probs - sum_of<A>(probs * grad_probs));
}

// An optional array of weights: 1 where it is absent.
template <class A> wide<A> weight_or_one(const vector_view<const A>& weights, index_t i) {
  return weights.given() ? wide<A>(weights[i]) : wide<A>(1);
}

// Calls visit(token, its weight) for the tokens of a sequence that have weight, and hidden(token) for the others.
template <class A, class Visit, class Hidden>
void visit_tokens(const token_range& rows, const vector_view<const A>& weights, const Visit& visit, const Hidden& hidden) {
  for (index_t i = 0; i < rows.count; ++i) {
    const index_t t = rows.first + i * rows.step;
    const wide<A> weight = weight_or_one(weights, t);
    if (weight == wide<A>(0))
      hidden(t);
    else
      visit(t, weight);
  }
}
template <class A, class Visit> void visit_tokens(const token_range& rows, const vector_view<const A>& weights, const Visit& visit) {
  visit_tokens(rows, weights, visit, [](index_t) {});
}

template <class A> struct sequence {
  token_range rows;
  wide<A> mass;   // sum of its token weights
};

// All sequences of a batch; `mass` is taken instead of the sum of token weights where it is given.
template <class A>
std::vector<sequence<A>> sequences_of(const sequences_view& sequences, index_t tokens, const vector_view<const A>& token_weights,
                                      const vector_view<const A>& mass = {}) {
  std::vector<sequence<A>> all;
  for_each_sequence(sequences, tokens, [&](index_t s, const token_range& rows) {
    wide<A> sum(0);
    visit_tokens(rows, token_weights, [&](index_t, const wide<A>& weight) { sum += weight; });
    all.push_back({rows, mass.given() ? wide<A>(mass[s]) : sum});
  });
  return all;
}

// Sum over a sequence's tokens of weight times softmax: [experts].
template <class T, class A = arithmetic_t<T>>
array<wide<A>> sum_of_softmax(const matrix_view<const T>& logits, const token_range& rows, const vector_view<const A>& token_weights) {
  array<wide<A>> sum = array<wide<A>>::Zero(logits.columns());
  visit_tokens(rows, token_weights, [&](index_t t, const wide<A>& weight) {
    sum += softmax(load_row(logits.row(t), logits.columns())).probs.template cast<wide<A>>() * weight;
  });
  return sum;
}

// Rows of a gradient that get nothing: 0, or left as they are.
template <class G> void clear_row_of(const matrix_view<G>& grad, index_t row, gradient_mode mode) {
  if (mode == gradient_mode::overwrite) store_row<G>(array<arithmetic_t<G>>::Zero(grad.columns()), mode, grad.row(row));
}
template <class G> void clear_rows_of(const matrix_view<G>& grad, const token_range& rows, gradient_mode mode) {
  for (index_t i = 0; i < rows.count; ++i) clear_row_of(grad, rows.first + i * rows.step, mode);
}
template <class G> void clear_rows_of_no_sequence(const layers_view<G>& grad, const sequences_view& sequences, gradient_mode mode) {
  std::vector<bool> held(static_cast<std::size_t>(grad.rows()), false);
  for_each_sequence(sequences, grad.rows(), [&](index_t, const token_range& rows) {
    for (index_t i = 0; i < rows.count; ++i) held[static_cast<std::size_t>(rows.first + i * rows.step)] = true;
  });
  for (index_t l = 0; l < grad.layers(); ++l)
    for (index_t t = 0; t < grad.rows(); ++t)
      if (!held[static_cast<std::size_t>(t)]) clear_row_of(grad[l], t, mode);
}

// The gradient of a sequence's rows, for d loss / d sum_of_softmax = coefficient * slopes. `grad` may be `logits`.
template <class T, class G, class A = arithmetic_t<T>>
void sum_of_softmax_gradient(const matrix_view<const T>& logits, const token_range& rows, const vector_view<const A>& token_weights,
                             const array<std::type_identity_t<A>>& slopes, const wide<std::type_identity_t<A>>& coefficient,
                             gradient_mode mode, const matrix_view<G>& grad) {
  const auto gradient = [&](index_t t, const wide<A>& weight) {
    const array<A> probs = softmax(load_row(logits.row(t), logits.columns())).probs;
    store_row<G>(softmax_gradient(probs, slopes) * A(coefficient * weight), mode, grad.row(t));
  };
  visit_tokens(rows, token_weights, gradient, [&](index_t t) { clear_row_of(grad, t, mode); });
}

}   // namespace SARA_ABI
}   // namespace eigen
}   // namespace sara
