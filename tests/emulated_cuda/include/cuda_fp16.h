// CUDA's fp16 number: storage, and conversion from and to float (to nearest, ties to even).
#pragma once

#include "cuda_runtime.h"

struct __half_raw {
  unsigned short x;
};

struct alignas(2) __half {
  __half() = default;
  constexpr __half(const __half_raw& raw) : bits_(raw.x) {}
  __half(float x) {
    const unsigned u = __builtin_bit_cast(unsigned, x), a = u & 0x7fffffffu;
    unsigned h = 0;
    if (a > 0x7f800000u)   // NaN
      h = 0x7fffu;
    else if (a >= 0x477ff000u)   // 65520, from which on infinity is nearest
      h = 0x7c00u;
    else if (a >= 0x38800000u)   // 2^-14, the least normal number
      h = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
    else
      h = static_cast<unsigned>(std::nearbyint(__builtin_bit_cast(float, a) * 0x1p24f));   // steps of 2^-24
    bits_ = static_cast<unsigned short>(a > 0x7f800000u ? h : h | (u >> 16 & 0x8000u));
  }
  operator float() const {
    const unsigned exponent = bits_ >> 10 & 31u, mantissa = bits_ & 1023u, sign = static_cast<unsigned>(bits_ & 0x8000u) << 16;
    if (exponent == 0) return (sign ? -0x1p-24f : 0x1p-24f) * static_cast<float>(mantissa);
    return __builtin_bit_cast(float, sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | mantissa << 13);
  }
  constexpr operator __half_raw() const { return {bits_}; }

 protected:
  unsigned short bits_;
};
using half = __half;
struct alignas(4) __half2 {
  __half x, y;
};

inline __half __float2half(float x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline float __half2float(__half x) { return x; }
inline unsigned short __half_as_ushort(__half x) { return static_cast<__half_raw>(x).x; }
inline __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }
