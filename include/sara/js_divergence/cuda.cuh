// js_divergence on a GPU.
#pragma once

#include "../cuda/executor.cuh"
#include "../cuda/rows.cuh"
#include "../math/js.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// A group of lanes a row; the arithmetic is double for every storage. A lane's columns lie `lanes` apart.
template <class T>
__global__ void __launch_bounds__(block_threads) js_divergence_rows(const __grid_constant__ js_divergence_inputs<T> in,
                                                                    const __grid_constant__ js_divergence_outputs<arithmetic_t<T>> out,
                                                                    const __grid_constant__ js_divergence_options options, int lanes) {
  using A = arithmetic_t<T>;
  const row_group<0> g(lanes);
  const index_t r = static_cast<index_t>(blockIdx.x) * g.groups + g.group, experts = in.p.columns();
  const bool there = r < in.p.rows();
  double sum = 0;
  if (there) {
    const double scale = options.scale * (in.grad_divergence.data() ? static_cast<double>(in.grad_divergence[r]) : 1.0);
    const T *const p = in.p.row(r), *const q = in.q.row(r);
    A* const to_p = out.grad_p.data() ? out.grad_p.row(r) : nullptr;
    A* const to_q = out.grad_q.data() ? out.grad_q.row(r) : nullptr;
    const auto write = [&](A& to, double slope) {
      to = static_cast<A>(options.mode == gradient_mode::overwrite ? slope : static_cast<double>(to) + slope);
    };
    for (index_t e = g.lane; e < experts; e += lanes) {
      const auto term = math::js(lane<double>{static_cast<double>(widen_one(p[e]))}, lane<double>{static_cast<double>(widen_one(q[e]))});
      sum += term.value.v;
      if (to_p) write(to_p[e], term.slope_p.v * scale);
      if (to_q) write(to_q[e], term.slope_q.v * scale);
    }
  }
  sum = g.sum(sum);
  if (there && g.lane == 0 && out.divergence.data()) out.divergence[r] = static_cast<A>(sum);
}

// Contract and formulas: sara/js_divergence.hpp.
template <class T>
void js_divergence_into(const cuda_executor& exec, const js_divergence_inputs<T>& in, const js_divergence_outputs<arithmetic_t<T>>& given,
                        const js_divergence_options& options = {}) {
  static_assert(is_kernel_storage<T>, "cuda_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "js_divergence_into";
  check_js_divergence(function, in, given);
  js_divergence_outputs<arithmetic_t<T>> out = given;
  if (options.mode == gradient_mode::accumulate && options.scale == 0) out.grad_p = out.grad_q = {};
  if (!out.divergence.given() && !out.grad_p.given() && !out.grad_q.given()) return;

  int lanes = 1;
  while (lanes < warp_lanes && lanes < in.p.columns()) lanes *= 2;
  const index_t at_once = block_threads / lanes;
  const device_call call(function, exec.stream());
  check_memory(call, [&](const auto& places) { place_js_divergence(places, in, out); });
  call.launch(js_divergence_rows<T>, (in.p.rows() + at_once - 1) / at_once, block_threads, 0, in, out, options, lanes);
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
