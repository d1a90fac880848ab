// top_k and its backward on the GPU: two ways lead to the k largest scores of a row.
//
// Lists (cuda_lists.cuh), for k up to 32 (8 of double): a group of lanes a row, some 32 columns a lane, one pass.
//
// Rounds, for any k: a warp a row. Each round reads the row again for the largest key below the one that was chosen last.
#pragma once

#include "../cuda/executor.cuh"
#include "../cuda/exponentials.cuh"
#include "cuda_lists.cuh"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// What the kernels are given.
template <class T, class V, class I> struct top_k_on_device {
  using A = arithmetic_t<T>;

  top_k_inputs<T, V> in;
  top_k_outputs<T, I> out;
  top_k_options options;
  int lanes;   // that share a row
  index_t k;

  // A weight from the chosen value, or exponential, and the sum that it is divided by, if it is.
  __device__ __forceinline__ A weight(A value, A sum) const {
    if (options.softmax)
      value *= inverse(sum);
    else if (options.renormalize)
      value = sum != 0 ? value / sum : A(0);
    return value * static_cast<A>(options.scale);
  }
};

// Sum of the exponentials of a lane's part of a row. NaN if one of its scores is.
template <bool aligned, class T>
__device__ __forceinline__ arithmetic_t<T> exponentials_of_lane(const T* row, int columns, const math::exp_row<arithmetic_t<T>>& peak,
                                                                const row_group<0>& g) {
  using A = arithmetic_t<T>;
  A sum = 0;
  for (int first = 0; first < columns; first += 8 * g.lanes()) {
    row_storage<T, row_form<8, 0, aligned ? 16 : 0>> held;
    A z[8], part = 0;
    held.load(row + first, columns - first, g, true);
    held.values(z);
#pragma unroll
    for (const A& each : z) part += math::exp_scaled(lane<A>{each}, peak).v;
    sum += part;
  }
  return sum;
}

template <class T, class V, class I, int best, bool aligned>
__global__ void __launch_bounds__(block_threads) top_k_by_lists(const __grid_constant__ top_k_on_device<T, V, I> given) {
  using A = arithmetic_t<T>;
  const row_group<0> g(given.lanes);
  index_t t = static_cast<index_t>(blockIdx.x) * g.groups + g.group;
  const bool there = t < given.in.scores.rows();
  if (!there) t = 0;
  const int columns = there ? static_cast<int>(given.in.scores.columns()) : 0, k = there ? static_cast<int>(given.k) : 0;
  const T* const scores = given.in.scores.row(t);
  const V* const values = given.in.values.data() ? given.in.values.row(t) : nullptr;
  I* const indices = given.out.indices.data() ? given.out.indices.row(t) : nullptr;
  A* const weights = given.out.weights.data() ? given.out.weights.row(t) : nullptr;
  best_of_row<T, best, aligned> found;
  found.take(scores, columns, g);

  // A slot a lane, as often as it takes: neighbours write side by side.
  const auto each_slot = [&](const auto& visit) {
#pragma unroll
    for (int i = 0; i < best; ++i)
      if (const int slot = i * g.lanes() + g.lane; slot < k) visit(i, slot);
  };
  A weight[best];
  each_slot([&](int i, int slot) {
    const int e = found.expert_at(slot);
    if (indices) indices[slot] = static_cast<I>(e);
    if (weights) weight[i] = values ? static_cast<A>(widen_one(values[e])) : widen_one(scores[e]);
  });
  if (!weights) return;

  A sum = 0;
  if (given.options.softmax) {
    const math::exp_row<A> peak(there ? widen_one(scores[found.best_expert()]) : A(0));
    each_slot([&](int i, int) { weight[i] = math::exp_scaled(lane<A>{weight[i]}, peak).v; });
    if (!given.options.renormalize)
      sum = exponentials_of_lane<aligned>(scores, columns, peak, g);
    else if (found.nan())
      sum = static_cast<A>(NAN);
  }
  if (given.options.renormalize) each_slot([&](int i, int) { sum += weight[i]; });
  if (given.options.renormalize || given.options.softmax) sum = g.sum(sum);
  each_slot([&](int i, int slot) { weights[slot] = given.weight(weight[i], sum); });
}

