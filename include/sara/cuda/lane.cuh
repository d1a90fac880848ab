// What one thread computes with: lane<A>, the one-lane twin of the CPU's simd, and 16 bytes of storage to arithmetic and back.
#pragma once

#include "../math/exp.hpp"
#include "../math/log.hpp"
#include "launch.cuh"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// One float or double, with what math/ asks of a SIMD vector: the formulas, and so the rounding, are the CPU's, but for what AVX-512 looks up.
template <class A> struct lane {
  using scalar = A;
  static constexpr bool looks_up_16 = false;
  struct integer {
    integer_of<A> v;
  };
  struct word {
    std::make_unsigned_t<integer_of<A>> v;
  };

  A v;

  SARA_INLINE static lane broadcast(A x) { return {x}; }
  SARA_INLINE static lane from_bits(integer_of<A> bits) { return {__builtin_bit_cast(A, bits)}; }
  SARA_INLINE static lane from_word(const word& w) { return {__builtin_bit_cast(A, w.v)}; }
  SARA_INLINE integer bits() const { return {__builtin_bit_cast(integer_of<A>, v)}; }
  SARA_INLINE word to_word() const { return {__builtin_bit_cast(decltype(word::v), v)}; }

  SARA_INLINE lane operator-() const { return {-v}; }
  SARA_INLINE friend lane operator+(const lane& a, const lane& b) { return {a.v + b.v}; }
  SARA_INLINE friend lane operator-(const lane& a, const lane& b) { return {a.v - b.v}; }
  SARA_INLINE friend lane operator*(const lane& a, const lane& b) { return {a.v * b.v}; }
  SARA_INLINE friend lane operator/(const lane& a, const lane& b) { return {a.v / b.v}; }
  SARA_INLINE friend lane operator+(const lane& a, A b) { return {a.v + b}; }
  SARA_INLINE friend lane operator-(const lane& a, A b) { return {a.v - b}; }
  SARA_INLINE friend lane operator*(const lane& a, A b) { return {a.v * b}; }
  SARA_INLINE friend bool operator<(const lane& a, const lane& b) { return a.v < b.v; }
  SARA_INLINE friend bool operator<(const lane& a, A b) { return a.v < b; }
  SARA_INLINE friend bool operator==(const lane& a, const lane& b) { return a.v == b.v; }
  SARA_INLINE friend lane mul_add(const lane& a, const lane& b, const lane& c) { return {a.v * b.v + c.v}; }   // fused by nvcc
  // The larger, and the smaller of a number and a limit; where one is NaN, the other.
  SARA_INLINE friend lane max(const lane& a, const lane& b) { return {larger(a.v, b.v)}; }
  SARA_INLINE friend lane at_most(const lane& x, A limit) { return {-larger(-x.v, -limit)}; }
  SARA_INLINE friend lane select(bool condition, const lane& yes, const lane& no) { return {condition ? yes.v : no.v}; }
  SARA_INLINE friend lane keep(const lane& sum) { return sum; }   // nvcc never reassociates
  // Of a double, over the ranges that math/js.hpp needs. CUDA's own branch, one after the other.
  SARA_INLINE friend lane log(const lane& x) { return math::log_positive(x); }
  SARA_INLINE friend lane log1p(const lane& x) { return math::log1p_near(x); }
  SARA_INLINE friend lane atanh(const lane& x) { return math::atanh_near(x); }

  SARA_INLINE static float larger(float a, float b) { return fmaxf(a, b); }
  SARA_INLINE static double larger(double a, double b) { return fmax(a, b); }
};

// a b + c, rounded once, and a b that no sum takes in: where the compiler would fuse in one kernel, and not in another.
SARA_INLINE float fused(float a, float b, float c) { return fmaf(a, b, c); }
SARA_INLINE double fused(double a, double b, double c) { return fma(a, b, c); }
template <class A> SARA_INLINE A product(A a, A b) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<A, float>)
    return __fmul_rn(a, b);
  else
    return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

// exp(x) of usual logits up to 2^usual_bias, as math::exp_usual has it: 0 for -inf and for what is too small, infinite or NaN for what is
// too large, NaN for NaN.
template <class A> struct usual_exp {
  SARA_INLINE A operator()(A x) const {
    lane<A> z[1] = {{x}};
    math::exp_usual(z, row);
    return z[0].v;
  }

  math::usual_exp_row<A> row = {};
};

// By the device's 2^t, which is off by 2 ulp at most, in 7 instructions where the polynomial takes 14. t = x / ln 2 + bias is rounded twice, and
// t - bias is exact; so what was lost, x - (t - bias) ln 2, is known, and made up for to first order. Within 2 ulp + |x| / 24 for the rounding of ln 2.
template <> struct usual_exp<float> {
  SARA_INLINE float operator()(float x) const {
    using c = math::exp_constants<float>;
    constexpr float bias = c::usual_bias, ln2 = 0.693147181f;
    x = at_least(x, c::usual_none);                                     // -inf - (t - bias) ln 2 would be NaN
    const float t = product(x, c::log2_e) + bias, power = exp2_of(t);   // fused, t could be finer than t - bias
    return fmaf(power, fmaf(t - bias, -ln2, x), power);
  }

 private:
  SARA_INLINE static float at_least(float x, float limit) {   // NaN stays
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(x), "f"(limit));
    return larger;
#else
    return x < limit ? limit : x;
#endif
  }
  SARA_INLINE static float exp2_of(float t) {   // denormal results are 0
#if defined(__CUDA_ARCH__)
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(t));
    return power;
