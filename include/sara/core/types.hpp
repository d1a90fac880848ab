// Sizes, storage types and the arithmetic that belongs to them.
//
// Storage is what lies in memory: double, float, bf16, fp16, or (Eigen executor only) any other scalar. Arithmetic is what
// is computed with: double for double, float for float and the 16-bit types, the scalar itself for any other.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "config.hpp"

struct __nv_bfloat16;   // CUDA's, so that its storage trait stands here without its header
struct __half;

namespace sara {

using index_t = std::int64_t;   // every extent, stride and offset: signed, 64 bit

// How a 16-bit type keeps its number; `native` for the types the compiler computes with.
enum class storage_format { native, bf16, fp16 };

// The format of a storage type. A 16-bit type is recognised by its std::numeric_limits (8 digits: bf16, 11: fp16), which
// Eigen and torch provide for theirs; specialise the trait for a type that has none. Values are read and written by copying
// their bytes (such types are trivially copyable), never through a pointer of another type.
template <class T> struct storage_trait {
  static constexpr storage_format format = sizeof(T) != 2 || !std::numeric_limits<T>::is_specialized || std::numeric_limits<T>::is_integer
                                               ? storage_format::native
                                           : std::numeric_limits<T>::digits == 8 ? storage_format::bf16
                                                                                 : storage_format::fp16;
};
template <> struct storage_trait<::__nv_bfloat16> { static constexpr storage_format format = storage_format::bf16; };
template <> struct storage_trait<::__half> { static constexpr storage_format format = storage_format::fp16; };

template <class T>
using arithmetic_t =
    std::conditional_t<storage_trait<std::remove_const_t<T>>::format == storage_format::native, std::remove_const_t<T>, float>;

// Is T one of the types that the CPU's and the GPU's kernels read and write?
template <class T>
inline constexpr bool is_kernel_storage =
    std::is_same_v<T, float> || std::is_same_v<T, double> || storage_trait<T>::format != storage_format::native;

// The signed integer of a type's size.
template <class A> using integer_of = std::conditional_t<sizeof(A) == 4, std::int32_t, std::int64_t>;

// `overwrite` never reads the gradient's buffer; `accumulate` adds to it with one rounding.
enum class gradient_mode { overwrite, accumulate };

inline namespace SARA_ABI {

// Conversions of the 16-bit formats, for one value. To nearest, ties to even; NaN stays NaN; integers only, so no flag of the
// compiler and no rounding mode changes them.
SARA_INLINE float float_of_bf16(std::uint16_t h) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(h) << 16); }

SARA_INLINE std::uint16_t bf16_of_float(float x) {
  const std::uint32_t u = __builtin_bit_cast(std::uint32_t, x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u >> 16) | 0x40u);
  return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

SARA_INLINE float float_of_fp16(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000u) << 16;
  std::uint32_t exponent = (h >> 10) & 31u, mantissa = h & 1023u;
  if (exponent == 0) {
    if (mantissa == 0) return __builtin_bit_cast(float, sign);
    exponent = 113;   // a denormal becomes a normal float
    for (; !(mantissa & 1024u); mantissa <<= 1) --exponent;
    mantissa &= 1023u;
  } else {
    exponent = exponent == 31 ? 255u : exponent + 112;
  }
  return __builtin_bit_cast(float, sign | (exponent << 23) | (mantissa << 13));
}

SARA_INLINE std::uint16_t fp16_of_float(float x) {
  const std::uint32_t u = __builtin_bit_cast(std::uint32_t, x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
  if (a >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);   // rounds to infinity
  if (a >= 0x38800000u) return static_cast<std::uint16_t>(sign | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13));
  if (a <= 0x33000000u) return static_cast<std::uint16_t>(sign);   // at most half the least denormal
  const std::uint32_t mantissa = (a & 0x7fffffu) | 0x800000u, shift = 126 - (a >> 23);
  return static_cast<std::uint16_t>(sign | ((mantissa + (1u << (shift - 1)) - 1 + ((mantissa >> shift) & 1u)) >> shift));
}

// One value from storage to arithmetic and back; the scalar twin of the kernels' loads and stores. By std::memcpy, since GCC 12 dies at -O3
// of a __builtin_bit_cast here.
template <class T> SARA_INLINE arithmetic_t<T> load_value(const T& x) {
  if constexpr (storage_trait<T>::format == storage_format::native) {
    return x;
  } else {
    std::uint16_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return storage_trait<T>::format == storage_format::bf16 ? float_of_bf16(bits) : float_of_fp16(bits);
  }
}

template <class T> SARA_INLINE void store_value(T& to, const arithmetic_t<T>& x) {
  if constexpr (storage_trait<T>::format == storage_format::native) {
    to = x;
  } else {
    const std::uint16_t bits = storage_trait<T>::format == storage_format::bf16 ? bf16_of_float(x) : fp16_of_float(x);
    std::memcpy(static_cast<void*>(&to), &bits, sizeof bits);
  }
}

}   // namespace SARA_ABI

// The library's own 16-bit storage types, for programs that bring none.
struct bf16 {
  std::uint16_t bits = 0;
  bf16() = default;
  SARA_INLINE explicit bf16(float x) : bits(bf16_of_float(x)) {}
  SARA_INLINE explicit operator float() const { return float_of_bf16(bits); }
};
struct fp16 {
  std::uint16_t bits = 0;
  fp16() = default;
  SARA_INLINE explicit fp16(float x) : bits(fp16_of_float(x)) {}
  SARA_INLINE explicit operator float() const { return float_of_fp16(bits); }
};
template <> struct storage_trait<bf16> { static constexpr storage_format format = storage_format::bf16; };
template <> struct storage_trait<fp16> { static constexpr storage_format format = storage_format::fp16; };

}   // namespace sara