template <class T, class V, class I>
__global__ void __launch_bounds__(block_threads) top_k_by_rounds(const __grid_constant__ top_k_on_device<T, V, I> given) {
  using A = arithmetic_t<T>;
  using math::wide_key;
  const row_group<warp_lanes> g(warp_lanes);
  const index_t t = static_cast<index_t>(blockIdx.x) * g.groups + g.group;
  if (t >= given.in.scores.rows()) return;
  const T* const scores = given.in.scores.row(t);
  const index_t columns = given.in.scores.columns(), k = given.k;
  const V* const values = given.in.values.data() ? given.in.values.row(t) : nullptr;
  I* const indices = given.out.indices.data() ? given.out.indices.row(t) : nullptr;
  A* const weights = given.out.weights.data() ? given.out.weights.row(t) : nullptr;
  const bool softmax = weights && given.options.softmax;
  exp_sum<A> exponentials{};
  if (softmax) exponentials = sum_row(scores, columns);
  wide_key last{0x7fffffffffffffffLL, -1};   // above every key
  index_t expert = 0;
  A sum = 0;
  for (index_t i = 0; i < k; ++i) {
    wide_key best = wide_key::none();
    for (index_t e = g.lane; e < columns; e += warp_lanes) {
      const wide_key key{math::ordered_bits(widen_one(scores[e])), e};
      if (last > key && key > best) best = key;
    }
#pragma unroll
    for (int bit = 1; bit < warp_lanes; bit *= 2) best = larger(best, exchanged(best, bit));
    last = best;
    const int place = static_cast<int>(i % warp_lanes);
    if (place == g.lane) expert = best.index;
    if ((place < warp_lanes - 1 && i < k - 1) || g.lane > place) continue;
    // A slot a lane: neighbours write side by side.
    const index_t slot = i - place + g.lane;
    if (indices) indices[slot] = static_cast<I>(expert);
    if (!weights) continue;
    A weight = values ? static_cast<A>(widen_one(values[expert])) : widen_one(scores[expert]);
    if (softmax) weight = math::exp_scaled(lane<A>{weight}, exponentials.peak).v;
    weights[slot] = weight;
    sum += weight;
  }
  if (!weights) return;
  sum = g.sum(sum);
  if (softmax) sum = given.options.renormalize ? sum + (exponentials.sum - exponentials.sum) : exponentials.sum;   // NaN where a score is
  for (index_t slot = g.lane; slot < k; slot += warp_lanes) weights[slot] = given.weight(weights[slot], sum);      // its own
}