#else
    return t < -126.f ? 0.f : std::exp2(t);
#endif
  }
};

// 1 / x, within 1 ulp or so, for a sum of exponentials: normal, as its inverse is, or NaN. Without the branch of a division.
SARA_INLINE float inverse(float x) {
#if defined(__CUDA_ARCH__)
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r * fused(-x, r, 2);
#else
  return 1 / x;
#endif
}
SARA_INLINE double inverse(double x) { return 1 / x; }

// 16 bytes of storage, as one load or store moves them. It may alias any storage type: nvcc 13 makes a std::memcpy of 16 bytes into 16
// loads of one, whatever is assumed of the address.
struct alignas(16) [[gnu::may_alias]] packet {
  std::uint32_t word[4];
};

// The values of a thread's 16 bytes.
template <class T> inline constexpr int packet_width = 16 / static_cast<int>(sizeof(T));

template <class T> SARA_INLINE packet load_packet(const T* from) { return *static_cast<const packet*>(static_cast<const void*>(from)); }
template <class T> SARA_INLINE void store_packet(T* to, const packet& p) { *static_cast<packet*>(static_cast<void*>(to)) = p; }

// The same of a row with `left` values from here, at least 1, `access` bytes at once: in two halves where that is 8, the second if it is there.
struct alignas(8) [[gnu::may_alias]] half_packet {
  std::uint32_t word[2];
};
template <int access, class T> SARA_INLINE void load_packet(packet& to, const T* from, int left) {
  if constexpr (access == 16) {
    to = load_packet(from);
  } else {
    for (int i = 0; i < 2; ++i) {
      if (i == 1 && left <= packet_width<T> / 2) break;
      const half_packet half = *static_cast<const half_packet*>(static_cast<const void*>(from + i * packet_width<T> / 2));
      to.word[2 * i] = half.word[0];
      to.word[2 * i + 1] = half.word[1];
    }
  }
}
template <int access, class T> SARA_INLINE void store_packet(T* to, const packet& p, int left) {
  if constexpr (access == 16) {
    store_packet(to, p);
  } else {
    for (int i = 0; i < 2; ++i) {
      if (i == 1 && left <= packet_width<T> / 2) break;
      *static_cast<half_packet*>(static_cast<void*>(to + i * packet_width<T> / 2)) = {{p.word[2 * i], p.word[2 * i + 1]}};
    }
  }
}

// One fp16 number from its bits and back; the device has an instruction for each, with the results of core/types.hpp (NaN apart, which
// loses its payload).
SARA_INLINE float widen_fp16(std::uint16_t bits) {
#if defined(__CUDA_ARCH__)
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
#else
  return float_of_fp16(bits);
#endif
}
SARA_INLINE std::uint16_t narrow_fp16(float x) {
#if defined(__CUDA_ARCH__)
  std::uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#else
  return fp16_of_float(x);
#endif
}

// Two bf16 numbers as a word, `low` in its low half.
SARA_INLINE std::uint32_t narrow_bf16(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return bf16_of_float(low) | static_cast<std::uint32_t>(bf16_of_float(high)) << 16;
#endif
}

template <class T> SARA_INLINE void widen(const packet& p, arithmetic_t<T> (&to)[packet_width<T>]) {
  if constexpr (storage_trait<T>::format == storage_format::native) {
    std::memcpy(to, &p, sizeof p);
  } else {
    for (int i = 0; i < 4; ++i) {
      if constexpr (storage_trait<T>::format == storage_format::bf16) {
        to[2 * i] = __builtin_bit_cast(float, p.word[i] << 16);
        to[2 * i + 1] = __builtin_bit_cast(float, p.word[i] & 0xffff0000u);
      } else {
        to[2 * i] = widen_fp16(static_cast<std::uint16_t>(p.word[i]));
        to[2 * i + 1] = widen_fp16(static_cast<std::uint16_t>(p.word[i] >> 16));
      }
    }
  }
}

template <class T> SARA_INLINE packet narrow(const arithmetic_t<T> (&from)[packet_width<T>]) {
  packet p;
  if constexpr (storage_trait<T>::format == storage_format::native) {
    std::memcpy(&p, from, sizeof p);
  } else {
    for (int i = 0; i < 4; ++i) {
      if constexpr (storage_trait<T>::format == storage_format::bf16)
        p.word[i] = narrow_bf16(from[2 * i], from[2 * i + 1]);
      else
        p.word[i] = narrow_fp16(from[2 * i]) | static_cast<std::uint32_t>(narrow_fp16(from[2 * i + 1])) << 16;
    }
  }
  return p;
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
