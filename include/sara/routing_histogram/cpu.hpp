// The routing histograms, soft and hard, and their backwards on the CPU.
#pragma once

#include "../cpu/blocks.hpp"
#include "../cpu/sweeps.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// The step of the forward call: a sequence's sums to its outputs.
template <class T> struct routing_histogram_step {
  using A = arithmetic_t<T>;

  const routing_histogram_outputs<T>& out;
  const sequence_plan* plan;
  index_t experts;

  bool has_weight(index_t, index_t s) const { return plan[s].mass != 0; }
  void without_weight(index_t l, index_t s) const {
    if (out.histograms.given()) clear_row(out.histograms[l].row(s), experts);
    if (out.sums.given()) clear_row(out.sums[l].row(s), experts);
  }
  double operator()(index_t l, index_t s, double* sums, double*, A*) const {
    for (index_t e = 0; out.sums.given() && e < experts; ++e) out.sums[l](s, e) = static_cast<A>(sums[e]);
    for (index_t e = 0; out.histograms.given() && e < experts; ++e) out.histograms[l](s, e) = static_cast<A>(sums[e] / plan[s].mass);
    return 0;
  }
};

// The step of the backward call: a sequence's slopes are given.
template <class T> struct routing_histogram_backward_step {
  using A = arithmetic_t<T>;

  const routing_histogram_backward_inputs<T>& in;
  const sequence_plan* plan;
  double scale;

  bool has_weight(index_t, index_t s) const { return plan[s].mass != 0; }
  void without_weight(index_t, index_t) const {}
  double operator()(index_t l, index_t s, double*, double*, A* slopes) const {
    const matrix_view<const A> given = in.grad_histograms[l];
    for (index_t e = 0; e < given.columns(); ++e) slopes[e] = given(s, e);
    return scale / plan[s].mass;
  }
};

template <class T> using routing_histogram_sweeps = softmax_sweeps<T, T, routing_histogram_step<T>>;

template <class T> struct routing_histogram_memory {
  sequence_plan* plan;
  routing_histogram_sweeps<T> sweeps;

  routing_histogram_memory(carver& memory, const cpu_executor& exec, const routing_histogram_inputs<T>& in) {
    plan = memory.take<sequence_plan>(in.sequences.sequences());
    sweeps.logits = in.logits;
    sweeps.plan = plan;
    sweeps.sequences = in.sequences;
    sweeps.token_weights = in.token_weights;
    sweeps.take(memory, thread_limit(exec));
  }
};

