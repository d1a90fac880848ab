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

// All bits where a comparison of integers holds, none where it does not; of vectors it is that already.
template <class B, class Comparison> SARA_INLINE void mask_of(const Comparison& holds, B& mask) {
  if constexpr (std::is_integral_v<B>) {
    mask = -static_cast<B>(holds);
  } else {
    mask = holds;
  }
}

// Bits of a float in the order of their values: NaN below -inf, and -0 equal to +0. For integers or vectors of them, by masks: a
// branch on a logit's sign would be wrong every other time.
template <int sign_bit, class B> SARA_INLINE void order_bits(B& bits, const B& least, const B& all_but_sign, const B& infinity) {
  B is_minus_zero, is_nan;
  mask_of(bits == ~all_but_sign, is_minus_zero);
  mask_of((bits & all_but_sign) > infinity, is_nan);
  const B ordered = bits ^ ((bits >> sign_bit) & all_but_sign);
  bits = (least & is_nan) | (ordered & ~is_nan & ~is_minus_zero);
}

// One of two, by a mask for the same reason.
SARA_INLINE std::int64_t choose(bool first, std::int64_t a, std::int64_t b) { return b ^ ((a ^ b) & -static_cast<std::int64_t>(first)); }

// The key of a 32-bit score: ordered bits above, inverted index below. A tournament's nodes are an array of them.
struct narrow_keys {
  using type = std::int64_t;
  static constexpr type none = std::numeric_limits<type>::min();
  std::int64_t* nodes = nullptr;

  void take(carver& memory, index_t count) { nodes = memory.take<std::int64_t>(count); }
  SARA_INLINE type operator[](index_t i) const { return nodes[i]; }
  SARA_INLINE void set(index_t i, type key) const { nodes[i] = key; }
  SARA_HOST_INLINE void set(index_t i, float score) const {
    std::int32_t bits = __builtin_bit_cast(std::int32_t, score);
    order_bits<31, std::int32_t>(bits, std::numeric_limits<std::int32_t>::min() + 1, std::numeric_limits<std::int32_t>::max(), 0x7f800000);
    nodes[i] = static_cast<std::int64_t>(bits) << 32 | static_cast<std::int64_t>(~static_cast<std::uint32_t>(i));
  }
  SARA_INLINE static type better(type a, type b) { return choose(a > b, a, b); }
  SARA_INLINE static index_t index(type key) { return static_cast<index_t>(~static_cast<std::uint32_t>(key)); }
};

// The key of a 64-bit score, in two arrays: a pair in one would be written in halves and read whole, which stalls.
struct wide_keys {
  struct type {
    std::int64_t bits, index;
  };
  static constexpr type none{std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()};
  std::int64_t *bits = nullptr, *indices = nullptr;

  void take(carver& memory, index_t count) {
    bits = memory.take<std::int64_t>(count);
    indices = memory.take<std::int64_t>(count);
  }
  SARA_INLINE type operator[](index_t i) const { return {bits[i], indices[i]}; }
  SARA_INLINE void set(index_t i, const type& key) const {
    bits[i] = key.bits;
    indices[i] = key.index;
  }
  SARA_HOST_INLINE void set(index_t i, double score) const {
    std::int64_t ordered = __builtin_bit_cast(std::int64_t, score);
    order_bits<63, std::int64_t>(ordered, std::numeric_limits<std::int64_t>::min() + 1, std::numeric_limits<std::int64_t>::max(),
                                 0x7ff0000000000000LL);
    set(i, type{ordered, i});
  }
  SARA_INLINE static type better(const type& a, const type& b) {
    const bool first = (a.bits > b.bits) | ((a.bits == b.bits) & (a.index < b.index));
    return {choose(first, a.bits, b.bits), choose(first, a.index, b.index)};
  }
  SARA_INLINE static index_t index(const type& key) { return key.index; }
};

template <class A> using top_k_keys = std::conditional_t<std::is_same_v<A, double>, wide_keys, narrow_keys>;

