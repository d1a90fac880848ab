// js_routing on the CPU: the two sweeps of cpu/sweeps.hpp with the divergence's step between them.
#pragma once

#include "../cpu/sweeps.hpp"
#include "../math/js.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// One sequence's step, in double: histogram q from its sums, divergence from the anchor, slopes by the anchor's side left out.
// The slopes lose their mean under q: the gradient does not see it, and what is left rounds less.
template <class A> struct js_routing_step_kernel {
  using arithmetic = double;

  double* q;   // [experts] sums, divided by `mass` in place
  double mass;
  const A* anchor;   // [experts]
  double* work;      // [experts]
  A* histogram;      // [experts], where wanted
  A* slopes;         // [experts]
  double* divergence;
  index_t columns;

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<double, bytes>;
    const row_cut<S> cut(columns);
    S tail = load<S>(q + cut.tail_at) / S::broadcast(mass);   // before the last full vector divides the lanes that they share
    for (index_t e = 0; e < cut.full; e += S::lanes) store(q + e, load<S>(q + e) / S::broadcast(mass));
    if (cut.tail) store(q + cut.tail_at, tail);

    S sum = S::broadcast(0), mean = S::broadcast(0);
    const auto add = [&](index_t e, const S& here, const typename S::mask& fresh) __attribute__((always_inline)) {
      const math::js_term<S> term = math::js(load<S>(anchor + e), here);
      sum = sum + select(fresh, term.value, S::broadcast(0));
      mean = mean + select(fresh, term.slope_q * here, S::broadcast(0));
      store(work + e, term.slope_q);
      if (histogram) store(histogram + e, here);
    };
    if (cut.tail) add(cut.tail_at, tail, cut.fresh);
    for (index_t e = 0; e < cut.full; e += S::lanes) add(e, load<S>(q + e), every_lane<S>());
    *divergence = sum_of_lanes(sum);
    const S less = S::broadcast(sum_of_lanes(mean));
    for (index_t e = 0; e < cut.full; e += S::lanes) store(slopes + e, load<S>(work + e) - less);
    if (cut.tail) store(slopes + cut.tail_at, load<S>(work + cut.tail_at) - less);
  }
};

template <class T, class G> struct js_routing_step {
  using A = arithmetic_t<T>;

  const js_routing_inputs<T>& in;
  const js_routing_outputs<T, G>& out;
  instruction_set isa;
  const sequence_plan* plan;
  const double* sequence_weight;   // effective [sequences]
  double* divergence;              // [layers, sequences]
  double gradient_scale;           // upstream scale / (V W)

  double layer_weight(index_t l) const { return in.layer_weights.given() ? static_cast<double>(in.layer_weights[l]) : 1; }
  bool has_weight(index_t l, index_t s) const { return sequence_weight[s] != 0 && layer_weight(l) != 0; }

  void without_weight(index_t l, index_t s) const {
    divergence[l * in.sequences.sequences() + s] = 0;
    if (out.histograms.given()) clear_row(out.histograms[l].row(s), in.logits.columns());
  }

  double operator()(index_t l, index_t s, double* sums, double* work, A* slopes) const {
    const index_t experts = in.logits.columns();
    const bool is_saved = in.histograms.given();
    for (index_t e = 0; is_saved && e < experts; ++e) sums[e] = static_cast<double>(in.histograms[l](s, e));
    const A* const anchor = in.anchors[l].row(in.anchor_rows.given() ? in.anchor_rows[s] : s);
    A* const histogram = out.histograms.given() ? out.histograms[l].row(s) : nullptr;
    double* const to = divergence + l * in.sequences.sequences() + s;
    run_kernel(isa, experts, js_routing_step_kernel<A>{sums, is_saved ? 1 : plan[s].mass, anchor, work, histogram, slopes, to, experts});
    return gradient_scale * layer_weight(l) * sequence_weight[s] / plan[s].mass;
  }
};

// Everything a call takes from its scratch.
template <class T, class G> struct js_routing_memory {
  sequence_plan* plan;
  double *sequence_weight, *divergence;
  softmax_sweeps<T, G, js_routing_step<T, G>> sweeps;

  js_routing_memory(carver& memory, const cpu_executor& exec, const js_routing_inputs<T>& in, const js_routing_outputs<T, G>& out,
                    const js_routing_options& options) {
    const index_t sequences = in.sequences.sequences();
    plan = memory.take<sequence_plan>(sequences);
    sequence_weight = memory.take<double>(sequences);
    divergence = memory.take<double>(in.logits.layers() * sequences);
    sweeps.logits = in.logits;
    sweeps.plan = plan;
    sweeps.sequences = in.sequences;
    sweeps.token_weights = in.token_weights;
    sweeps.gradient = out.grad_logits;
    sweeps.mode = options.mode;
    sweeps.first_sweep = !in.histograms.given();
    sweeps.take(memory, thread_limit(exec));
  }
};

