// The soft routing histogram and its backward on the GPU: one sweep of cuda/sweeps.cuh each.
#pragma once

#include "../cuda/sweeps.cuh"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// A sequence that has mass counts once.
template <class A> struct routing_histogram_weigh {
  A* token_mass;   // output, or null

  __device__ double operator()(index_t s, double mass) const {
    if (token_mass) token_mass[s] = static_cast<A>(mass);
    return mass != 0 ? 1 : 0;
  }
  __device__ void finish(double) const {}
};

// Forward: a unit's sums to its outputs. Backward: its slopes are given.
template <class A> struct routing_histogram_device_step {
  const device_sequence* plan;
  index_t columns;
  device_layers<A> histograms, sums;        // outputs of the forward, or none
  device_layers<const A> grad_histograms;   // of the backward
  double scale;

  __device__ bool has_weight(index_t, index_t s) const { return plan[s].weight != 0; }
  __device__ bool has_gradient() const { return true; }
  __device__ double coefficient(index_t, index_t s) const { return scale / plan[s].mass; }
  template <class Sweep> __device__ const A* slopes(index_t l, index_t s, const Sweep&) const { return grad_histograms.row(l, s); }

  __device__ void without_weight(index_t l, index_t s) const {
    for (index_t e = static_cast<int>(threadIdx.x) % warp_lanes; e < columns; e += warp_lanes) {
      if (histograms.given()) histograms.row(l, s)[e] = 0;
      if (sums.given()) sums.row(l, s)[e] = 0;
    }
  }
  template <class Sums> __device__ void operator()(index_t l, index_t s, const Sums& sum_of, A*) const {
    for (index_t e = static_cast<int>(threadIdx.x); e < columns; e += block_threads) {
      const double sum = sum_of(e);
      if (histograms.given()) histograms.row(l, s)[e] = static_cast<A>(sum / plan[s].mass);
      if (sums.given()) sums.row(l, s)[e] = static_cast<A>(sum);
    }
  }
  __device__ void finish() const {}
};

// Everything that both calls take from their workspace, and what their kernels are given.
template <class T> struct routing_histogram_on_device {
  using A = arithmetic_t<T>;

  sequence_planning<A, routing_histogram_weigh<A>> planning{};
  tile_sweeps<T> sweep{};
  routing_histogram_device_step<A> step{};
  layer_tables tables;

  routing_histogram_on_device(carver& memory, const layers_view<const T>& logits, const sequences_view& sequences,
                              const vector_view<const A>& token_weights, const A* token_mass, A* token_mass_out, bool sums)
      : tables(memory) {
    const index_t layers = logits.layers(), tokens = logits.rows(), columns = logits.columns(), count = sequences.sequences();
    device_sequence* const plan = memory.take<device_sequence>(count);
    const index_t counters = sums ? 2 + layers * count : 1;
    planning = {sequences, tokens, token_weights.data(), token_mass, plan, memory.take<unsigned>(counters), counters, {token_mass_out}};
    const tile_cut cut(layers, tokens);
    sweep = {tables.take(logits),
             sequences_of(sequences, tokens, plan),
             token_weights.data(),
             layers,
             tokens,
             columns,
             cut.log2_rows,
             lanes_for(columns),
             cut.count,
             !sums,
             sums,
             nullptr,
             planning.counters + 1};
    if (sums) sweep.slots = memory.take<A>(layers * sweep.slots_of_layer() * columns);
    step.plan = plan;
    step.columns = columns;
  }
};

template <class T> struct routing_histogram_forward : routing_histogram_on_device<T> {
  routing_histogram_forward(carver& memory, const routing_histogram_inputs<T>& in, const routing_histogram_outputs<T>& out)
      : routing_histogram_on_device<T>(memory, in.logits, in.sequences, in.token_weights, nullptr, out.token_mass.data(), true) {
    this->step.histograms = this->tables.take(out.histograms);
    this->step.sums = this->tables.take(out.sums);
  }
};

