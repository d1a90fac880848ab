// The largest keys of four rows at a time, by sorting networks over vectors: the lanes of a vector are four tokens by some columns, each
// lane keeps the best of its columns in order, and the lanes of a token are merged at last.
#pragma once

#include "../math/sorting_network.hpp"
#include "cpu_keys.hpp"

namespace sara {
inline namespace SARA_ABI {

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
          math::order_bits<31, integers>(bits, integers{} + math::nan_bits, integers{} + std::numeric_limits<std::int32_t>::max(),
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
      math::sort(chunk);
      L turned[best];
      written_out<best>([&](auto i) __attribute__((always_inline)) { turned[i] = chunk[best - 1 - i]; });
      merge(turned);
    }
    // A lane has a part of a token's columns: every lane of the token comes to have the best of all.
    if constexpr (L::lanes >= 16) merge_lanes<8>();
    if constexpr (L::lanes >= 8) merge_lanes<4>();
  }

 private:
  // To one sorted list another, whose order is turned round: the better of each pair are the best of both, falling and then rising.
  SARA_INLINE void merge(const L (&turned)[best]) {
    written_out<best>([&](auto i) __attribute__((always_inline)) {
      next = larger(next, smaller(list[i], turned[i]));
      list[i] = larger(list[i], turned[i]);
    });
    math::sort_bitonic(list);
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

}   // namespace SARA_ABI
}   // namespace sara
