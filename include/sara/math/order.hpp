// Numbers as integers that are in the order of their values: the higher score, then the lower index, is the larger integer. What top-k
// compares on every backend.
//
// -0 is +0. NaN, whatever its sign and payload, is one number below -inf.
#pragma once

#include "../core/types.hpp"

namespace sara::math {
inline namespace SARA_ABI {

// Bits of a float in the order of their values: `least`, below -inf, for NaN, and -0 equal to +0; the low bits of 16-bit storage stay 0.
// For integers or vectors of them; without a branch on a number's sign, which would be wrong every other time.
template <int sign_bit, class B> SARA_INLINE void order_bits(B& bits, const B& least, const B& all_but_sign, const B& infinity) {
  const B sign = bits >> sign_bit, magnitude = bits & all_but_sign, ordered = (magnitude ^ sign) - sign;
  bits = magnitude > infinity ? least : ordered;
}
inline constexpr std::int32_t nan_bits = -0x7fff0000;

SARA_INLINE std::int32_t ordered_bits(float x) {
  std::int32_t bits = __builtin_bit_cast(std::int32_t, x);
  order_bits<31, std::int32_t>(bits, std::int32_t{nan_bits}, 0x7fffffff, 0x7f800000);
  return bits;
}
SARA_INLINE std::int64_t ordered_bits(double x) {
  std::int64_t bits = __builtin_bit_cast(std::int64_t, x);
  order_bits<63, std::int64_t>(bits, -0x7fffffffffffffffLL, 0x7fffffffffffffffLL, 0x7ff0000000000000LL);
  return bits;
}

// The key of a 32-bit score, for up to 2^32 experts: ordered bits above, inverted index below.
SARA_INLINE std::int64_t narrow_key(float score, std::uint32_t index) {
  return static_cast<std::int64_t>(ordered_bits(score)) << 32 | static_cast<std::int64_t>(~index);
}
SARA_INLINE std::uint32_t index_of(std::int64_t narrow_key) { return ~static_cast<std::uint32_t>(narrow_key); }
inline constexpr std::int64_t no_narrow_key = -0x7fffffffffffffffLL - 1;   // below every key

// The key of a 64-bit score, for any number of experts.
struct wide_key {
  std::int64_t bits, index;

  SARA_INLINE static constexpr wide_key none() { return {-0x7fffffffffffffffLL - 1, 0x7fffffffffffffffLL}; }
  SARA_INLINE friend bool operator>(const wide_key& a, const wide_key& b) {
    return (a.bits > b.bits) | ((a.bits == b.bits) & (a.index < b.index));
  }
  SARA_INLINE friend wide_key larger(const wide_key& a, const wide_key& b) { return a > b ? a : b; }
  SARA_INLINE friend wide_key smaller(const wide_key& a, const wide_key& b) { return a > b ? b : a; }
};

// Two 16-bit numbers of one format in a word, as two unsigned ones of 16 bits in their order, +-0 being 0x8000. NaN is not looked at:
// positive ones come above +inf, negative ones below -inf, none is 0.
SARA_INLINE std::uint32_t ordered_halves(std::uint32_t word) {
  const std::uint32_t signs = (word >> 15) & 0x00010001u, negative = signs * 0xffffu;
  return (word ^ (negative | 0x80008000u)) + signs;   // 0x8000 + magnitude, or 0x7fff - magnitude + 1: nothing is carried over
}
// One such number, in the low half, and its place among them; NaN becomes 1. `infinity`: its bits in this format.
SARA_INLINE std::uint32_t ordered_half(std::uint32_t bits, std::uint32_t infinity) {
  const std::uint32_t magnitude = bits & 0x7fffu;
  return magnitude > infinity ? 1u : bits & 0x8000u ? 0x8000u - magnitude : 0x8000u + magnitude;
}

}   // namespace SARA_ABI
}   // namespace sara::math