template <class T, class G> struct routing_histogram_backward : routing_histogram_on_device<T> {
  device_layers<G> gradient;

  routing_histogram_backward(carver& memory, const routing_histogram_backward_inputs<T>& in,
                             const routing_histogram_backward_outputs<T, G>& out, const routing_histogram_backward_options& options)
      : routing_histogram_on_device<T>(memory, in.logits, in.sequences, in.token_weights, in.token_mass.data(), nullptr, false) {
    this->step.grad_histograms = this->tables.take(in.grad_histograms);
    this->step.scale = options.scale;
    gradient = this->tables.take(out.grad_logits);
  }
};

// Bytes that the executor's workspace must have for routing_histogram_into; from shapes alone.
template <class T>
std::size_t routing_histogram_workspace_bytes(const routing_histogram_inputs<T>& in,
                                              const routing_histogram_outputs<std::type_identity_t<T>>& out) {
  carver memory;
  routing_histogram_forward<T>(memory, in, out);
  return memory.bytes();
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class T>
void routing_histogram_into(const cuda_executor& exec, const routing_histogram_inputs<T>& in,
                            const routing_histogram_outputs<std::type_identity_t<T>>& out) {
  static_assert(is_kernel_storage<T>, "cuda_executor computes with double, float, bf16 and fp16 storage");
  constexpr const char* function = "routing_histogram_into";
  check_routing_histogram(function, in, out);
  const device_call call(function, exec.stream());
  check_memory(call, [&](const auto& places) { place_routing_histogram(places, in, out); });
  const device_scratch memory(call, exec, routing_histogram_workspace_bytes(in, out));
  carver carve = memory.carve();
  const routing_histogram_forward<T> mine(carve, in, out);
  const bool wants_sums = out.histograms.given() || out.sums.given();
  if (wants_sums) {
    mine.tables.write(call, in.logits, mine.sweep.logits);
    mine.tables.write(call, out.histograms, mine.step.histograms);
    mine.tables.write(call, out.sums, mine.step.sums);
  }
  plan(call, mine.planning);
  if (wants_sums) sum_and_settle(call, mine.sweep, common_alignment<T>(in.logits), mine.step);
}

// Bytes that the executor's workspace must have for routing_histogram_backward_into; from shapes alone.
template <class T, class G = T>
std::size_t routing_histogram_backward_workspace_bytes(const routing_histogram_backward_inputs<T>& in,
                                                       const routing_histogram_backward_outputs<std::type_identity_t<T>, G>& out,
                                                       const routing_histogram_backward_options& options = {}) {
  carver memory;
  routing_histogram_backward<T, G>(memory, in, out, options);
  return memory.bytes();
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class T, class G = T>
void routing_histogram_backward_into(const cuda_executor& exec, const routing_histogram_backward_inputs<T>& in,
                                     const routing_histogram_backward_outputs<std::type_identity_t<T>, G>& out,
                                     const routing_histogram_backward_options& options = {}) {
  static_assert(is_kernel_storage<T>, "cuda_executor computes with double, float, bf16 and fp16 storage");
  constexpr const char* function = "routing_histogram_backward_into";
  check_routing_histogram_backward(function, in, out, options);
  const device_call call(function, exec.stream());
  const bool adds = options.mode == gradient_mode::accumulate;
  check_memory(call, [&](const auto& places) { place_routing_histogram_backward(places, in, out, options); });
  if (!out.grad_logits.given() || (adds && options.scale == 0)) return;
  const device_scratch memory(call, exec, routing_histogram_backward_workspace_bytes(in, out, options));
  carver carve = memory.carve();
  const routing_histogram_backward<T, G> mine(carve, in, out, options);
  mine.tables.write(call, in.logits, mine.sweep.logits);
  mine.tables.write(call, in.grad_histograms, mine.step.grad_histograms);
  mine.tables.write(call, out.grad_logits, mine.gradient);
  plan(call, mine.planning);
  differentiate(call, mine.sweep, common_alignment<T>(in.logits, out.grad_logits, in.grad_histograms), mine.gradient, adds, mine.step);
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
