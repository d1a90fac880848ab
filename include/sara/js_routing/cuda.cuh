// js_routing on the GPU: the two sweeps of cuda/sweeps.cuh with the divergence's step between them, all layers in each launch.
#pragma once

#include "../cuda/sweeps.cuh"
#include "../math/js.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// What a call's weights come to, formed on the device: where they lie.
struct js_routing_share {
  double loss;       // scale / (V W), 0 where V or W is 0
  double gradient;   // times upstream
  bool has_any;      // V W is not 0
};

// The effective weight of a sequence, and their sum's share.
template <class A> struct js_routing_weigh {
  integers_view anchor_rows;
  index_t anchor_count, layers;
  const A *sequence_weights, *layer_weights, *total_layer_weight, *total_sequence_weight, *upstream;   // or null
  A* token_mass;                                                                                       // or null
  double scale;
  js_routing_share* share;

  __device__ double operator()(index_t s, double mass) const {
    if (token_mass) token_mass[s] = static_cast<A>(mass);
    const index_t row = anchor_rows.given() ? anchor_rows[s] : s;
    if (mass == 0 || row < 0 || row >= anchor_count) return 0;
    return sequence_weights ? static_cast<double>(sequence_weights[s]) : 1;
  }
  __device__ void finish(double all_sequences) const {
    double all_layers = static_cast<double>(layers);
    if (layer_weights && !total_layer_weight) {
      double sum = 0;
      for (index_t l = static_cast<int>(threadIdx.x); l < layers; l += block_threads) sum += static_cast<double>(layer_weights[l]);
      all_layers = sum_over_block(sum);
    }
    if (threadIdx.x != 0) return;
    const double whole = (total_layer_weight ? static_cast<double>(*total_layer_weight) : all_layers) *
                         (total_sequence_weight ? static_cast<double>(*total_sequence_weight) : all_sequences);
    share->has_any = whole != 0;
    share->loss = whole == 0 ? 0 : scale / whole;
    share->gradient = (upstream ? static_cast<double>(*upstream) : 1) * share->loss;
  }
};

