// top_k and its backward on the CPU.
//
// A score and its index make one integer key, so that the largest key is the best expert: higher score first, then lower index. The
// keys of a row are the leaves of a tournament whose inner nodes hold the larger of two: k times the root is taken, its leaf emptied,
// and its path to the root played again. No branch depends on the data, and any k up to all experts costs k log2(experts).
#pragma once

#include <bit>

#include "../cpu/executor.hpp"
#include "../cpu/rows.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// Bits of a float in the order of their values: NaN below -inf, and -0 equal to +0. For integers or vectors of them.
template <class B>
SARA_INLINE void order_bits(B& bits, const B& least, const B& all_but_sign, const B& infinity) {
  const B magnitude = bits & all_but_sign;
  const B ordered = bits < 0 ? bits ^ all_but_sign : bits;
  const B joined = ordered == -1 ? ordered - ordered : ordered;   // -0, the largest negative, becomes 0
  bits = magnitude > infinity ? least : joined;
}

// The key of a 32-bit score: ordered bits above, inverted index below.
struct narrow_key {
  using type = std::int64_t;
  static constexpr type none = std::numeric_limits<type>::min();
  SARA_INLINE static const type& better(const type& a, const type& b) { return a > b ? a : b; }
  SARA_INLINE static index_t index(const type& key) { return static_cast<index_t>(~static_cast<std::uint32_t>(key)); }
};

// The key of a 64-bit score.
struct wide_key {
  struct type {
    std::int64_t bits, index;
  };
  static constexpr type none{std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()};
  SARA_INLINE static const type& better(const type& a, const type& b) { return a.bits != b.bits ? (a.bits > b.bits ? a : b) : a.index < b.index ? a : b; }
  SARA_INLINE static index_t index(const type& key) { return key.index; }
};

template <class A>
using top_k_key = std::conditional_t<std::is_same_v<A, double>, wide_key, narrow_key>;

// One worker's tournament: a level of `leaves` keys, then half as many, ... down to the root.
template <class A>
struct top_k_scratch {
  typename top_k_key<A>::type* keys;
  index_t leaves;
  void take(carver& memory, index_t experts) {
    leaves = static_cast<index_t>(std::bit_ceil(static_cast<std::uint64_t>(experts)));
    keys = memory.take<typename top_k_key<A>::type>(2 * leaves + 8);
  }
};

// Rows [begin, end).
template <class T, class V, class I>
struct top_k_kernel {
  using arithmetic = double;   // vectors hold 64-bit keys
  using A = arithmetic_t<T>;
  using key = top_k_key<A>;

  top_k_inputs<T, V> in;
  top_k_outputs<T, I> out;
  top_k_options options;
  index_t k = 0, begin = 0, end = 0;
  top_k_scratch<A> scratch;

  template <int bytes>
  SARA_INLINE void run() const {
    for (index_t t = begin; t < end; ++t) {
      build<bytes>(in.scores.row(t), in.scores.columns());
      A sum = 0;
      for (index_t i = 0; i < k; ++i) {
        const index_t e = take_best();
        if (out.indices.data()) out.indices(t, i) = static_cast<I>(e);
        if (out.weights.data()) sum += out.weights(t, i) = in.values.data() ? static_cast<A>(load_value(in.values(t, e))) : load_value(in.scores(t, e));
      }
      if (!out.weights.data()) continue;
      const A times = static_cast<A>(options.scale);
      for (index_t i = 0; i < k; ++i) {
        A& w = out.weights(t, i);
        w = (options.renormalize && sum != 0 ? w / sum : w) * times;
      }
    }
  }

 private:
  template <int bytes>
  SARA_INLINE void build(const T* scores, index_t experts) const {
    typename key::type* const keys = scratch.keys;
    for (index_t e = experts; e < scratch.leaves; ++e) keys[e] = key::none;
    if constexpr (std::is_same_v<A, double>) {
      for (index_t e = 0; e < experts; ++e) {
        std::int64_t bits = __builtin_bit_cast(std::int64_t, static_cast<double>(scores[e]));
        order_bits<std::int64_t>(bits, std::numeric_limits<std::int64_t>::min() + 1, std::numeric_limits<std::int64_t>::max(), 0x7ff0000000000000LL);
        keys[e] = {bits, e};
      }
    } else {
      using S = simd<float, bytes / 2>;   // a vector of keys holds half as many scores
      using K = simd<double, bytes>;      // 64-bit lanes
      const auto numbers = __builtin_convertvector(lane_numbers<S>().v, typename S::integers);
      const row_cut<K> cut(experts);
      const auto visit = [&](index_t e) __attribute__((always_inline)) {
        typename S::integers bits = load<S>(scores + e).bits().v;
        order_bits<typename S::integers>(bits, typename S::integers{} + (std::numeric_limits<std::int32_t>::min() + 1),
                                         typename S::integers{} + std::numeric_limits<std::int32_t>::max(), typename S::integers{} + 0x7f800000);
        const typename S::integers inverted = ~(numbers + static_cast<std::int32_t>(e));
        const auto high = __builtin_convertvector(bits, typename K::integers) << 32;
        const auto low = __builtin_convertvector(inverted, typename K::integers) & 0xffffffffLL;
        const typename K::integers both = high | low;
        std::memcpy(keys + e, &both, sizeof both);
      };
      if (cut.tail) visit(cut.tail_at);
      for (index_t e = 0; e < cut.full; e += S::lanes) visit(e);
    }
    // A node's children lie half a level apart, so that levels are made by whole vectors.
    typename key::type* level = keys;
    for (index_t half = scratch.leaves / 2; half > 0; level += 2 * half, half /= 2) {
      typename key::type* const parents = level + 2 * half;
      if constexpr (std::is_same_v<key, narrow_key>) {
        using K = simd<double, bytes>;
        if (half >= K::lanes) {
          for (index_t i = 0; i < half; i += K::lanes) {
            typename K::integers a, b;
            std::memcpy(&a, level + i, sizeof a);
            std::memcpy(&b, level + half + i, sizeof b);
            a = a > b ? a : b;
            std::memcpy(parents + i, &a, sizeof a);
          }
          continue;
        }
      }
      for (index_t i = 0; i < half; ++i) parents[i] = key::better(level[i], level[half + i]);
    }
  }

