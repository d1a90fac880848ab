// A score and its index as one integer key, so that the largest key is the best expert: higher score first, then lower index; and the
// memory of the tournaments that such keys play.
#pragma once

#include <bit>

#include "../core/workspace.hpp"
#include "../cpu/rows.hpp"

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

}   // namespace SARA_ABI
}   // namespace sara