// One worker's tournaments, one for each row of a group: a level of `leaves` keys, then half as many, ... down to the root.
template <class A> struct top_k_scratch {
  top_k_keys<A> tree[rows_at_once];
  index_t leaves = 0;
  void take(carver& memory, index_t experts) {
    leaves = static_cast<index_t>(std::bit_ceil(static_cast<std::uint64_t>(experts)));
    for (auto& each : tree) each.take(memory, 2 * leaves);
  }
};

// Rows [begin, end).
template <class T, class V, class I> struct top_k_kernel {
  using arithmetic = double;   // vectors hold 64-bit keys
  using A = arithmetic_t<T>;
  using keys = top_k_keys<A>;

  top_k_inputs<T, V> in;
  top_k_outputs<T, I> out;
  top_k_options options;
  index_t k = 0, begin = 0, end = 0;
  top_k_scratch<A> scratch;

  template <int bytes> SARA_INLINE void run() const {
    const A times = static_cast<A>(options.scale);
    for (index_t t = begin; t < end; t += rows_at_once) {
      const int count = static_cast<int>(std::min<index_t>(end - t, rows_at_once));
      for (int r = 0; r < count; ++r) build<bytes>(scratch.tree[r], in.scores.row(t + r), in.scores.columns());
      A sum[rows_at_once] = {};
      for (index_t i = 0; i < k; ++i) {
        // One step of each tournament in turn: each is a chain of loads, and the chains overlap.
        index_t chosen[rows_at_once];
        each_row([&](auto r) __attribute__((always_inline)) { chosen[r] = r < count ? take_best(scratch.tree[r]) : 0; });
        for (int r = 0; r < count; ++r) {
          const index_t e = chosen[r];
          if (out.indices.data()) out.indices(t + r, i) = static_cast<I>(e);
          if (!out.weights.data()) continue;
          const A v = in.values.data() ? static_cast<A>(load_value(in.values(t + r, e))) : load_value(in.scores(t + r, e));
          out.weights(t + r, i) = v;
          sum[r] += v;
        }
      }
      for (int r = 0; out.weights.data() && r < count; ++r)
        for (index_t i = 0; i < k; ++i) {
          A& w = out.weights(t + r, i);
          if (options.renormalize) w = sum[r] != 0 ? w / sum[r] : A(0);
          w *= times;
        }
    }
  }

 private:
  template <int bytes> SARA_INLINE void build(const keys& tree, const T* scores, index_t experts) const {
    for (index_t e = experts; e < scratch.leaves; ++e) tree.set(e, keys::none);
    constexpr bool by_vectors = std::is_same_v<keys, narrow_keys> && bytes > 16;   // 128-bit code may lack 64-bit comparisons
    if constexpr (by_vectors) {
      using S = simd<float, bytes / 2>;   // a vector of keys holds half as many scores
      using K = simd<double, bytes>;      // 64-bit lanes
      using narrow = typename S::integers;
      using wide = typename K::integers;
      const narrow numbers = __builtin_convertvector(lane_numbers<S>().v, narrow);
      const row_cut<K> cut(experts);
      const auto visit = [&](index_t e) __attribute__((always_inline)) {
        narrow bits = load<S>(scores + e).bits().v;
        order_bits<31, narrow>(bits, narrow{} + (std::numeric_limits<std::int32_t>::min() + 1),
                               narrow{} + std::numeric_limits<std::int32_t>::max(), narrow{} + 0x7f800000);
        const narrow inverted = ~(numbers + static_cast<std::int32_t>(e));
        const wide key = (__builtin_convertvector(bits, wide) << 32) | (__builtin_convertvector(inverted, wide) & 0xffffffffLL);
        std::memcpy(tree.nodes + e, &key, sizeof key);
      };
      if (cut.tail) visit(cut.tail_at);
      for (index_t e = 0; e < cut.full; e += S::lanes) visit(e);
    } else {
      for (index_t e = 0; e < experts; ++e) tree.set(e, load_value(scores[e]));
    }
    // A node's children lie half a level apart, so that levels are made by whole vectors.
    for (index_t level = 0, half = scratch.leaves / 2; half > 0; level += 2 * half, half /= 2) {
      const index_t parents = level + 2 * half;
      if constexpr (by_vectors) {
        using K = simd<double, bytes>;
        if (half >= K::lanes) {
          for (index_t i = 0; i < half; i += K::lanes) {
            typename K::integers a, b;
            std::memcpy(&a, tree.nodes + level + i, sizeof a);
            std::memcpy(&b, tree.nodes + level + half + i, sizeof b);
            a = a > b ? a : b;
            std::memcpy(tree.nodes + parents + i, &a, sizeof a);
          }
          continue;
        }
      }
      for (index_t i = 0; i < half; ++i) tree.set(parents + i, keys::better(tree[level + i], tree[level + half + i]));
    }
  }

  // The index at the root; its leaf is emptied.
  SARA_INLINE index_t take_best(const keys& tree) const {
    const index_t e = keys::index(tree[2 * scratch.leaves - 2]);
    index_t at = e, level = 0;
    typename keys::type best = keys::none;
    tree.set(at, best);
    for (index_t half = scratch.leaves / 2; half > 0; half /= 2) {
      best = keys::better(best, tree[level + (at ^ half)]);
      level += 2 * half;
      at &= half - 1;
      tree.set(level + at, best);
    }
    return e;
  }
};

