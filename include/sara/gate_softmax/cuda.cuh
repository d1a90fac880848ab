// gate_softmax and its backward on the GPU.
//
// Up to 1024 experts a group of lanes has a row in registers, and reads some rows before it computes with the first. Beyond, a warp reads
// its row again and again.
#pragma once

#include "../cuda/executor.cuh"
#include "../cuda/exponentials.cuh"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// Rows of a group in flight, some `arrays` of each: all are read before the first is computed with.
template <class A, class Form, int arrays, int bytes = Form::per_lane* static_cast<int>(sizeof(A)) * arrays>
inline constexpr int softmax_rows_in_flight = bytes < 128 ? 128 / bytes : 1;

template <class T, class P, class Form>
__global__ void __launch_bounds__(block_threads)
    gate_softmax_in_registers(const __grid_constant__ gate_softmax_inputs<T> in, const __grid_constant__ gate_softmax_outputs<T, P> out,
                              int lanes) {
  using A = arithmetic_t<T>;
  constexpr int n = softmax_rows_in_flight<A, Form, 1>;
  const row_group<Form::lanes> g(lanes);
  const index_t tokens = in.logits.rows(), experts = in.logits.columns();
  const index_t first = static_cast<index_t>(blockIdx.x) * n * g.groups + g.group;
  row_storage<T, Form> held[n];
#pragma unroll
  for (int r = 0; r < n; ++r) {
    const index_t t = first + r * g.groups;
    held[r].load(in.logits.row(t), experts, g, t < tokens);
  }
  A z[n][Form::per_lane];
  exp_sum<A> sums[n];
  exponentiate(held, experts, g, z, sums);
#pragma unroll
  for (int r = 0; r < n; ++r) {
    const index_t t = first + r * g.groups;
    if (t >= tokens) continue;
    if (out.probs.data()) {
      const A times = A(1) / sums[r].sum;
#pragma unroll
      for (A& each : z[r]) each *= times;
      store_row<T, Form>(z[r], out.probs.row(t), experts, g);
    }
    if (out.log_sum_exp.data() && g.lane == 0) out.log_sum_exp[t] = static_cast<A>(sums[r].peak.log_sum_exp(sums[r].sum));
  }
}

template <class T, class P>
__global__ void __launch_bounds__(block_threads)
    gate_softmax_from_memory(const __grid_constant__ gate_softmax_inputs<T> in, const __grid_constant__ gate_softmax_outputs<T, P> out) {
  using A = arithmetic_t<T>;
  const row_group<warp_lanes> g(warp_lanes);
  const index_t t = static_cast<index_t>(blockIdx.x) * g.groups + g.group, experts = in.logits.columns();
  if (t >= in.logits.rows()) return;
  const T* const row = in.logits.row(t);
  const exp_sum<A> of_row = sum_row(row, experts);
  if (out.probs.data()) {
    const A times = A(1) / of_row.sum;
    P* const to = out.probs.row(t);   // may be `row`
    for (index_t e = g.lane; e < experts; e += warp_lanes)
      narrow_one(to[e], math::exp_scaled(lane<A>{widen_one(row[e])}, of_row.peak).v * times);
  }
  if (out.log_sum_exp.data() && g.lane == 0) out.log_sum_exp[t] = static_cast<A>(of_row.peak.log_sum_exp(of_row.sum));
}