// Bytes that exec.scratch must have for js_routing_into; from shapes and the executor's threads alone.
template <class T, class G = T>
std::size_t js_routing_workspace_bytes(const cpu_executor& exec, const js_routing_inputs<T>& in,
                                       const js_routing_outputs<std::type_identity_t<T>, G>& out, const js_routing_options& options = {}) {
  carver memory;
  js_routing_memory<T, G>(memory, exec, in, out, options);
  return memory.bytes();
}

// Contract and formulas: sara/js_routing.hpp.
template <class T, class G = T>
void js_routing_into(const cpu_executor& given, const js_routing_inputs<T>& in, const js_routing_outputs<std::type_identity_t<T>, G>& out,
                     const js_routing_options& options = {}) {
  using A = arithmetic_t<T>;
  static_assert(is_kernel_storage<T>, "cpu_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "js_routing_into";
  check_js_routing(function, in, out, options);
  check_js_routing_data(function, in, !in.histograms.given() || out.grad_logits.given());
  const cpu_executor exec = ready(function, given);
  const instruction_set isa = exec.isa;
  const index_t layers = in.logits.layers(), sequences = in.sequences.sequences();
  const scratch_memory memory(function, exec, js_routing_workspace_bytes(exec, in, out, options));
  carver carve = memory.carve();
  js_routing_memory<T, G> mine(carve, exec, in, out, options);

  plan_sequences(in.sequences, in.logits.rows(), in.token_weights, mine.plan);
  const auto first_or = [](const vector_view<const A>& v, double otherwise) { return v.given() ? static_cast<double>(v[0]) : otherwise; };
  double all_sequences = 0, all_layers = 0;
  for (index_t s = 0; s < sequences; ++s) {
    if (in.token_mass.given()) mine.plan[s].mass = static_cast<double>(in.token_mass[s]);
    if (out.token_mass.given()) out.token_mass[s] = static_cast<A>(mine.plan[s].mass);
    const index_t row = in.anchor_rows.given() ? in.anchor_rows[s] : s;
    const bool counts = mine.plan[s].mass != 0 && row >= 0 && row < in.anchors.rows();
    mine.sequence_weight[s] = !counts ? 0 : in.sequence_weights.given() ? static_cast<double>(in.sequence_weights[s]) : 1;
    all_sequences += mine.sequence_weight[s];
  }
  for (index_t l = 0; l < layers; ++l) all_layers += in.layer_weights.given() ? static_cast<double>(in.layer_weights[l]) : 1;
  const double whole = first_or(in.total_layer_weight, all_layers) * first_or(in.total_sequence_weight, all_sequences);
  const double share = whole == 0 ? 0 : options.scale / whole;

  // Without a share in the loss there is no gradient: nothing to add, or zeros to write once the logits, which may lie there, are read.
  const bool no_gradient = whole == 0 || (options.mode == gradient_mode::accumulate && options.scale == 0);
  if (no_gradient) mine.sweeps.gradient = {};
  js_routing_step<T, G> step{in, out, isa, mine.plan, mine.sequence_weight, mine.divergence, first_or(in.upstream, 1) * share};
  mine.sweeps.run(exec, isa, step);
  if (no_gradient && options.mode == gradient_mode::overwrite)
    for (index_t l = 0; l < out.grad_logits.layers(); ++l)
      for (index_t t = 0; t < in.logits.rows(); ++t) clear_row(out.grad_logits[l].row(t), in.logits.columns());

  double loss = 0;
  for (index_t l = 0; l < layers; ++l) {
    double of_layer = 0;
    for (index_t s = 0; s < sequences; ++s) {
      const double d = mine.divergence[l * sequences + s];
      if (out.divergence.given()) out.divergence(l, s) = static_cast<A>(d);
      if (step.has_weight(l, s)) of_layer += mine.sequence_weight[s] * d;
    }
    loss += step.layer_weight(l) * of_layer;
  }
  if (out.loss.given()) out.loss[0] = static_cast<A>(whole == 0 ? 0 : loss * share);
}

}   // namespace SARA_ABI
}   // namespace sara