// A unit's step, in double: histogram from its sums, divergence from the anchor, slopes by the anchor's side left out. The slopes
// lose their mean under the histogram: the gradient does not see it, and what is left rounds less.
template <class A> struct js_routing_device_step {
  device_layers<const A> anchors, saved;   // `saved`: histograms as an input, or none
  integers_view anchor_rows;
  const A* layer_weights;   // or null
  const device_sequence* plan;
  const js_routing_share* share;
  index_t layers, sequences, columns;
  double* divergences;    // [layers, sequences]
  A *loss, *divergence;   // outputs, or null
  index_t divergence_stride;
  device_layers<A> histograms;   // output, or none

  __device__ double layer_weight(index_t l) const { return layer_weights ? static_cast<double>(layer_weights[l]) : 1; }
  __device__ bool has_weight(index_t l, index_t s) const { return plan[s].weight != 0 && layer_weight(l) != 0; }
  __device__ bool has_gradient() const { return share->has_any; }
  __device__ double coefficient(index_t l, index_t s) const { return share->gradient * layer_weight(l) * plan[s].weight / plan[s].mass; }
  template <class Sweep> __device__ const A* slopes(index_t l, index_t s, const Sweep& sweep) const { return sweep.slopes(l, s); }

  __device__ void without_weight(index_t l, index_t s) const {
    const int first = static_cast<int>(threadIdx.x) % warp_lanes;
    if (first == 0 && divergence) divergence[l * divergence_stride + s] = 0;
    for (index_t e = first; histograms.given() && e < columns; e += warp_lanes) histograms.row(l, s)[e] = 0;
  }

  template <class Sums> __device__ void operator()(index_t l, index_t s, const Sums& sums, A* to) const {
    const index_t thread = static_cast<int>(threadIdx.x);
    const double mass = plan[s].mass;
    const A* const anchor = anchors.row(l, anchor_rows.given() ? anchor_rows[s] : s);
    const A* const given = saved.given() ? saved.row(l, s) : nullptr;
    const auto share_of = [&](index_t e) { return given ? static_cast<double>(given[e]) : sums(e) / mass; };
    double js = 0, mean = 0, q = 0, slope = 0;   // q and slope: of the thread's last expert, often its only one
    for (index_t e = thread; e < columns; e += block_threads) {
      q = share_of(e);
      const auto term = math::js(lane<double>{static_cast<double>(anchor[e])}, lane<double>{q});
      slope = term.slope_q.v;
      js += term.value.v;
      mean += slope * q;
      if (histograms.given()) histograms.row(l, s)[e] = static_cast<A>(q);
    }
    js = sum_over_block(js);
    mean = sum_over_block(mean);
    for (index_t e = thread; e < columns; e += block_threads) {
      if (columns > block_threads) slope = math::js(lane<double>{static_cast<double>(anchor[e])}, lane<double>{share_of(e)}).slope_q.v;
      to[e] = static_cast<A>(slope - mean);
    }
    if (thread != 0) return;
    divergences[l * sequences + s] = js;
    if (divergence) divergence[l * divergence_stride + s] = static_cast<A>(js);
  }

  // The loss, in one fixed order.
  __device__ void finish() const {
    if (!loss) return;
    double sum = 0;
    for (index_t unit = static_cast<int>(threadIdx.x); unit < layers * sequences; unit += block_threads) {
      const index_t l = unit / sequences, s = unit % sequences;
      if (has_weight(l, s)) sum += layer_weight(l) * (plan[s].weight * divergences[unit]);
    }
    sum = sum_over_block(sum);
    if (threadIdx.x == 0) *loss = share->has_any ? static_cast<A>(sum * share->loss) : A(0);
  }
};

// Everything a call takes from its workspace, and what its kernels are given.
template <class T, class G> struct js_routing_on_device {
  using A = arithmetic_t<T>;

  A* loss;   // for js_routing, which returns it
  sequence_planning<A, js_routing_weigh<A>> planning{};
  tile_sweeps<T> sweep{};
  js_routing_device_step<A> step{};
  device_layers<G> gradient;
  bool wants_gradient;
  layer_tables tables;

  js_routing_on_device(carver& memory, const js_routing_inputs<T>& in, const js_routing_outputs<T, G>& out,
                       const js_routing_options& options)
      : wants_gradient(out.grad_logits.given() && !(options.mode == gradient_mode::accumulate && options.scale == 0)), tables(memory) {
    const index_t layers = in.logits.layers(), tokens = in.logits.rows(), columns = in.logits.columns(),
                  sequences = in.sequences.sequences();
    loss = memory.take<A>(1);
    js_routing_share* const share = memory.take<js_routing_share>(1);
    device_sequence* const plan = memory.take<device_sequence>(sequences);
    unsigned* const counters = memory.take<unsigned>(2 + layers * sequences);
    step.divergences = memory.take<double>(layers * sequences);

    const tile_cut cut(layers, tokens);
    sweep = {tables.take(in.logits),
             sequences_of(in.sequences, tokens, plan),
             in.token_weights.data(),
             layers,
             tokens,
             columns,
             cut.log2_rows,
             lanes_for(columns),
             cut.count,
             wants_gradient,
             !in.histograms.given(),
             nullptr,
             counters + 1};
    sweep.slots = memory.take<A>(layers * sweep.slots_of_layer() * columns);

    planning = {
        in.sequences,
        tokens,
        in.token_weights.data(),
        in.token_mass.data(),
        plan,
        counters,
        2 + layers * sequences,
        {in.anchor_rows, in.anchors.rows(), layers, in.sequence_weights.data(), in.layer_weights.data(), in.total_layer_weight.data(),
         in.total_sequence_weight.data(), in.upstream.data(), out.token_mass.data(), options.scale, share}};
    step.anchors = tables.take(in.anchors);
    step.saved = tables.take(in.histograms);
    step.anchor_rows = in.anchor_rows;
    step.layer_weights = in.layer_weights.data();
    step.plan = plan;
    step.share = share;
    step.layers = layers;
    step.sequences = sequences;
    step.columns = columns;
    step.loss = out.loss.data();
    step.divergence = out.divergence.data();
    step.divergence_stride = out.divergence.row_stride();
    step.histograms = tables.take(out.histograms);
    gradient = tables.take(out.grad_logits);
  }

  void run(const device_call& call, const js_routing_inputs<T>& in, const js_routing_outputs<T, G>& out,
           const js_routing_options& options) const {
    tables.write(call, in.logits, sweep.logits);
    tables.write(call, in.anchors, step.anchors);
    tables.write(call, in.histograms, step.saved);
    tables.write(call, out.histograms, step.histograms);
    if (wants_gradient) tables.write(call, out.grad_logits, gradient);
    plan(call, planning);
    if (step.loss || out.divergence.given() || out.histograms.given() || wants_gradient)
      sum_and_settle(call, sweep, common_alignment<T>(in.logits), step);
    if (wants_gradient)
      differentiate(call, sweep, common_alignment<T>(in.logits, out.grad_logits), gradient, options.mode == gradient_mode::accumulate,
                    step);
  }
};

