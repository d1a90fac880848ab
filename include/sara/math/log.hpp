// log, log1p and atanh of SIMD vectors of double (on a device, of one), over the ranges that the Jensen-Shannon term needs:
// atanh(s) = s + s^3 R(s^2), ln m = 2 atanh((m - 1) / (m + 1)), ln(1 + x) = x + x^2 Q(x).
#pragma once

#include "polynomial.hpp"

namespace sara::math {
inline namespace SARA_ABI {

// Marks a comparison's result that is used more than once, for the compiler of a SIMD vector's (cpu/simd.hpp); one number's stays as it is.
SARA_INLINE bool reused(bool condition) { return condition; }

// Minimax for (atanh(s) / s - 1) / s^2 over s^2 in [0, 1/4]: relative error of atanh 7e-18.
struct atanh_coefficients {
  static constexpr double all[] = {0.33333333333334022194,  0.19999999999786255336,  0.14285714308883068082,  0.11111109847888976022,
                                   0.09090949630860583355,  0.076914742527373406984, 0.066781889766007707454, 0.057724051116099244594,
                                   0.059935028002067070089, 0.014147928310298007362, 0.14593643556999635632,  -0.1543139961979055422,
                                   0.22565922796919958493};
  static constexpr int count = sizeof all / sizeof *all;
  template <int i> static constexpr double c = all[i];
};

// |s| <= 1/2.
template <class V> SARA_INLINE V atanh_near(const V& s) {
  const V w = s * s;
  return mul_add(s * w, polynomial<atanh_coefficients>(w), s);
}

// Minimax for (ln(1 + x) - x) / x^2 over x in [-1/4, 0]: relative error of the logarithm 1.3e-17.
struct log1p_coefficients {
  static constexpr double all[] = {-0.50000000000001248192, 0.33333333332942837955,  -0.25000000042638874019, 0.19999997659899659332,
                                   -0.16666742212593977057, 0.14284152803467257126,  -0.12521693694128429694, 0.10903172179875326443,
                                   -0.11387012531111861242, 0.027098228458129513509, -0.27936703639332096674, -0.29611730149270013231,
                                   -0.43471834137309595193};
  static constexpr int count = sizeof all / sizeof *all;
  template <int i> static constexpr double c = all[i];
};

// ln(1 + x) for x in [-1/4, 0].
template <class V> SARA_INLINE V log1p_near(const V& x) { return mul_add(x * x, polynomial<log1p_coefficients>(x), x); }

// ln x for x > 0, denormals included. NaN for NaN.
template <class V> SARA_INLINE V log_positive(const V& x) {
  const auto is_denormal = reused(x < V::broadcast(2.2250738585072014e-308));
  const V normal = select(is_denormal, x * 18014398509481984.0, x);   // 2^54
  // normal = 2^e m, m in [sqrt(1/2), sqrt(2)): e is the exponent field of normal / sqrt(1/2), here with the field's bias: never negative,
  // so that it needs neither a shift nor a conversion that knows signs, which AVX2 has not.
  constexpr std::uint64_t sqrt_half = 0x3fe6a09e667f3bcd, one = 0x3ff0000000000000, field = ~0x000fffffffffffffu,
                          integer = 0x4330000000000000;
  constexpr double two_52 = 4503599627370496.;   // its last bits are an integer
  typename V::word biased = normal.to_word(), mantissa = biased;
  biased.v += one - sqrt_half;
  mantissa.v -= (biased.v & field) - one;
  biased.v = biased.v >> 52 | integer;
  const V m = V::from_word(mantissa),
          k = V::from_word(biased) - select(is_denormal, V::broadcast(two_52 + 1023 + 54), V::broadcast(two_52 + 1023));
  const V s = (m - 1.0) / (m + 1.0);
  const V a = atanh_near(s);
  const V log_m = a + a;
  return keep(mul_add(k, V::broadcast(6.93147180369123816490e-01), keep(mul_add(k, V::broadcast(1.90821492927058770002e-10), log_m)))) +
         (x - x);
}

}   // namespace SARA_ABI
}   // namespace sara::math
