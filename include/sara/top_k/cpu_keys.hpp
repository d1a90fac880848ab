// A score and its index as one key (math/order.hpp), so that the largest key is the best expert: the memory of the tournaments that such
// keys play.
#pragma once

#include <bit>

#include "../core/workspace.hpp"
#include "../cpu/rows.hpp"
#include "../math/order.hpp"

namespace sara {
inline namespace SARA_ABI {

// One of two, by a mask: a branch would be wrong every other time.
SARA_INLINE std::int64_t choose(bool first, std::int64_t a, std::int64_t b) { return b ^ ((a ^ b) & -static_cast<std::int64_t>(first)); }

// Keys of 32-bit scores. A tournament's nodes are an array of them.
struct narrow_keys {
  using type = std::int64_t;
  static constexpr type none = math::no_narrow_key;
  std::int64_t* nodes = nullptr;

  void take(carver& memory, index_t count) { nodes = memory.take<std::int64_t>(count); }
  SARA_INLINE type operator[](index_t i) const { return nodes[i]; }
  SARA_INLINE void set(index_t i, type key) const { nodes[i] = key; }
  SARA_INLINE void set(index_t i, float score) const { nodes[i] = math::narrow_key(score, static_cast<std::uint32_t>(i)); }
  SARA_INLINE static type better(type a, type b) { return choose(a > b, a, b); }
  SARA_INLINE static index_t index(type key) { return math::index_of(key); }
};

// Keys of 64-bit scores, in two arrays: a pair in one would be written in halves and read whole, which stalls.
struct wide_keys {
  using type = math::wide_key;
  static constexpr type none = math::wide_key::none();
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
  SARA_INLINE void set(index_t i, double score) const { set(i, type{math::ordered_bits(score), i}); }
  SARA_INLINE static type better(const type& a, const type& b) {
    const bool first = a > b;
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