// Bytes that exec.scratch must have for routing_histogram_into.
template <class T>
std::size_t routing_histogram_workspace_bytes(const cpu_executor& exec, const routing_histogram_inputs<T>& in,
                                              const routing_histogram_outputs<std::type_identity_t<T>>& = {}) {
  carver memory;
  routing_histogram_memory<T>(memory, exec, in);
  return memory.bytes();
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class T>
void routing_histogram_into(const cpu_executor& given, const routing_histogram_inputs<T>& in,
                            const routing_histogram_outputs<std::type_identity_t<T>>& out) {
  static_assert(is_kernel_storage<T>, "cpu_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "routing_histogram_into";
  check_routing_histogram(function, in, out);
  check_routing_histogram_data(function, in);
  const cpu_executor exec = ready(function, given);
  const instruction_set isa = exec.isa;
  const scratch_memory memory(function, exec, routing_histogram_workspace_bytes(exec, in));
  carver carve = memory.carve();
  routing_histogram_memory<T> mine(carve, exec, in);
  plan_sequences(in.sequences, in.logits.rows(), in.token_weights, mine.plan);

  for (index_t s = 0; out.token_mass.given() && s < in.sequences.sequences(); ++s)
    out.token_mass[s] = static_cast<arithmetic_t<T>>(mine.plan[s].mass);
  if (!out.histograms.given() && !out.sums.given()) return;
  routing_histogram_step<T> step{out, mine.plan, in.logits.columns()};
  mine.sweeps.run(exec, isa, step);
}

template <class T, class G> struct routing_histogram_backward_memory {
  sequence_plan* plan;
  softmax_sweeps<T, G, routing_histogram_backward_step<T>> sweeps;

  routing_histogram_backward_memory(carver& memory, const cpu_executor& exec, const routing_histogram_backward_inputs<T>& in,
                                    const routing_histogram_backward_outputs<T, G>& out, gradient_mode mode) {
    plan = memory.take<sequence_plan>(in.sequences.sequences());
    sweeps.logits = in.logits;
    sweeps.plan = plan;
    sweeps.sequences = in.sequences;
    sweeps.token_weights = in.token_weights;
    sweeps.gradient = out.grad_logits;
    sweeps.mode = mode;
    sweeps.first_sweep = false;
    sweeps.take(memory, thread_limit(exec));
  }
};

// Bytes that exec.scratch must have for routing_histogram_backward_into.
template <class T, class G = T>
std::size_t routing_histogram_backward_workspace_bytes(const cpu_executor& exec, const routing_histogram_backward_inputs<T>& in,
                                                       const routing_histogram_backward_outputs<std::type_identity_t<T>, G>& out,
                                                       const routing_histogram_backward_options& options = {}) {
  carver memory;
  routing_histogram_backward_memory<T, G>(memory, exec, in, out, options.mode);
  return memory.bytes();
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class T, class G = T>
void routing_histogram_backward_into(const cpu_executor& given, const routing_histogram_backward_inputs<T>& in,
                                     const routing_histogram_backward_outputs<std::type_identity_t<T>, G>& out,
                                     const routing_histogram_backward_options& options = {}) {
  static_assert(is_kernel_storage<T>, "cpu_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "routing_histogram_backward_into";
  check_routing_histogram_backward(function, in, out, options);
  check_routing_histogram_data(function, in);
  const cpu_executor exec = ready(function, given);
  const instruction_set isa = exec.isa;
  const scratch_memory memory(function, exec, routing_histogram_backward_workspace_bytes(exec, in, out, options));
  if (!out.grad_logits.given() || (options.mode == gradient_mode::accumulate && options.scale == 0)) return;
  carver carve = memory.carve();
  routing_histogram_backward_memory<T, G> mine(carve, exec, in, out, options.mode);
  plan_sequences(in.sequences, in.logits.rows(), in.token_weights, mine.plan);
  for (index_t s = 0; in.token_mass.given() && s < in.sequences.sequences(); ++s) mine.plan[s].mass = static_cast<double>(in.token_mass[s]);

  routing_histogram_backward_step<T> step{in, mine.plan, options.scale};
  mine.sweeps.run(exec, isa, step);
}

// Calls visit(token, slot weight of the token) for each token of a sequence that has weight.
template <class A, class Visit>
void for_each_weighted_token(const token_range& rows, const vector_view<const A>& token_weights, const Visit& visit) {
  for (index_t i = 0; i < rows.count; ++i) {
    const index_t t = rows.first + i * rows.step;
    const A w = token_weights.given() ? token_weights[t] : A(1);
    if (w != 0) visit(t, static_cast<double>(w));
  }
}

// One worker's row of counts and of sums.
struct hard_histogram_scratch {
  double* sums;
  std::int64_t* counts;
  void take(carver& memory, index_t experts) {
    sums = memory.take<double>(experts);
    counts = memory.take<std::int64_t>(experts);
  }
};

// Bytes that exec.scratch must have for hard_routing_histogram_into.
template <class W, class I>
std::size_t hard_routing_histogram_workspace_bytes(const cpu_executor& exec, const hard_routing_histogram_inputs<W, I>& in,
                                                   const hard_routing_histogram_outputs<std::type_identity_t<W>>& = {}) {
  carver memory;
  memory.take<sequence_plan>(in.sequences.sequences());
  take_scratch<hard_histogram_scratch>(memory, thread_limit(exec), in.experts);
  return memory.bytes();
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class W, class I>
void hard_routing_histogram_into(const cpu_executor& given, const hard_routing_histogram_inputs<W, I>& in,
                                 const hard_routing_histogram_outputs<std::type_identity_t<W>>& out) {
  using A = arithmetic_t<W>;
  constexpr const char* function = "hard_routing_histogram_into";
  check_hard_routing_histogram(function, in, out);
  check_routing_histogram_data(function, in);
  const cpu_executor exec = ready(function, given);
  const scratch_memory memory(function, exec, hard_routing_histogram_workspace_bytes(exec, in));
  carver carve = memory.carve();
  sequence_plan* const plan = carve.take<sequence_plan>(in.sequences.sequences());
  const hard_histogram_scratch* const scratch = take_scratch<hard_histogram_scratch>(carve, thread_limit(exec), in.experts);
  plan_sequences(in.sequences, in.indices.rows(), in.token_weights, plan);

  const index_t layers = in.indices.layers(), sequences = in.sequences.sequences(), k = in.indices.columns();
  for (index_t s = 0; out.token_mass.given() && s < sequences; ++s) out.token_mass[s] = static_cast<A>(plan[s].mass);
  run_blocks(exec, worth_workers(exec, layers * in.indices.rows() * k), layers * sequences, [&](index_t unit, int worker) {
    const index_t l = unit / sequences, s = unit % sequences;
    const matrix_view<const I> indices = in.indices[l];
    const matrix_view<const W> weights = in.weights.given() ? in.weights[l] : matrix_view<const W>{};
    double* const sums = scratch[worker].sums;
    std::int64_t* const counts = scratch[worker].counts;
    std::memset(sums, 0, static_cast<std::size_t>(in.experts) * sizeof(double));
    std::memset(counts, 0, static_cast<std::size_t>(in.experts) * sizeof(std::int64_t));
    for_each_weighted_token(plan[s].rows, in.token_weights, [&](index_t t, double w) {
      for (index_t i = 0; i < k; ++i) {
        const index_t e = static_cast<index_t>(indices(t, i));
        if (e < 0 || e >= in.experts) continue;
        ++counts[e];
        sums[e] += weights.data() ? w * static_cast<double>(load_value(weights(t, i))) : w;
      }
    });
    for (index_t e = 0; e < in.experts; ++e) {
      if (out.counts.given()) out.counts[l](s, e) = counts[e];
      if (out.sums.given()) out.sums[l](s, e) = static_cast<A>(sums[e]);
      if (out.histograms.given()) out.histograms[l](s, e) = plan[s].mass != 0 ? static_cast<A>(sums[e] / plan[s].mass) : A(0);
    }
  });
}

// Bytes that exec.scratch must have for hard_routing_histogram_backward_into.
template <class W, class I>
std::size_t hard_routing_histogram_backward_workspace_bytes(const cpu_executor&, const hard_routing_histogram_backward_inputs<W, I>& in,
                                                            const hard_routing_histogram_backward_outputs<std::type_identity_t<W>>& = {}) {
  carver memory;
  memory.take<sequence_plan>(in.sequences.sequences());
  return memory.bytes();
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class W, class I>
void hard_routing_histogram_backward_into(const cpu_executor& given, const hard_routing_histogram_backward_inputs<W, I>& in,
                                          const hard_routing_histogram_backward_outputs<std::type_identity_t<W>>& out,
                                          const routing_histogram_backward_options& options = {}) {
  using A = arithmetic_t<W>;
  constexpr const char* function = "hard_routing_histogram_backward_into";
  check_hard_routing_histogram_backward(function, in, out);
  check_routing_histogram_data(function, in);
  const cpu_executor exec = ready(function, given);
  const scratch_memory memory(function, exec, hard_routing_histogram_backward_workspace_bytes(exec, in));
  const bool accumulate = options.mode == gradient_mode::accumulate;
  if (!out.grad_weights.given() || (accumulate && options.scale == 0)) return;
  sequence_plan* const plan = memory.carve().template take<sequence_plan>(in.sequences.sequences());
  plan_sequences(in.sequences, in.indices.rows(), in.token_weights, plan);

  const index_t layers = in.indices.layers(), sequences = in.sequences.sequences(), k = in.indices.columns(),
                experts = in.grad_histograms.columns();
  for (index_t s = 0; in.token_mass.given() && s < sequences; ++s) plan[s].mass = static_cast<double>(in.token_mass[s]);
  if (!accumulate)
    for (index_t l = 0; l < layers; ++l)
      for (index_t t = 0; t < in.indices.rows(); ++t) clear_row(out.grad_weights[l].row(t), k);
  run_blocks(exec, worth_workers(exec, layers * in.indices.rows() * k), layers * sequences, [&](index_t unit, int) {
    const index_t l = unit / sequences, s = unit % sequences;
    if (plan[s].mass == 0) return;
    const matrix_view<const I> indices = in.indices[l];
    const matrix_view<W> to = out.grad_weights[l];
    const A* const slopes = in.grad_histograms[l].row(s);
    const double coefficient = options.scale / plan[s].mass;
    for_each_weighted_token(plan[s].rows, in.token_weights, [&](index_t t, double w) {
      for (index_t i = 0; i < k; ++i) {
        const index_t e = static_cast<index_t>(indices(t, i));
        if (e < 0 || e >= experts) continue;
        const A g = static_cast<A>(coefficient * w * static_cast<double>(slopes[e]));
        store_value(to(t, i), accumulate ? load_value(to(t, i)) + g : g);
      }
    });
  });
}

}   // namespace SARA_ABI
}   // namespace sara
