// gate_softmax and its backward on the CPU.
#pragma once

#include "../cpu/blocks.hpp"
#include "../cpu/sequence_rows.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// Rows of exponentials to probabilities: times the inverse of their sums.
template <class A, class P> struct normalize_kernel {
  using arithmetic = A;

  const A* const* from;
  const A* sums;
  P* const* to;   // may be the same rows, unless past the caches
  int rows;       // a multiple of rows_at_once
  index_t columns;
  row_write how;

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<A, bytes>;
    const row_cut<S> cut(columns);
    row_writer<P> writer(how);
    for (int first = 0; first < rows; first += rows_at_once) {
      const lane_a_row<A> inverse = lane_a_row<A>::broadcast(1) / load<lane_a_row<A>>(sums + first);
      const A* row[rows_at_once];
      P* out[rows_at_once];
      S times[rows_at_once];
      each_row([&](auto r) __attribute__((always_inline)) {
        row[r] = from[first + r];
        out[r] = to[first + r];
        times[r] = S::broadcast(inverse.v[decltype(r)::value]);
      });
      writer.write(
          out, cut, [=](auto r, index_t e) __attribute__((always_inline)) { return load<S>(row[r] + e) * times[r]; });
    }
  }
};

// scale (p (g - sum of p g) + grad_log_sum_exp p) of rows [begin, end).
template <class P, class G> struct gate_softmax_backward_kernel {
  using arithmetic = arithmetic_t<P>;
  using A = arithmetic;

  matrix_view<const P> probs, grad_probs;
  vector_view<const A> grad_log_sum_exp;
  matrix_view<G> grad_logits;
  A scale = 1;
  row_write how = row_write::overwrite;
  index_t begin = 0, end = 0;

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<A, bytes>;
    const row_cut<S> cut(probs.columns());
    row_writer<G> writer(how);
    for (index_t t = begin; t < end; ++t) {
      const P* const p = probs.row(t);
      const A extra = grad_log_sum_exp.data() ? grad_log_sum_exp[t] : A(0);
      if (grad_probs.data()) {
        const P* const g = grad_probs.row(t);
        differentiate(
            p, [g](index_t e) __attribute__((always_inline)) { return load<S>(g + e); }, extra, grad_logits.row(t), cut, writer);
      } else {
        differentiate(
            p, [](index_t) __attribute__((always_inline)) { return S::broadcast(0); }, extra, grad_logits.row(t), cut, writer);
      }
    }
  }

 private:
  template <class S, class Gradient>
  SARA_INLINE void differentiate(const P* p, const Gradient& gradient_at, A extra, G* to, const row_cut<S>& cut,
                                 row_writer<G>& writer) const {
    S dot[2] = {cut.tail ? cut.only_fresh(load<S>(p + cut.tail_at) * gradient_at(cut.tail_at)) : S::broadcast(0), S::broadcast(0)};
    index_t e = 0;
    for (; e + 2 * S::lanes <= cut.full; e += 2 * S::lanes)
      written_out<2>([&](auto i) __attribute__((always_inline)) {
        dot[i] = mul_add(load<S>(p + e + i * S::lanes), gradient_at(e + i * S::lanes), dot[i]);
      });
    if (e < cut.full) dot[0] = mul_add(load<S>(p + e), gradient_at(e), dot[0]);
    const S less = S::broadcast(sum_of_lanes(dot[0] + dot[1]) - extra), times = S::broadcast(scale);
    writer.write(
        {to}, cut, [=](auto, index_t at) __attribute__((always_inline)) { return load<S>(p + at) * (gradient_at(at) - less) * times; });
  }
};

// Bytes that exec.scratch must have for gate_softmax_into.
template <class T, class P = T>
std::size_t gate_softmax_workspace_bytes(const cpu_executor& exec, const gate_softmax_inputs<T>& in,
                                         const gate_softmax_outputs<std::type_identity_t<T>, P>&) {
  carver memory;
  take_scratch<row_scratch<T, P>>(memory, thread_limit(exec), in.logits.columns());
  return memory.bytes();
}

