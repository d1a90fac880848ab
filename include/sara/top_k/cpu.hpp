// top_k and its backward on the CPU.
//
// A score and its index make one integer key, so that the largest key is the best expert: higher score first, then lower index. Two
// ways lead from the keys of a row to the k largest:
//
// Networks, for fp32 arithmetic and k <= 16 (top_k/cpu.hpp: best_of_columns). The lanes of a vector are four tokens by some columns;
// each lane keeps the best of its columns in order, by sorting networks over whole vectors, and the lanes of a token are merged at
// last. Score and index share 32 bits: where the score's own low bits then decide (never for 16-bit storage, rarely otherwise), the
// token is done again by a tournament.
//
// A tournament, for any type and k. Its leaves are a row's keys, its inner nodes hold the larger of two: k times the root is taken, its
// leaf emptied, and its path to the root played again: k log2(experts) steps.
//
// But for the choice between them, no branch depends on the data.
#pragma once

#include <bit>

#include "../cpu/executor.hpp"
#include "../cpu/rows.hpp"
#include "types.hpp"

namespace sara {
inline namespace SARA_ABI {

// Bits of a float in the order of their values: `least`, below -inf, for NaN, and -0 equal to +0; the low bits of 16-bit storage stay 0.
// For integers or vectors of them; without a branch on a logit's sign, which would be wrong every other time.
template <int sign_bit, class B> SARA_INLINE void order_bits(B& bits, const B& least, const B& all_but_sign, const B& infinity) {
  const B sign = bits >> sign_bit, magnitude = bits & all_but_sign, ordered = (magnitude ^ sign) - sign;
  bits = magnitude > infinity ? least : ordered;
}
inline constexpr std::int32_t nan_bits = std::numeric_limits<std::int32_t>::min() + 0x10000;

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
    order_bits<31, std::int32_t>(bits, nan_bits, std::numeric_limits<std::int32_t>::max(), 0x7f800000);
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

// Comparisons (first, second) that sort `size` keys, the largest first: Batcher's odd-even merge sort. And those that sort what falls
// and then rises: the second half of a bitonic sort.
template <int size> struct sorting_network {
  struct comparison {
    int first, second;
  };
  struct list {
    comparison all[size * size];
    int count;
  };
  static constexpr list sort = [] {
    list l{};
    for (int p = 1; p < size; p *= 2)
      for (int d = p; d >= 1; d /= 2)
        for (int j = d % p; j + d < size; j += 2 * d)
          for (int i = j; i < std::min(j + d, size - d); ++i)
            if (i / (2 * p) == (i + d) / (2 * p)) l.all[l.count++] = {i, i + d};
    return l;
  }();
  static constexpr list merge = [] {
    list l{};
    for (int d = size / 2; d >= 1; d /= 2)
      for (int i = 0; i < size; ++i)
        if ((i & d) == 0) l.all[l.count++] = {i, i + d};
    return l;
  }();
};

// 32-bit keys in a vector: four tokens in each 16 bytes, for as many columns as there are 16 bytes.
template <int bytes> struct key_lanes {
  using integers = typename simd<float, bytes>::integers;
  static constexpr int lanes = bytes / 4, columns = lanes / 4;
  integers v;

  SARA_INLINE friend key_lanes larger(const key_lanes& a, const key_lanes& b) { return {a.v > b.v ? a.v : b.v}; }
  SARA_INLINE friend key_lanes smaller(const key_lanes& a, const key_lanes& b) { return {a.v > b.v ? b.v : a.v}; }

  // Of each 16 bytes: the low or high halves of two vectors, interleaved by pieces of `step` lanes.
  template <int step, bool high> SARA_INLINE static key_lanes interleaved(const key_lanes& a, const key_lanes& b) {
    return shuffled(a, b, [](int lane) {
      return lane / 4 * 4 + (high ? 2 : 0) + lane % 4 / (2 * step) * step + lane % step + lane / step % 2 * lanes;
    });
  }
  // The lanes `distance` away, both ways.
  template <int distance> SARA_INLINE key_lanes exchanged() const {
    return shuffled(*this, *this, [](int lane) { return lane ^ distance; });
  }
};

// The largest keys of four rows, a token in each lane of 16 bytes.
template <int bytes, int best> struct best_keys {
  using L = key_lanes<bytes>;

  L list[best];   // in order, the largest first
  L next;         // the largest that is not among them
  L scores;       // has every bit that a score has

  // Keys are a score's bits above those of `index_bits`, and there the inverted index. Columns come by chunks of as many as a vector
  // has lanes: four vectors of keys once the four rows are transposed in their 16 bytes.
  template <class T> SARA_INLINE void take(const T* const (&row)[rows_at_once], index_t experts, std::int32_t index_bits) {
    using integers = typename L::integers;
    constexpr int chunks_at_once = best / 4;
    constexpr std::int32_t none = std::numeric_limits<std::int32_t>::min();
    const integers numbers = __builtin_convertvector(lane_numbers<simd<float, sizeof(integers)>>().v, integers);
    written_out<best>([&](auto i) __attribute__((always_inline)) { list[i] = {integers{} + none}; });
    next = {integers{} + none};
    scores = {integers{}};
    for (index_t e = 0; e < experts; e += chunks_at_once * L::lanes) {
      L chunk[best];
      written_out<chunks_at_once>([&](auto c) __attribute__((always_inline)) {
        const index_t first = e + c * L::lanes, from = std::min(first, experts - L::lanes);   // the last one overlaps the one before it
        L key[4];
        const integers inverted = index_bits - (numbers + static_cast<std::int32_t>(from));
        each_row([&](auto r) __attribute__((always_inline)) {
          integers bits = load<simd<float, sizeof(integers)>>(row[r] + from).bits().v;
          order_bits<31, integers>(bits, integers{} + nan_bits, integers{} + std::numeric_limits<std::int32_t>::max(),
                                   integers{} + 0x7f800000);
          scores.v |= bits;
          key[r].v = (bits & ~index_bits) | inverted;
          if (from < first)
            key[r].v = numbers < static_cast<std::int32_t>(std::min<index_t>(first - from, L::lanes)) ? integers{} + none : key[r].v;
        });
        const L low01 = L::template interleaved<1, false>(key[0], key[1]), low23 = L::template interleaved<1, false>(key[2], key[3]);
        const L high01 = L::template interleaved<1, true>(key[0], key[1]), high23 = L::template interleaved<1, true>(key[2], key[3]);
        chunk[4 * c + 0] = L::template interleaved<2, false>(low01, low23);
        chunk[4 * c + 1] = L::template interleaved<2, true>(low01, low23);
        chunk[4 * c + 2] = L::template interleaved<2, false>(high01, high23);
        chunk[4 * c + 3] = L::template interleaved<2, true>(high01, high23);
      });
      sort(chunk);
      L turned[best];
      written_out<best>([&](auto i) __attribute__((always_inline)) { turned[i] = chunk[best - 1 - i]; });
      merge(turned);
    }
    // A lane has a part of a token's columns: every lane of the token comes to have the best of all.
    if constexpr (L::lanes >= 16) merge_lanes<8>();
    if constexpr (L::lanes >= 8) merge_lanes<4>();
  }

 private:
  SARA_INLINE static void compare(L& a, L& b) {
    const L first = larger(a, b);
    b = smaller(a, b);
    a = first;
  }
  SARA_INLINE static void sort(L (&list)[best]) {
    using network = sorting_network<best>;
    written_out<network::sort.count>([&](auto c) __attribute__((always_inline)) {
      compare(list[network::sort.all[c].first], list[network::sort.all[c].second]);
    });
  }
  // To one sorted list another, whose order is turned round: the better of each pair are the best of both, falling and then rising.
  SARA_INLINE void merge(const L (&turned)[best]) {
    using network = sorting_network<best>;
    written_out<best>([&](auto i) __attribute__((always_inline)) {
      next = larger(next, smaller(list[i], turned[i]));
      list[i] = larger(list[i], turned[i]);
    });
    written_out<network::merge.count>([&](auto c) __attribute__((always_inline)) {
      compare(list[network::merge.all[c].first], list[network::merge.all[c].second]);
    });
  }
  template <int distance> SARA_INLINE void merge_lanes() {
    L other[best];
    written_out<best>([&](auto i) __attribute__((always_inline)) { other[i] = list[best - 1 - i].template exchanged<distance>(); });
    next = larger(next, next.template exchanged<distance>());
    merge(other);
  }
};

// The most of a row's keys that networks hold: the vectors of two such lists live in registers.
inline constexpr int most_by_network = 16;
inline constexpr index_t most_experts_by_network = 4096;   // so that a score keeps 20 bits of a key

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
  // One slot of a token: its index, and its value as the weight. Adds that to `sum`.
  SARA_INLINE void fill_slot(index_t t, index_t i, index_t e, A& sum) const {
    if (out.indices.data()) out.indices(t, i) = static_cast<I>(e);
    if (!out.weights.data()) return;
    const A v = in.values.data() ? static_cast<A>(load_value(in.values(t, e))) : load_value(in.scores(t, e));
    out.weights(t, i) = v;
    sum += v;
  }
  SARA_INLINE void finish(index_t t, A sum) const {
    if (!out.weights.data() || (!options.renormalize && options.scale == 1)) return;
    const A times = static_cast<A>(options.scale);
    for (index_t i = 0; i < k; ++i) {
      A& w = out.weights(t, i);
      if (options.renormalize) w = sum != 0 ? w / sum : A(0);
      w *= times;
    }
  }

  template <int bytes> SARA_INLINE void by_tournaments(index_t t, int count) const {
    for (int r = 0; r < count; ++r) build<bytes>(scratch.tree[r], in.scores.row(t + r), in.scores.columns());
    A sum[rows_at_once] = {};
    for (index_t i = 0; i < k; ++i) {
      // One step of each tournament in turn: each is a chain of loads, and the chains overlap.
      index_t chosen[rows_at_once];
      each_row([&](auto r) __attribute__((always_inline)) { chosen[r] = r < count ? take_best(scratch.tree[r]) : 0; });
      for (int r = 0; r < count; ++r) fill_slot(t + r, i, chosen[r], sum[r]);
    }
    for (int r = 0; r < count; ++r) finish(t + r, sum[r]);
  }

  template <int bytes> SARA_INLINE void by_networks(index_t t, int count) const {
    const index_t experts = in.scores.columns();
    const auto index_bits = static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint32_t>(experts)) - 1);
    const T* row[rows_at_once];
    each_row([&](auto r) __attribute__((always_inline)) { row[r] = in.scores.row(t + (r < count ? r() : 0)); });

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
      A sum = 0;
      for (index_t i = 0; i < k; ++i) fill_slot(t + r, i, ~key[i][r] & index_bits, sum);
      finish(t + r, sum);
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
        order_bits<31, narrow>(bits, narrow{} + nan_bits, narrow{} + std::numeric_limits<std::int32_t>::max(), narrow{} + 0x7f800000);
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
  check_top_k(function, in, out);
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
