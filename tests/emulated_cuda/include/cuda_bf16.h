// CUDA's bf16 number: storage, and conversion from and to float (to nearest, ties to even).
#pragma once

#include "cuda_runtime.h"

struct __nv_bfloat16_raw {
  unsigned short x;
};

struct alignas(2) __nv_bfloat16 {
  __nv_bfloat16() = default;
  constexpr __nv_bfloat16(const __nv_bfloat16_raw& raw) : bits_(raw.x) {}
  __nv_bfloat16(float x) {
    const unsigned u = __builtin_bit_cast(unsigned, x), rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    bits_ = static_cast<unsigned short>((u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded);
  }
  operator float() const { return __builtin_bit_cast(float, static_cast<unsigned>(bits_) << 16); }
  constexpr operator __nv_bfloat16_raw() const { return {bits_}; }

 protected:
  unsigned short bits_;
};
using nv_bfloat16 = __nv_bfloat16;
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return static_cast<__nv_bfloat16_raw>(x).x; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __nv_bfloat16_raw{bits}; }