// Bytes that the executor's workspace must have for js_routing_into and js_routing; from shapes alone.
template <class T, class G = T>
std::size_t js_routing_workspace_bytes(const js_routing_inputs<T>& in, const js_routing_outputs<std::type_identity_t<T>, G>& out,
                                       const js_routing_options& options = {}) {
  carver memory;
  js_routing_on_device<T, G>(memory, in, out, options);
  return memory.bytes();
}

// Contract and formulas: sara/js_routing.hpp.
template <class T, class G = T>
void js_routing_into(const cuda_executor& exec, const js_routing_inputs<T>& in, const js_routing_outputs<std::type_identity_t<T>, G>& out,
                     const js_routing_options& options = {}) {
  static_assert(is_kernel_storage<T>, "cuda_executor computes with double, float, bf16 and fp16 storage");
  constexpr const char* function = "js_routing_into";
  check_js_routing(function, in, out, options);
  const device_call call(function, exec.stream());
  check_memory(call, [&](const auto& places) { place_js_routing(places, in, out, options); });
  const device_scratch memory(call, exec, js_routing_workspace_bytes(in, out, options));
  carver carve = memory.carve();
  js_routing_on_device<T, G>(carve, in, out, options).run(call, in, out, options);
}

// The loss alone, returned to the host, which waits for the stream: not while it captures a graph.
template <class T>
arithmetic_t<T> js_routing(const cuda_executor& exec, const js_routing_inputs<T>& in, const js_routing_options& options = {}) {
  constexpr const char* function = "js_routing";
  js_routing_outputs<T> out;
  check_js_routing(function, in, out, options);
  const device_call call(function, exec.stream());
  if (call.captures()) fail(function, "the stream captures a graph, and a loss for the host cannot be waited for: call js_routing_into");
  check_memory(call, [&](const auto& places) { place_js_routing(places, in, out, options); });
  const device_scratch memory(call, exec, js_routing_workspace_bytes(in, out, options));
  carver carve = memory.carve();
  js_routing_on_device<T, T> mine(carve, in, out, options);
  mine.step.loss = mine.loss;
  mine.run(call, in, out, options);
  arithmetic_t<T> loss{};
  call.check(cudaMemcpyAsync(&loss, mine.loss, sizeof loss, cudaMemcpyDeviceToHost, call.stream()), "copying the loss to the host");
  call.check(cudaStreamSynchronize(call.stream()), "waiting for the loss");
  return loss;
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
