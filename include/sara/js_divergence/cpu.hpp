// js_divergence on the CPU.
#pragma once

#include "../cpu/blocks.hpp"
#include "../cpu/rows.hpp"
#include "../math/js.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// Divergence and slopes of rows [begin, end); the arithmetic is double for every storage.
template <class T> struct js_divergence_kernel {
  using arithmetic = double;
  using A = arithmetic_t<T>;

  js_divergence_inputs<T> in;
  js_divergence_outputs<A> out;
  js_divergence_options options;
  index_t begin = 0, end = 0;

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<double, bytes>;
    const row_cut<S> cut(in.p.columns());
    for (index_t r = begin; r < end; ++r) {
      const double scale = options.scale * (in.grad_divergence.data() ? static_cast<double>(in.grad_divergence[r]) : 1.0);
      A* const to_p = out.grad_p.data() ? out.grad_p.row(r) : nullptr;
      A* const to_q = out.grad_q.data() ? out.grad_q.row(r) : nullptr;
      S sum = S::broadcast(0);
      // The tail first: where slopes are accumulated, the lanes it shares with the last full vector must not be written by it twice.
      if (cut.tail) sum = cut.only_fresh(term(in.p.row(r), in.q.row(r), to_p, to_q, cut.tail_at, scale, cut.fresh));
      for (index_t e = 0; e < cut.full; e += S::lanes) sum = sum + term(in.p.row(r), in.q.row(r), to_p, to_q, e, scale, every_lane<S>());
      if (out.divergence.data()) out.divergence[r] = static_cast<A>(sum_of_lanes(sum));
    }
  }

 private:
  template <class M> using simd_of = simd<double, static_cast<int>(sizeof(M))>;

  // The terms at column e; slopes are written in the lanes of `written`.
  template <class M>
  SARA_INLINE simd_of<M> term(const T* p, const T* q, A* to_p, A* to_q, index_t e, double scale, const M& written) const {
    using S = simd_of<M>;
    const math::js_term<S> term = math::js(load<S>(p + e), load<S>(q + e));
    if (to_p) write(to_p + e, term.slope_p * scale, written);
    if (to_q) write(to_q + e, term.slope_q * scale, written);
    return term.value;
  }
  template <class S, class M> SARA_INLINE void write(A* to, const S& slope, const M& written) const {
    if (options.mode == gradient_mode::overwrite) return store(to, slope);
    const S before = load<S>(to);
    store(to, select(written, before + slope, before));
  }
};

// Contract and formulas: sara/js_divergence.hpp.
template <class T>
void js_divergence_into(const cpu_executor& given, const js_divergence_inputs<T>& in, const js_divergence_outputs<arithmetic_t<T>>& out,
                        const js_divergence_options& options = {}) {
  static_assert(is_kernel_storage<T>, "cpu_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "js_divergence_into";
  check_js_divergence(function, in, out);
  check_js_divergence_data(function, in);
  const cpu_executor exec = ready(function, given);
  const instruction_set isa = exec.isa;
  const index_t rows = in.p.rows(), experts = in.p.columns();
  js_divergence_kernel<T> kernel{in, out, options};
  if (options.mode == gradient_mode::accumulate && options.scale == 0) kernel.out.grad_p = kernel.out.grad_q = {};

  const row_blocks blocks(rows, experts * 8);   // an element costs some eight times that of a softmax
  run_blocks(exec, worth_workers(exec, rows * experts * 8), blocks.count, [&](index_t block, int) {
    js_divergence_kernel<T> mine = kernel;
    mine.begin = blocks.begin(block);
    mine.end = blocks.end(block);
    run_kernel(isa, experts, mine);
  });
}

}   // namespace SARA_ABI
}   // namespace sara
