// js_routing in plain Eigen: the SARA loss as its formulas read (arXiv 2606.25821).
//
//   p_t  = softmax(logits of token t)                          over all experts (eq. 5)
//   Q_ls = sum of m_t p_t / n_s,  n_s = sum of m_t             the histogram of sequence s at layer l
//   JS_ls = JS(anchor, Q_ls)                                   math/js.hpp
//   loss = scale sum_l v_l sum_s w_s JS_ls / (V W)
//   d loss / d logits of t = upstream scale v_l w_s m_t / (V W n_s) p_t (g - sum of p_t g),  g = d JS_ls / d Q_ls
#pragma once

#include "../eigen/executor.hpp"
#include "../math/js.hpp"
#include "types.hpp"

namespace sara {
namespace eigen {
inline namespace SARA_ABI {

// The divergence of a histogram from its anchor, and its slopes less their mean under the histogram: the gradient does not see a
// constant, and what is left rounds less.
template <class W> struct divergence_from_anchor {
  W divergence = W(0);
  array<W> slopes;

  divergence_from_anchor(const array<W>& anchor, const array<W>& histogram) : slopes(histogram.size()) {
    for (Eigen::Index e = 0; e < histogram.size(); ++e) {
      const math::js_term<W> term = math::js(anchor[e], histogram[e]);
      divergence += term.value;
      slopes[e] = term.slope_q;
    }
    slopes -= sum_of<W>(slopes * histogram);
  }
};

}   // namespace SARA_ABI
}   // namespace eigen

inline namespace SARA_ABI {

// Contract: sara/js_routing.hpp.
template <class T, class G = T>
void js_routing_into(const eigen_executor&, const js_routing_inputs<T>& in, const js_routing_outputs<std::type_identity_t<T>, G>& out,
                     const js_routing_options& options = {}) {
  using A = arithmetic_t<T>;
  using W = eigen::wide<A>;
  using array = eigen::array<W>;
  check_js_routing("js_routing_into", in, out, options);
  if constexpr (eigen::checks_data_of<A>) check_js_routing_data("js_routing_into", in, !in.histograms.given() || out.grad_logits.given());
  const index_t layers = in.logits.layers(), tokens = in.logits.rows(), experts = in.logits.columns();
  const auto sequences = eigen::sequences_of(in.sequences, tokens, in.token_weights, in.token_mass);
  const auto count = static_cast<index_t>(sequences.size());

  // Effective weights: 0 without mass or without an anchor.
  const auto anchor_row = [&](index_t s) { return in.anchor_rows.given() ? in.anchor_rows[s] : s; };
  const array layer_weights = array::NullaryExpr(layers, [&](Eigen::Index l) { return eigen::weight_or_one(in.layer_weights, l); });
  const array sequence_weights = array::NullaryExpr(count, [&](Eigen::Index s) {
    const bool counts = sequences[static_cast<std::size_t>(s)].mass != W(0) && anchor_row(s) >= 0 && anchor_row(s) < in.anchors.rows();
    return counts ? eigen::weight_or_one(in.sequence_weights, s) : W(0);
  });
  const W total_layers = in.total_layer_weight.given() ? W(in.total_layer_weight[0]) : layer_weights.sum();
  const W total_sequences = in.total_sequence_weight.given() ? W(in.total_sequence_weight[0]) : sequence_weights.sum();
  const W whole = total_layers * total_sequences;
  const bool has_share = whole != W(0);
  const W share = has_share ? W(eigen::scalar<W>(options.scale) / whole) : W(0);
  const W gradient_share = share * eigen::weight_or_one(in.upstream, 0);
  const bool wants_gradient = out.grad_logits.given() && (options.mode == gradient_mode::overwrite || (options.scale != 0 && has_share));

  W sum(0);
  for (index_t l = 0; l < layers; ++l) {
    for (index_t s = 0; s < count; ++s) {
      const auto& [rows, mass] = sequences[static_cast<std::size_t>(s)];
      const bool has_weight = layer_weights[l] != W(0) && sequence_weights[s] != W(0);   // without it nothing is read
      const W weight = layer_weights[l] * sequence_weights[s];
      W divergence(0);
      array histogram = array::Zero(experts);
      if (has_weight) {
        if (in.histograms.given())
          histogram = eigen::load_row(in.histograms[l].row(s), experts).template cast<W>();
        else
          histogram = eigen::sum_of_softmax(in.logits[l], rows, in.token_weights) / mass;
        const array anchor = eigen::load_row(in.anchors[l].row(anchor_row(s)), experts).template cast<W>();
        const eigen::divergence_from_anchor<W> step(anchor, histogram);
        divergence = step.divergence;
        sum += W(weight * divergence);
        if (wants_gradient && has_share)
          eigen::sum_of_softmax_gradient(in.logits[l], rows, in.token_weights, step.slopes.template cast<A>(),
                                         W(gradient_share * weight) / mass, options.mode, out.grad_logits[l]);
      }
      if (wants_gradient && !(has_weight && has_share)) eigen::clear_rows_of(out.grad_logits[l], rows, options.mode);
      if (out.divergence.given()) out.divergence(l, s) = A(divergence);
      if (out.histograms.given()) eigen::store_row<A>(histogram.template cast<A>(), gradient_mode::overwrite, out.histograms[l].row(s));
    }
  }
  if (wants_gradient) eigen::clear_rows_of_no_sequence(out.grad_logits, in.sequences, options.mode);
  for (index_t s = 0; s < count && out.token_mass.given(); ++s) out.token_mass[s] = A(sequences[static_cast<std::size_t>(s)].mass);
  if (out.loss.given()) out.loss[0] = has_share ? A(sum * share) : A(0);
}

}   // namespace SARA_ABI
}   // namespace sara