// Contract and formulas: sara/gate_softmax.hpp.
template <class T, class P = T>
void gate_softmax_into(const cpu_executor& given, const gate_softmax_inputs<T>& in,
                       const gate_softmax_outputs<std::type_identity_t<T>, P>& out) {
  static_assert(is_kernel_storage<T> && is_kernel_storage<P>,
                "cpu_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "gate_softmax_into";
  check_gate_softmax(function, in, out);
  check_gate_softmax_data(function, in);
  const cpu_executor exec = ready(function, given);
  const instruction_set isa = exec.isa;
  const index_t tokens = in.logits.rows(), experts = in.logits.columns();
  const scratch_memory memory(function, exec, gate_softmax_workspace_bytes(exec, in, out));
  carver carve = memory.carve();
  const row_scratch<T, P>* const scratch = take_scratch<row_scratch<T, P>>(carve, thread_limit(exec), experts);
  if (!out.probs.given() && !out.log_sum_exp.given()) return;

  const bool in_place = static_cast<const void*>(out.probs.data()) == in.logits.data();   // its lines are in the caches, being read
  const row_write how = row_write_of<P>(gradient_mode::overwrite, out.probs.data(), out.probs.row_stride(), experts,
                                        is_large<P>(tokens * experts) && !in_place);
  const row_blocks blocks(tokens, experts);
  run_blocks(exec, worth_workers(exec, tokens * experts), blocks.count, [&](index_t block, int worker) {
    using A = arithmetic_t<T>;
    const sequence_rows<const T> logits{in.logits.data(), in.logits.row_stride()};
    row_chunk<T> chunk;
    for (index_t next = blocks.begin(block), first = next; next < blocks.end(block); first = next) {
      chunk.gather(next, blocks.end(block), chunk_rows(experts, written_at_once), nullptr, 1, [](index_t) {});
      // Where the probabilities can hold the exponentials, these go there, unless that is where the logits lie.
      A *exponentials[most_chunk_rows], sums[most_chunk_rows];
      P* to[most_chunk_rows];
      math::exp_row<A> peaks[most_chunk_rows];
      addresses(scratch[worker].rows(), chunk.filled, exponentials);
      if (out.probs.given()) chunk.find({out.probs.data(), out.probs.row_stride()}, scratch[worker].nowhere, to);
      if constexpr (std::is_same_v<P, A>)
        if (out.probs.given() && !in_place && how == row_write::overwrite) std::copy_n(to, chunk.count, exponentials);
      chunk.exponentiate(isa, experts, logits, exponentials, sums, out.log_sum_exp.given() ? peaks : nullptr, scratch[worker]);
      if (out.probs.given()) run_kernel(isa, experts, normalize_kernel<A, P>{exponentials, sums, to, chunk.filled, experts, how});
      for (int r = 0; out.log_sum_exp.given() && r < chunk.count; ++r)
        out.log_sum_exp[first + r] = static_cast<A>(peaks[r].log_sum_exp(sums[r]));
    }
  });
}

// Contract and formulas: sara/gate_softmax.hpp.
template <class P, class G = P>
void gate_softmax_backward_into(const cpu_executor& given, const gate_softmax_backward_inputs<P>& in,
                                const gate_softmax_backward_outputs<std::type_identity_t<P>, G>& out,
                                const gate_softmax_backward_options& options = {}) {
  static_assert(is_kernel_storage<P> && is_kernel_storage<G>,
                "cpu_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "gate_softmax_backward_into";
  check_gate_softmax_backward(function, in, out, options);
  const cpu_executor exec = ready(function, given);
  const instruction_set isa = exec.isa;
  if (!out.grad_logits.given() || (options.mode == gradient_mode::accumulate && options.scale == 0)) return;

  const index_t tokens = in.probs.rows(), experts = in.probs.columns();
  const void* const to = out.grad_logits.data();
  const bool in_place = to == in.probs.data() || to == in.grad_probs.data();
  const row_write how = row_write_of<G>(options.mode, out.grad_logits.data(), out.grad_logits.row_stride(), experts,
                                        is_large<G>(tokens * experts) && !in_place);
  const row_blocks blocks(tokens, experts);
  run_blocks(exec, worth_workers(exec, tokens * experts), blocks.count, [&](index_t block, int) {
    gate_softmax_backward_kernel<P, G> kernel{
        in.probs, in.grad_probs,       in.grad_log_sum_exp, out.grad_logits, static_cast<arithmetic_t<P>>(options.scale),
        how,      blocks.begin(block), blocks.end(block)};
    run_kernel(isa, experts, kernel);
  });
}

}   // namespace SARA_ABI
}   // namespace sara
