// The backward of the hard routing histogram on the GPU: a slot has the slope of its expert in its sequence, so each warp takes a stretch of
// positions.
#pragma once

#include "cuda.cuh"
#include "cuda_chosen.cuh"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// The positions that a warp of the backward takes.
inline constexpr index_t stretch_positions = 64;

// The gradient of a run's slots, by a warp. `slopes`: of the run's sequence; null where it has no gradient.
template <class W, class I>
__device__ void differentiate_run(const chosen_experts<W, I>& batch, index_t l, const typename chosen_experts<W, I>::run& run,
                                  const arithmetic_t<W>* slopes, double coefficient, const device_matrix<W>& gradient, bool adds) {
  using A = arithmetic_t<W>;
  if (adds && !slopes) return;
  const device_matrix<const I> indices = batch.indices.layer(l);
  slot_walk walk(static_cast<int>(threadIdx.x) % warp_lanes, warp_lanes, batch.k);
  for (; walk.slot < run.slots; walk.next(warp_lanes, batch.k)) {
    const index_t row = run.first_row + walk.token * run.row_step;
    const A weight = slopes ? batch.token_weight(row) : A(0);
    index_t expert = -1;
    if (weight != 0) expert = static_cast<index_t>(indices.row(row)[walk.column]);
    W& to = gradient.row(row)[walk.column];
    if (expert >= 0 && expert < batch.experts) {
      const A g = static_cast<A>(coefficient * static_cast<double>(weight) * static_cast<double>(slopes[expert]));
      narrow_one(to, adds ? widen_one(to) + g : g);
    } else if (!adds) {
      narrow_one(to, A(0));   // not routed, or not counted
    }
  }
}

template <class W, class I>
__global__ void __launch_bounds__(block_threads)
    differentiate_chosen(const __grid_constant__ chosen_experts<W, I> batch, index_t stretches,
                         const __grid_constant__ device_layers<const arithmetic_t<W>> slopes, double scale,
                         const __grid_constant__ device_layers<W> gradient, bool adds) {
  const index_t stretch = static_cast<index_t>(blockIdx.x) * block_warps + static_cast<int>(threadIdx.x) / warp_lanes;
  if (stretch >= batch.layers * stretches) return;
  const index_t l = stretch / stretches, begin = stretch % stretches * stretch_positions;
  const index_t end = begin + stretch_positions < batch.tokens ? begin + stretch_positions : batch.tokens;
  const device_matrix<W> matrix = gradient.layer(l);
  // Positions of no sequence, which the packed layout alone has: a position is a row.
  const auto of_no_sequence = [&](index_t from, index_t to) {
    differentiate_run(batch, l, {from, 1, (to - from) * batch.k}, nullptr, 0, matrix, adds);
  };

  index_t reached = begin;
  for (index_t s = batch.sequences.first_behind(begin); s < batch.sequences.count; ++s) {
    const device_sequence& sequence = batch.sequences.of[s];
    if (sequence.begin >= end) break;
    const index_t from = sequence.begin > begin ? sequence.begin : begin, to = sequence.end < end ? sequence.end : end;
    if (from >= to) continue;
    of_no_sequence(reached, from);
    reached = to;
    differentiate_run(batch, l, batch.run_of(s, from, to), sequence.mass != 0 ? slopes.row(l, s) : nullptr, scale / sequence.mass, matrix,
                      adds);
  }
  of_no_sequence(reached, end);
}

template <class W, class I> struct hard_histogram_backward {
  using A = arithmetic_t<W>;

  sequence_planning<A, routing_histogram_weigh<A>> planning{};
  chosen_experts<W, I> batch{};
  device_layers<const A> slopes;
  device_layers<W> gradient;
  layer_tables tables;

  hard_histogram_backward(carver& memory, const hard_routing_histogram_backward_inputs<W, I>& in,
                          const hard_routing_histogram_backward_outputs<W>& out)
      : tables(memory) {
    const index_t layers = in.indices.layers(), tokens = in.indices.rows(), count = in.sequences.sequences();
    device_sequence* const plan = memory.take<device_sequence>(count);
    planning = {in.sequences, tokens, in.token_weights.data(), in.token_mass.data(), plan, memory.take<unsigned>(1), 1, {nullptr}};
    batch = {tables.take(in.indices),
             {},
             sequences_of(in.sequences, tokens, plan),
             in.token_weights.data(),
             layers,
             tokens,
             in.grad_histograms.columns(),
             in.indices.columns()};
    slopes = tables.take(in.grad_histograms);
    gradient = tables.take(out.grad_weights);
    if (!out.grad_weights.given()) memory.take<layer_place>(layers);   // a query that does not name it
  }
};

// Bytes that the executor's workspace must have for hard_routing_histogram_backward_into; from shapes alone.
template <class W, class I>
std::size_t hard_routing_histogram_backward_workspace_bytes(
    const hard_routing_histogram_backward_inputs<W, I>& in,
    const hard_routing_histogram_backward_outputs<std::type_identity_t<W>>& out = {}) {
  carver memory;
  hard_histogram_backward<W, I>(memory, in, out);
  return memory.bytes();
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class W, class I>
void hard_routing_histogram_backward_into(const cuda_executor& exec, const hard_routing_histogram_backward_inputs<W, I>& in,
                                          const hard_routing_histogram_backward_outputs<std::type_identity_t<W>>& out,
                                          const routing_histogram_backward_options& options = {}) {
  static_assert(is_kernel_storage<W>, "cuda_executor computes with double, float, bf16 and fp16 storage");
  constexpr const char* function = "hard_routing_histogram_backward_into";
  check_hard_routing_histogram_backward(function, in, out);
  const bool adds = options.mode == gradient_mode::accumulate;
  if (!out.grad_weights.given() || (adds && options.scale == 0)) return;
  const device_call call(function, exec.stream());
  check_memory(call, [&](const auto& places) { place_hard_routing_histogram_backward(places, in, out); });
  const device_scratch memory(call, exec, hard_routing_histogram_backward_workspace_bytes(in, out));
  carver carve = memory.carve();
  const hard_histogram_backward<W, I> mine(carve, in, out);
  plan(call, mine.planning);
  mine.tables.write(call, in.indices, mine.batch.indices);
  mine.tables.write(call, in.grad_histograms, mine.slopes);
  mine.tables.write(call, out.grad_weights, mine.gradient);
  if (mine.batch.k == 0) return;
  const index_t stretches = (mine.batch.tokens + stretch_positions - 1) / stretch_positions;
  call.launch(differentiate_chosen<W, I>, (mine.batch.layers * stretches + block_warps - 1) / block_warps, block_threads, 0, mine.batch,
              stretches, mine.slopes, options.scale, mine.gradient, adds);
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
