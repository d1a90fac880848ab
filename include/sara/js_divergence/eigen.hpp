// js_divergence in plain Eigen.
#pragma once

#include "../eigen/executor.hpp"
#include "../math/js.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// Contract and formulas: sara/js_divergence.hpp.
template <class T>
void js_divergence_into(const eigen_executor&, const js_divergence_inputs<T>& in, const js_divergence_outputs<arithmetic_t<T>>& out,
                        const js_divergence_options& options = {}) {
  using A = arithmetic_t<T>;
  using W = eigen::wide<A>;
  check_js_divergence("js_divergence_into", in, out);
  if constexpr (eigen::checks_data_of<A>) check_js_divergence_data("js_divergence_into", in);
  const bool wants_slopes = options.mode == gradient_mode::overwrite || options.scale != 0;

  const index_t experts = in.p.columns();
  for (index_t r = 0; r < in.p.rows(); ++r) {
    const eigen::array<W> p = eigen::load_row(in.p.row(r), experts).template cast<W>(),
                          q = eigen::load_row(in.q.row(r), experts).template cast<W>();
    eigen::array<W> slopes_p(experts), slopes_q(experts);
    W divergence(0);
    for (index_t e = 0; e < experts; ++e) {
      const math::js_term<W> term = math::js(p[e], q[e]);
      divergence += term.value;
      slopes_p[e] = term.slope_p;
      slopes_q[e] = term.slope_q;
    }

    const W scale = eigen::weight_or_one(in.grad_divergence, r) * eigen::scalar<W>(options.scale);
    if (out.divergence.given()) out.divergence[r] = A(divergence);
    if (out.grad_p.given() && wants_slopes) eigen::store_row<A>((slopes_p * scale).template cast<A>(), options.mode, out.grad_p.row(r));
    if (out.grad_q.given() && wants_slopes) eigen::store_row<A>((slopes_q * scale).template cast<A>(), options.mode, out.grad_q.row(r));
  }
}

}   // namespace SARA_ABI
}   // namespace sara