// Contract and rules of choice: sara/top_k.hpp.
template <class T, class V, class I = std::int32_t>
void top_k_into(const cuda_executor& exec, const top_k_inputs<T, V>& in, const top_k_outputs<std::type_identity_t<T>, I>& out,
                const top_k_options& options = {}) {
  static_assert(is_kernel_storage<T> && is_kernel_storage<V>,
                "cuda_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "top_k_into";
  check_top_k(function, in, out, options);
  if (!out.indices.given() && !out.weights.given()) return;

  const index_t tokens = in.scores.rows(), experts = in.scores.columns();
  const index_t k = out.indices.given() ? out.indices.columns() : out.weights.columns();
  const device_call call(function, exec.stream());
  check_memory(call, [&](const auto& places) { place_top_k(places, in, out); });
  top_k_on_device<T, V, I> given{in, out, options, 1, k};
  constexpr int most = most_in_list<arithmetic_t<T>>;
  if (k > most || experts > most_experts_in_list<T>)
    return call.launch(top_k_by_rounds<T, V, I>, (tokens + block_warps - 1) / block_warps, block_threads, 0, given);

  while (given.lanes < warp_lanes && given.lanes * 32 < experts) given.lanes *= 2;
  const index_t at_once = block_threads / given.lanes;
  const auto launch = [&](auto best) {
    const index_t blocks = (tokens + at_once - 1) / at_once;
    if (rows_are_aligned(in.scores, 16) && experts % packet_width<T> == 0)
      call.launch(top_k_by_lists<T, V, I, decltype(best)::value, true>, blocks, block_threads, 0, given);
    else
      call.launch(top_k_by_lists<T, V, I, decltype(best)::value, false>, blocks, block_threads, 0, given);
  };
  if (k <= 4) return launch(constant<4>{});
  if (k <= 8) return launch(constant<8>{});
  if constexpr (most > 8) {
    if (k <= 16) return launch(constant<16>{});
    launch(constant<32>{});
  }
}

// A group of lanes a row. Zeros to the row, and to each of the chosen, by the first of its slots, what all of its slots bring.
template <class V, class I, class G>
__global__ void __launch_bounds__(block_threads)
    top_k_backward_rows(const __grid_constant__ top_k_backward_inputs<V, I> in, const __grid_constant__ top_k_backward_outputs<V, G> out,
                        const __grid_constant__ top_k_backward_options options, int lanes, bool aligned) {
  using A = arithmetic_t<V>;
  const row_group<0> g(lanes);
  const index_t row = static_cast<index_t>(blockIdx.x) * g.groups + g.group;
  const index_t experts = out.grad_values.columns(), k = in.indices.columns();
  const bool there = row < out.grad_values.rows();
  const index_t t = there ? row : 0, slots = there ? k : 0;
  const A scale = static_cast<A>(options.scale);
  const auto chosen = [&](index_t i) { return static_cast<index_t>(in.indices(t, i)); };
  const auto is_routed = [&](index_t e) { return e >= 0 && e < experts; };

  A sum = 0, dot = 0;   // of the chosen values; of value times gradient
  if (options.renormalize) {
    for (index_t i = g.lane; i < slots; i += lanes) {
      const index_t e = chosen(i);
      if (!is_routed(e)) continue;
      const A v = widen_one(in.values(t, e));
      sum += v;
      dot += v * in.grad_weights(t, i);
    }
    sum = g.sum(sum);
    dot = g.sum(dot);
  }
  G* const to = out.grad_values.row(t);
  if (there && options.mode == gradient_mode::overwrite) {
    if (aligned) {
      for (index_t e = g.lane * packet_width<G>; e < experts; e += lanes * packet_width<G>) store_packet(to + e, packet{});
    } else {
      for (index_t e = g.lane; e < experts; e += lanes) narrow_one(to[e], A(0));
    }
  }
  __syncwarp();   // the zeros of all lanes are there
  const auto slot_gradient = [&](index_t i) {
    const A given = in.grad_weights(t, i);
    if (!options.renormalize) return given * scale;
    return sum != 0 ? (given - dot / sum) / sum * scale : A(0);
  };
  for (index_t i = g.lane; i < slots; i += lanes) {
    const index_t e = chosen(i);
    if (!is_routed(e)) continue;
    A gradient = 0;
    bool is_first = true;
    for (index_t j = 0; j < k; ++j)
      if (chosen(j) == e) {
        is_first = is_first && j >= i;
        gradient += slot_gradient(j);
      }
    if (is_first) narrow_one(to[e], widen_one(to[e]) + gradient);
  }
}

// Contract and formulas: sara/top_k.hpp.
template <class V, class I, class G = V>
void top_k_backward_into(const cuda_executor& exec, const top_k_backward_inputs<V, I>& in,
                         const top_k_backward_outputs<std::type_identity_t<V>, G>& out, const top_k_backward_options& options = {}) {
  static_assert(is_kernel_storage<V> && is_kernel_storage<G>,
                "cuda_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "top_k_backward_into";
  check_top_k_backward(function, in, out, options);
  if (options.mode == gradient_mode::accumulate && options.scale == 0) return;

  const index_t tokens = out.grad_values.rows(), experts = out.grad_values.columns();
  int lanes = 1;
  while (lanes < warp_lanes && lanes * packet_width<G> < experts) lanes *= 2;
  const index_t at_once = block_threads / lanes;
  const bool aligned = rows_are_aligned(out.grad_values, 16) && experts % packet_width<G> == 0;
  const device_call call(function, exec.stream());
  check_memory(call, [&](const auto& places) { place_top_k_backward(places, in, out); });
  call.launch(top_k_backward_rows<V, I, G>, (tokens + at_once - 1) / at_once, block_threads, 0, in, out, options, lanes, aligned);
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