// Contract and formulas: sara/gate_softmax.hpp.
template <class T, class P = T>
void gate_softmax_into(const cuda_executor& exec, const gate_softmax_inputs<T>& in,
                       const gate_softmax_outputs<std::type_identity_t<T>, P>& out) {
  static_assert(is_kernel_storage<T> && is_kernel_storage<P>,
                "cuda_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "gate_softmax_into";
  check_gate_softmax(function, in, out);
  if (!out.probs.given() && !out.log_sum_exp.given()) return;

  const index_t tokens = in.logits.rows(), experts = in.logits.columns();
  const device_call call(function, exec.stream());
  check_memory(call, [&](const auto& places) { place_gate_softmax(places, in, out); });
  if (experts > most_columns_in_registers)
    return call.launch(gate_softmax_from_memory<T, P>, (tokens + block_warps - 1) / block_warps, block_threads, 0, in, out);
  with_row_form<T>(experts, common_alignment<T>(in.logits, out.probs), [&](auto form) {
    using Form = decltype(form);
    const int lanes = lanes_for(experts), at_once = block_threads / lanes * softmax_rows_in_flight<arithmetic_t<T>, Form, 1>;
    call.launch(gate_softmax_in_registers<T, P, Form>, (tokens + at_once - 1) / at_once, block_threads, 0, in, out, lanes);
  });
}

// scale (p (g - sum of p g) + grad_log_sum_exp p)
template <class P, class G, class Form>
__global__ void __launch_bounds__(block_threads)
    gate_softmax_backward_in_registers(const __grid_constant__ gate_softmax_backward_inputs<P> in,
                                       const __grid_constant__ gate_softmax_backward_outputs<P, G> out,
                                       const __grid_constant__ gate_softmax_backward_options options, int lanes) {
  using A = arithmetic_t<P>;
  constexpr int n = softmax_rows_in_flight<A, Form, 2>, per_lane = Form::per_lane;
  const row_group<Form::lanes> g(lanes);
  const index_t tokens = in.probs.rows(), experts = in.probs.columns();
  const index_t first = static_cast<index_t>(blockIdx.x) * n * g.groups + g.group;
  const A times = static_cast<A>(options.scale);
  A probs[n][per_lane], grad[n][per_lane];
#pragma unroll
  for (int r = 0; r < n; ++r) {
    const index_t t = first + r * g.groups, columns = t < tokens ? experts : 0;
    load_row<P, Form>(probs[r], in.probs.row(t), columns, g, A(0));
    load_row<P, Form>(grad[r], in.grad_probs.row(t), in.grad_probs.data() ? columns : 0, g, A(0));
  }
#pragma unroll
  for (int r = 0; r < n; ++r) {
    const index_t t = first + r * g.groups;
    A dot = 0;
#pragma unroll
    for (int i = 0; i < per_lane; ++i) dot += probs[r][i] * grad[r][i];
    A less = g.sum(dot);
    if (t >= tokens) continue;
    if (in.grad_log_sum_exp.data()) less -= in.grad_log_sum_exp[t];
#pragma unroll
    for (int i = 0; i < per_lane; ++i) grad[r][i] = probs[r][i] * (grad[r][i] - less) * times;
    G* const to = out.grad_logits.row(t);
    if (options.mode == gradient_mode::accumulate) {
      A before[per_lane];
      load_row<P, Form>(before, to, experts, g, A(0));
#pragma unroll
      for (int i = 0; i < per_lane; ++i) grad[r][i] += before[i];
    }
    store_row<P, Form>(grad[r], to, experts, g);
  }
}

template <class P, class G>
__global__ void __launch_bounds__(block_threads)
    gate_softmax_backward_from_memory(const __grid_constant__ gate_softmax_backward_inputs<P> in,
                                      const __grid_constant__ gate_softmax_backward_outputs<P, G> out,
                                      const __grid_constant__ gate_softmax_backward_options options) {
  using A = arithmetic_t<P>;
  const row_group<warp_lanes> g(warp_lanes);
  const index_t t = static_cast<index_t>(blockIdx.x) * g.groups + g.group, experts = in.probs.columns();
  if (t >= in.probs.rows()) return;
  const P* const probs = in.probs.row(t);
  const P* const grad = in.grad_probs.data() ? in.grad_probs.row(t) : nullptr;
  G* const to = out.grad_logits.row(t);   // may be either of them
  double dot = 0;
  for (index_t e = g.lane; grad && e < experts; e += warp_lanes) dot += static_cast<double>(widen_one(probs[e]) * widen_one(grad[e]));
  A less = static_cast<A>(g.sum(dot));
  if (in.grad_log_sum_exp.data()) less -= in.grad_log_sum_exp[t];
  for (index_t e = g.lane; e < experts; e += warp_lanes) {
    const A value = widen_one(probs[e]) * ((grad ? widen_one(grad[e]) : A(0)) - less) * static_cast<A>(options.scale);
    narrow_one(to[e], options.mode == gradient_mode::accumulate ? widen_one(to[e]) + value : value);
  }
}

// Contract and formulas: sara/gate_softmax.hpp.
template <class P, class G = P>
void gate_softmax_backward_into(const cuda_executor& exec, const gate_softmax_backward_inputs<P>& in,
                                const gate_softmax_backward_outputs<std::type_identity_t<P>, G>& out,
                                const gate_softmax_backward_options& options = {}) {
  static_assert(is_kernel_storage<P> && is_kernel_storage<G>,
                "cuda_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "gate_softmax_backward_into";
  check_gate_softmax_backward(function, in, out, options);
  if (!out.grad_logits.given() || (options.mode == gradient_mode::accumulate && options.scale == 0)) return;

  const index_t tokens = in.probs.rows(), experts = in.probs.columns();
  const device_call call(function, exec.stream());
  check_memory(call, [&](const auto& places) {
    places.input("probs", in.probs);
    places.input("grad_probs", in.grad_probs);
    places.input("grad_log_sum_exp", in.grad_log_sum_exp);
    places.output("grad_logits", out.grad_logits);
  });
  if (experts > most_columns_in_registers)
    return call.launch(gate_softmax_backward_from_memory<P, G>, (tokens + block_warps - 1) / block_warps, block_threads, 0, in, out,
                       options);
  with_row_form<P>(experts, common_alignment<P>(in.probs, in.grad_probs, out.grad_logits), [&](auto form) {
    using Form = decltype(form);
    const int lanes = lanes_for(experts), at_once = block_threads / lanes * softmax_rows_in_flight<arithmetic_t<P>, Form, 2>;
    call.launch(gate_softmax_backward_in_registers<P, G, Form>, (tokens + at_once - 1) / at_once, block_threads, 0, in, out, options,
                lanes);
  });
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