// Bytes that exec.scratch must have for top_k_into.
template <class T, class V, class I = std::int32_t>
std::size_t top_k_workspace_bytes(const cpu_executor& exec, const top_k_inputs<T, V>& in,
                                  const top_k_outputs<std::type_identity_t<T>, I>& = {}) {
  carver memory;
  take_scratch<top_k_scratch<arithmetic_t<T>>>(memory, thread_limit(exec), in.scores.columns());
  return memory.bytes();
}

// Contract and rules of choice: sara/top_k.hpp.
template <class T, class V, class I = std::int32_t>
void top_k_into(const cpu_executor& given, const top_k_inputs<T, V>& in, const top_k_outputs<std::type_identity_t<T>, I>& out,
                const top_k_options& options = {}) {
  static_assert(is_kernel_storage<T> && is_kernel_storage<V>,
                "cpu_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  constexpr const char* function = "top_k_into";
  check_top_k(function, in, out);
  const cpu_executor exec = ready(function, given);
  const instruction_set isa = exec.isa;
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
void top_k_backward_into(const cpu_executor& given, const top_k_backward_inputs<V, I>& in,
                         const top_k_backward_outputs<std::type_identity_t<V>, G>& out, const top_k_backward_options& options = {}) {
  static_assert(is_kernel_storage<V> && is_kernel_storage<G>,
                "cpu_executor computes with double, float, bf16 and fp16 storage; eigen_executor with any scalar");
  using A = arithmetic_t<V>;
  constexpr const char* function = "top_k_backward_into";
  check_top_k_backward(function, in, out, options);
  const cpu_executor exec = ready(function, given);
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
      const auto slot_gradient = [&](index_t i) {
        if (!options.renormalize) return in.grad_weights(t, i) * scale;
        return sum != 0 ? (in.grad_weights(t, i) - dot / sum) / sum * scale : A(0);
      };
      for (index_t i = 0; i < k; ++i) {
        if (!is_routed(i)) continue;
        // An expert that is listed twice gets both, and one rounding.
        A g = 0;
        bool is_first = true;
        for (index_t j = 0; j < k; ++j)
          if (chosen(j) == chosen(i)) {
            is_first = is_first && j >= i;
            g += slot_gradient(j);
          }
        if (!is_first) continue;
        G& to = out.grad_values(t, chosen(i));
        store_value(to, load_value(to) + g);
      }
    }
  });
}

}   // namespace SARA_ABI
}   // namespace sara
