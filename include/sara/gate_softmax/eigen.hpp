// gate_softmax and its backward in plain Eigen.
#pragma once

#include "../eigen/executor.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// Contract and formulas: sara/gate_softmax.hpp.
template <class T, class P = T>
void gate_softmax_into(const eigen_executor&, const gate_softmax_inputs<T>& in,
                       const gate_softmax_outputs<std::type_identity_t<T>, P>& out) {
  check_gate_softmax("gate_softmax_into", in, out);
  if constexpr (eigen::checks_data_of<arithmetic_t<T>>) check_gate_softmax_data("gate_softmax_into", in);
  for (index_t t = 0; t < in.logits.rows(); ++t) {
    const auto row = eigen::softmax(eigen::load_row(in.logits.row(t), in.logits.columns()));
    if (out.probs.given()) eigen::store_row<P>(row.probs, gradient_mode::overwrite, out.probs.row(t));
    if (out.log_sum_exp.given()) out.log_sum_exp[t] = row.log_sum_exp;
  }
}

// Contract and formulas: sara/gate_softmax.hpp.
template <class P, class G = P>
void gate_softmax_backward_into(const eigen_executor&, const gate_softmax_backward_inputs<P>& in,
                                const gate_softmax_backward_outputs<std::type_identity_t<P>, G>& out,
                                const gate_softmax_backward_options& options = {}) {
  using array = eigen::array<arithmetic_t<P>>;
  check_gate_softmax_backward("gate_softmax_backward_into", in, out, options);
  if (!out.grad_logits.given() || (options.mode == gradient_mode::accumulate && options.scale == 0)) return;

  const index_t experts = in.probs.columns();
  const auto scale = eigen::scalar<arithmetic_t<P>>(options.scale);
  for (index_t t = 0; t < in.probs.rows(); ++t) {
    const array probs = eigen::load_row(in.probs.row(t), experts);
    array grad = array::Zero(experts);
    if (in.grad_probs.given()) grad = eigen::softmax_gradient<arithmetic_t<P>>(probs, eigen::load_row(in.grad_probs.row(t), experts));
    if (in.grad_log_sum_exp.given()) grad += probs * in.grad_log_sum_exp[t];
    eigen::store_row<G>(grad * scale, options.mode, out.grad_logits.row(t));
  }
}

}   // namespace SARA_ABI
}   // namespace sara
