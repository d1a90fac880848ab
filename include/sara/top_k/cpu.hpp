// top_k and its backward on the CPU: two ways lead from the keys of a row (cpu_keys.hpp) to the k largest.
//
// Networks (cpu_networks.hpp), for fp32 arithmetic and k <= 16. Score and index share 32 bits: where the score's own low bits then decide
// (never for 16-bit storage, rarely otherwise), the token is done again by a tournament.
//
// A tournament, for any type and k. Its leaves are a row's keys, its inner nodes hold the larger of two: k times the root is taken, its
// leaf emptied, and its path to the root played again: k log2(experts) steps.
//
// But for the choice between them, no branch depends on the data.
#pragma once

#include "../cpu/blocks.hpp"
#include "cpu_networks.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// Rows [begin, end). `best`: how many of a row's best are kept by networks (at least k, a power of two); 0: by tournaments.
template <class T, class V, class I, int best> struct top_k_kernel {
  using arithmetic = std::conditional_t<best == 0, double, float>;   // vectors of 64-bit keys, or of 32-bit keys
  using A = arithmetic_t<T>;
  using tree_keys = top_k_keys<A>;

  top_k_inputs<T, V> in;
  top_k_outputs<T, I> out;
  top_k_options options;
  index_t k = 0, begin = 0, end = 0;
  top_k_scratch<A> scratch;

  template <int bytes> SARA_INLINE void run() const {
    for (index_t t = begin; t < end; t += rows_at_once) {
      const int count = static_cast<int>(std::min<index_t>(end - t, rows_at_once));
      if constexpr (best > 0 && bytes >= 16)
        by_networks<bytes>(t, count);
      else
        by_tournaments<bytes>(t, count);
    }
  }

 private:
  // One slot of a token: its index, and its value as the weight. Adds that to `sum`, which is double: one after the other, equal values
  // would all be rounded alike.
  SARA_INLINE void fill_slot(index_t t, index_t i, index_t e, double& sum) const {
    if (out.indices.data()) out.indices(t, i) = static_cast<I>(e);
    if (!out.weights.data()) return;
    const A v = in.values.data() ? static_cast<A>(load_value(in.values(t, e))) : load_value(in.scores(t, e));
    out.weights(t, i) = v;
    sum += static_cast<double>(v);
  }
  template <int bytes> SARA_INLINE void finish(index_t t, double sum) const {
    if (!out.weights.data()) return;
    if (options.softmax) sum = take_softmax<bytes>(t);
    if (!options.renormalize && options.scale == 1) return;
    const A times = static_cast<A>(options.scale);
    for (index_t i = 0; i < k; ++i) {
      A& w = out.weights(t, i);
      if (options.renormalize) w = sum != 0 ? w / static_cast<A>(sum) : A(0);
      w *= times;
    }
  }

  // A token's weights, its best scores, to their probabilities among all experts. Their sum.
  template <int bytes> SARA_INLINE double take_softmax(index_t t) const {
    using S = simd<A, bytes / sizeof(arithmetic) * sizeof(A)>;
    using one = simd<A, sizeof(A)>;
    const T* const row = in.scores.row(t);
    const row_cut<S> cut(in.scores.columns());
    const math::exp_row<A> peak(out.weights(t, 0));
    const auto exponentials_at = [&](index_t e) __attribute__((always_inline)) { return math::exp_scaled(load<S>(row + e), peak); };
    blocked_sum<S> all;
    if (cut.tail) all.whole = cut.only_fresh(exponentials_at(cut.tail_at));
    for (index_t block = 0; block < cut.full; block += all.block) {
      S part = S::broadcast(0);
      for (index_t e = block; e < std::min(cut.full, block + all.block); e += S::lanes) part = part + exponentials_at(e);
      all.add(part);
    }
    const A inverse = A(1) / sum_of_lanes(all.total());
    double sum = 0;
    for (index_t i = 0; i < k; ++i) {
      A& w = out.weights(t, i);
      w = math::exp_scaled(one::broadcast(w), peak).v[0] * inverse;
      sum += static_cast<double>(w);
    }
    return sum;
  }

  template <int bytes> SARA_INLINE void by_tournaments(index_t t, int count) const {
    for (int r = 0; r < count; ++r) build<bytes>(scratch.tree[r], in.scores.row(t + r), in.scores.columns());
    double sum[rows_at_once] = {};
    for (index_t i = 0; i < k; ++i) {
      // One step of each tournament in turn: each is a chain of loads, and the chains overlap.
      index_t chosen[rows_at_once];
      each_row([&](auto r) __attribute__((always_inline)) { chosen[r] = r < count ? take_best(scratch.tree[r]) : 0; });
      for (int r = 0; r < count; ++r) fill_slot(t + r, i, chosen[r], sum[r]);
    }
    for (int r = 0; r < count; ++r) finish<bytes>(t + r, sum[r]);
  }

  template <int bytes> SARA_INLINE void by_networks(index_t t, int count) const {
    const index_t experts = in.scores.columns();
    const auto index_bits = static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint32_t>(experts)) - 1);
    const T* row[rows_at_once];
    each_row([&](auto r) __attribute__((always_inline)) { row[r] = in.scores.row(t + (r < count ? r : 0)); });

    best_keys<bytes, best> keys;
    keys.take(row, experts, index_bits);

    // Two keys of one score that differ in bits that did not fit are in no known order.
    std::int32_t bits[bytes / 4], all_bits = 0;
    std::memcpy(bits, &keys.scores.v, sizeof bits);
    for (const std::int32_t each : bits) all_bits |= each;
    std::int32_t key[best + 1][4];
    for (int i = 0; i < best; ++i) std::memcpy(key[i], &keys.list[i].v, sizeof key[i]);
    std::memcpy(key[best], &keys.next.v, sizeof key[best]);
    for (int r = 0; r < count; ++r) {
      bool in_order = true;
      if (all_bits & index_bits)
        for (index_t i = 0; i < k; ++i) in_order &= (key[i][r] & ~index_bits) != (key[i + 1][r] & ~index_bits);
      if (!in_order) {
        by_tournaments<bytes>(t + r, 1);
        continue;
      }
      double sum = 0;
      for (index_t i = 0; i < k; ++i) fill_slot(t + r, i, ~key[i][r] & index_bits, sum);
      finish<bytes>(t + r, sum);
    }
  }

  template <int bytes> SARA_INLINE void build(const tree_keys& tree, const T* scores, index_t experts) const {
    for (index_t e = experts; e < scratch.leaves; ++e) tree.set(e, tree_keys::none);
    constexpr bool by_vectors = std::is_same_v<tree_keys, narrow_keys> && bytes > 16;   // 128-bit code may lack 64-bit comparisons
    if constexpr (by_vectors) {
      using S = simd<float, bytes / 2>;   // a vector of keys holds half as many scores
      using K = simd<double, bytes>;      // 64-bit lanes
      using narrow = typename S::integers;
      using wide = typename K::integers;
      const narrow numbers = __builtin_convertvector(lane_numbers<S>().v, narrow);
      const row_cut<K> cut(experts);
      const auto visit = [&](index_t e) __attribute__((always_inline)) {
        narrow bits = load<S>(scores + e).bits().v;
        math::order_bits<31, narrow>(bits, narrow{} + math::nan_bits, narrow{} + std::numeric_limits<std::int32_t>::max(),
                                     narrow{} + 0x7f800000);
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
      for (index_t i = 0; i < half; ++i) tree.set(parents + i, tree_keys::better(tree[level + i], tree[level + half + i]));
    }
  }

  // The index at the root; its leaf is emptied.
  SARA_INLINE index_t take_best(const tree_keys& tree) const {
    const index_t e = tree_keys::index(tree[2 * scratch.leaves - 2]);
    index_t at = e, level = 0;
    typename tree_keys::type winner = tree_keys::none;
    tree.set(at, winner);
    for (index_t half = scratch.leaves / 2; half > 0; half /= 2) {
      winner = tree_keys::better(winner, tree[level + (at ^ half)]);
      level += 2 * half;
      at &= half - 1;
      tree.set(level + at, winner);
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
  check_top_k(function, in, out, options);
  const cpu_executor exec = ready(function, given);
  const instruction_set isa = exec.isa;
  const index_t tokens = in.scores.rows(), experts = in.scores.columns();
  const index_t k = out.indices.given() ? out.indices.columns() : out.weights.columns();
  const scratch_memory memory(function, exec, top_k_workspace_bytes(exec, in, out));
  carver carve = memory.carve();
  const top_k_scratch<arithmetic_t<T>>* const scratch = take_scratch<top_k_scratch<arithmetic_t<T>>>(carve, thread_limit(exec), experts);
  if (!out.indices.given() && !out.weights.given()) return;

  const auto run = [&](auto best) {
    const row_blocks blocks(tokens, experts);
    run_blocks(exec, worth_workers(exec, tokens * experts * 2), blocks.count, [&](index_t block, int worker) {
      run_kernel(isa, experts, top_k_kernel<T, V, I, best>{in, out, options, k, blocks.begin(block), blocks.end(block), scratch[worker]});
    });
  };
  // Tournaments where a key has no room for index and score, or vectors no room for the best.
  if constexpr (!std::is_same_v<arithmetic_t<T>, double>)
    if (k <= most_by_network && experts <= most_experts_by_network) {
      if (k <= 4) return run(std::integral_constant<int, 4>{});
      if (k <= 8) return run(std::integral_constant<int, 8>{});
      return run(std::integral_constant<int, most_by_network>{});
    }
  run(std::integral_constant<int, 0>{});
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
      double sum = 0, dot = 0;   // of the chosen values; of value times gradient
      for (index_t i = 0; options.renormalize && i < k; ++i)
        if (is_routed(i)) {
          const double v = static_cast<double>(load_value(in.values(t, chosen(i))));
          sum += v;
          dot += v * static_cast<double>(in.grad_weights(t, i));
        }
      if (options.mode == gradient_mode::overwrite) clear_row(out.grad_values.row(t), experts);
      const auto slot_gradient = [&](index_t i) {
        if (!options.renormalize) return in.grad_weights(t, i) * scale;
        return sum != 0 ? static_cast<A>((static_cast<double>(in.grad_weights(t, i)) - dot / sum) / sum) * scale : A(0);
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
