// The routing histograms, soft and hard, and their backwards in plain Eigen.
#pragma once

#include "../eigen/executor.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// Contract and formulas: sara/routing_histogram.hpp.
template <class T>
void routing_histogram_into(const eigen_executor&, const routing_histogram_inputs<T>& in,
                            const routing_histogram_outputs<std::type_identity_t<T>>& out) {
  using A = arithmetic_t<T>;
  using W = eigen::wide<A>;
  using array = eigen::array<W>;
  check_routing_histogram("routing_histogram_into", in, out);
  if constexpr (eigen::checks_data_of<A>) check_routing_histogram_data("routing_histogram_into", in);
  const auto sequences = eigen::sequences_of(in.sequences, in.logits.rows(), in.token_weights);
  for (std::size_t s = 0; s < sequences.size() && out.token_mass.given(); ++s)
    out.token_mass[static_cast<index_t>(s)] = A(sequences[s].mass);
  if (!out.histograms.given() && !out.sums.given()) return;

  const index_t experts = in.logits.columns();
  for (index_t l = 0; l < in.logits.layers(); ++l) {
    for (index_t s = 0; s < in.sequences.sequences(); ++s) {
      const auto& [rows, mass] = sequences[static_cast<std::size_t>(s)];
      const bool has_mass = mass != W(0);
      const array sum = has_mass ? eigen::sum_of_softmax(in.logits[l], rows, in.token_weights) : array(array::Zero(experts));
      const array mean = has_mass ? array(sum / mass) : sum;
      if (out.sums.given()) eigen::store_row<A>(sum.template cast<A>(), gradient_mode::overwrite, out.sums[l].row(s));
      if (out.histograms.given()) eigen::store_row<A>(mean.template cast<A>(), gradient_mode::overwrite, out.histograms[l].row(s));
    }
  }
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class T, class G = T>
void routing_histogram_backward_into(const eigen_executor&, const routing_histogram_backward_inputs<T>& in,
                                     const routing_histogram_backward_outputs<std::type_identity_t<T>, G>& out,
                                     const routing_histogram_backward_options& options = {}) {
  using W = eigen::wide<arithmetic_t<T>>;
  check_routing_histogram_backward("routing_histogram_backward_into", in, out, options);
  if constexpr (eigen::checks_data_of<arithmetic_t<T>>) check_routing_histogram_data("routing_histogram_backward_into", in);
  if (!out.grad_logits.given() || (options.mode == gradient_mode::accumulate && options.scale == 0)) return;

  const auto sequences = eigen::sequences_of(in.sequences, in.logits.rows(), in.token_weights, in.token_mass);
  for (index_t l = 0; l < in.logits.layers(); ++l) {
    for (index_t s = 0; s < in.sequences.sequences(); ++s) {
      const auto& [rows, mass] = sequences[static_cast<std::size_t>(s)];
      if (mass == W(0)) {
        eigen::clear_rows_of(out.grad_logits[l], rows, options.mode);
      } else {
        const auto slopes = eigen::load_row(in.grad_histograms[l].row(s), in.logits.columns());
        eigen::sum_of_softmax_gradient(in.logits[l], rows, in.token_weights, slopes, eigen::scalar<W>(options.scale) / mass, options.mode,
                                       out.grad_logits[l]);
      }
    }
  }
  eigen::clear_rows_of_no_sequence(out.grad_logits, in.sequences, options.mode);
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class W, class I>
void hard_routing_histogram_into(const eigen_executor&, const hard_routing_histogram_inputs<W, I>& in,
                                 const hard_routing_histogram_outputs<std::type_identity_t<W>>& out) {
  using A = arithmetic_t<W>;
  using array = eigen::array<eigen::wide<A>>;
  check_hard_routing_histogram("hard_routing_histogram_into", in, out);
  if constexpr (eigen::checks_data_of<A>) check_routing_histogram_data("hard_routing_histogram_into", in);
  const auto sequences = eigen::sequences_of(in.sequences, in.indices.rows(), in.token_weights);
  for (std::size_t s = 0; s < sequences.size() && out.token_mass.given(); ++s)
    out.token_mass[static_cast<index_t>(s)] = A(sequences[s].mass);

  for (index_t l = 0; l < in.indices.layers(); ++l) {
    const matrix_view<const I> indices = in.indices[l];
    for (index_t s = 0; s < in.sequences.sequences(); ++s) {
      const auto& [rows, mass] = sequences[static_cast<std::size_t>(s)];
      array sum = array::Zero(in.experts);
      eigen::array<std::int64_t> count = eigen::array<std::int64_t>::Zero(in.experts);
      eigen::visit_tokens(rows, in.token_weights, [&](index_t t, const eigen::wide<A>& token_weight) {
        for (index_t i = 0; i < indices.columns(); ++i) {
          const auto e = static_cast<index_t>(indices(t, i));
          if (e < 0 || e >= in.experts) continue;
          ++count[e];
          if (in.weights.given())
            sum[e] += eigen::wide<A>(token_weight * eigen::wide<A>(load_value(in.weights[l](t, i))));
          else
            sum[e] += token_weight;
        }
      });

      const array mean = mass == eigen::wide<A>(0) ? array(array::Zero(in.experts)) : array(sum / mass);
      if (out.sums.given()) eigen::store_row<A>(sum.template cast<A>(), gradient_mode::overwrite, out.sums[l].row(s));
      if (out.histograms.given()) eigen::store_row<A>(mean.template cast<A>(), gradient_mode::overwrite, out.histograms[l].row(s));
      if (out.counts.given()) eigen::store_row<std::int64_t>(count, gradient_mode::overwrite, out.counts[l].row(s));
    }
  }
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class W, class I>
void hard_routing_histogram_backward_into(const eigen_executor&, const hard_routing_histogram_backward_inputs<W, I>& in,
                                          const hard_routing_histogram_backward_outputs<std::type_identity_t<W>>& out,
                                          const routing_histogram_backward_options& options = {}) {
  using A = arithmetic_t<W>;
  using array = eigen::array<A>;
  check_hard_routing_histogram_backward("hard_routing_histogram_backward_into", in, out);
  if constexpr (eigen::checks_data_of<A>) check_routing_histogram_data("hard_routing_histogram_backward_into", in);
  const bool accumulate = options.mode == gradient_mode::accumulate;
  if (!out.grad_weights.given() || (accumulate && options.scale == 0)) return;

  const auto sequences = eigen::sequences_of(in.sequences, in.indices.rows(), in.token_weights, in.token_mass);
  const index_t k = in.indices.columns(), experts = in.grad_histograms.columns();
  for (index_t l = 0; l < in.indices.layers(); ++l) {
    const matrix_view<const I> indices = in.indices[l];
    const matrix_view<W> grad = out.grad_weights[l];
    for (index_t s = 0; s < in.sequences.sequences(); ++s) {
      const auto& [rows, mass] = sequences[static_cast<std::size_t>(s)];
      eigen::clear_rows_of(grad, rows, options.mode);
      if (mass == eigen::wide<A>(0)) continue;
      const array slopes = eigen::load_row(in.grad_histograms[l].row(s), experts);
      const eigen::wide<A> coefficient = eigen::scalar<eigen::wide<A>>(options.scale) / mass;
      eigen::visit_tokens(rows, in.token_weights, [&](index_t t, const eigen::wide<A>& token_weight) {
        for (index_t i = 0; i < k; ++i) {
          const auto e = static_cast<index_t>(indices(t, i));
          if (e < 0 || e >= experts) continue;   // not routed
          const array slope = slopes.segment(e, 1) * A(coefficient * token_weight);
          eigen::store_row<W>(slope, options.mode, &grad(t, i));
        }
      });
    }
  }
  eigen::clear_rows_of_no_sequence(out.grad_weights, in.sequences, options.mode);
}

}   // namespace SARA_ABI
}   // namespace sara