  // The index of the root, whose leaf is emptied.
  SARA_INLINE index_t take_best() const {
    typename key::type* level = scratch.keys;
    typename key::type best = level[2 * scratch.leaves - 2];
    const index_t e = key::index(best);
    index_t at = e;
    level[at] = best = key::none;
    for (index_t half = scratch.leaves / 2; half > 0; half /= 2) {
      best = key::better(best, level[at ^ half]);
      level += 2 * half;
      at &= half - 1;
      level[at] = best;
    }
    return e;
  }
};

// Bytes that exec.scratch must have for top_k_into.
template <class T, class V, class I = std::int32_t>
std::size_t top_k_workspace_bytes(const cpu_executor& exec, const top_k_inputs<T, V>& in, const top_k_outputs<std::type_identity_t<T>, I>& = {}) {
  carver memory;
  take_scratch<top_k_scratch<arithmetic_t<T>>>(memory, thread_limit(exec), in.scores.columns());
  return memory.bytes();
}

// Contract and rules of choice: sara/top_k.hpp.
template <class T, class V, class I = std::int32_t>
void top_k_into(const cpu_executor& exec, const top_k_inputs<T, V>& in, const top_k_outputs<std::type_identity_t<T>, I>& out, const top_k_options& options = {}) {
  static_assert(is_kernel_storage<T> && is_kernel_storage<V>, "cpu_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "top_k_into";
  check_top_k(function, in, out);
  const instruction_set isa = checked_instruction_set(function, exec);
  const index_t tokens = in.scores.rows(), experts = in.scores.columns();
  const index_t k = out.indices.given() ? out.indices.columns() : out.weights.columns();
  const scratch_memory memory(function, exec, top_k_workspace_bytes(exec, in, out));
  carver carve = memory.carve();
  const top_k_scratch<arithmetic_t<T>>* const scratch = take_scratch<top_k_scratch<arithmetic_t<T>>>(carve, thread_limit(exec), experts);
  if (!out.indices.given() && !out.weights.given()) return;

  const row_blocks blocks(tokens, experts);
  run_blocks(exec, worth_workers(exec, tokens * experts * 2), blocks.count, [&](index_t block, int worker) {
    run_kernel(isa, experts, top_k_kernel<T, V, I>{in, out, options, k, blocks.begin(block), blocks.end(block), scratch[worker]});
  });
}

// Contract and formulas: sara/top_k.hpp. Plain code: it touches k entries a row and clears the rest.
template <class V, class I, class G = V>
void top_k_backward_into(const cpu_executor& exec, const top_k_backward_inputs<V, I>& in, const top_k_backward_outputs<std::type_identity_t<V>, G>& out,
                         const top_k_backward_options& options = {}) {
  static_assert(is_kernel_storage<V> && is_kernel_storage<G>, "cpu_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  using A = arithmetic_t<V>;
  constexpr const char* function = "top_k_backward_into";
  check_top_k_backward(function, in, out, options);
  checked_instruction_set(function, exec);
  if (options.mode == gradient_mode::accumulate && options.scale == 0) return;

  const index_t tokens = out.grad_values.rows(), experts = out.grad_values.columns(), k = in.indices.columns();
  const A scale = static_cast<A>(options.scale);
  const row_blocks blocks(tokens, experts);
  run_blocks(exec, worth_workers(exec, tokens * experts), blocks.count, [&](index_t block, int) {
    for (index_t t = blocks.begin(block); t < blocks.end(block); ++t) {
      const auto chosen = [&](index_t i) { return static_cast<index_t>(in.indices(t, i)); };
      const auto is_routed = [&](index_t i) { return chosen(i) >= 0 && chosen(i) < experts; };
      A sum = 0, dot = 0;   // of the chosen values; of value times gradient
      for (index_t i = 0; options.renormalize && i < k; ++i)
        if (is_routed(i)) {
          const A v = static_cast<A>(load_value(in.values(t, chosen(i))));
          sum += v;
          dot += v * in.grad_weights(t, i);
        }
      if (options.mode == gradient_mode::overwrite) clear_row(out.grad_values.row(t), experts);
      for (index_t i = 0; i < k; ++i) {
        if (!is_routed(i)) continue;
        A g = in.grad_weights(t, i) * scale;
        if (options.renormalize) g = sum != 0 ? (in.grad_weights(t, i) - dot / sum) / sum * scale : A(0);
        G& to = out.grad_values(t, chosen(i));
        store_value(to, load_value(to) + g);   // added: a token may list an expert twice
      }
    }
  });
}

}  // inline namespace SARA_ABI
}  // namespace sara
