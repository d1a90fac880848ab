// Exponentials of a row of logits, scaled so that a softmax of any range loses nothing.
//
// A softmax needs exp(z) only up to a common factor. Instead of exp(z - max), whose subtraction rounds (by up to |z - max| / 2 ulp),
// z is split as k ln 2 + r and the factor 2^(bias - k_max) is applied to 2^k: exact. The bias keeps what would be a denormal
// probability normal until it is divided by the row's sum. Rows whose largest logit is huge are shifted by it first, which is exact
// there (Sterbenz). Accuracy: 1 ulp or so for float, measured by tests/math.
//
// V is a SIMD vector (cpu/simd.hpp) of float or double.
#pragma once

#include <cmath>

#include "polynomial.hpp"

namespace sara::math {
inline namespace SARA_ABI {

template <class A> struct exp_constants;

template <> struct exp_constants<float> {
  static constexpr float log2_e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;   // high: 10 bits, so k * high is exact
  static constexpr float magic = 12582912.f;   // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  static constexpr int mantissa = 23, exponent_bias = 127, bias = 24;
  static constexpr float reach = 104.f;   // exp(-reach) of the largest is below half the least denormal
  static constexpr float shift_from = 256.f;
  // Minimax for exp(r) = 1 + r + r^2 q(r), |r| <= ln 2 / 2: relative error 3.1e-9.
  static constexpr float q[] = {0.499999934512f, 0.166665206655f, 0.0416683874211f, 0.00836871295582f, 0.00138146197212f};
};

template <> struct exp_constants<double> {
  static constexpr double log2_e = 1.4426950408889634074, ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double magic = 6755399441055744.;
  static constexpr int mantissa = 52, exponent_bias = 1023, bias = 64;
  static constexpr double reach = 746., shift_from = 2048.;
  // Relative error 3.6e-18.
  static constexpr double q[] = {0.50000000000000106211,   0.16666666666666412511,    0.041666666666530218175,    0.008333333333494487887,
                                 0.0013888888943612671789, 0.00019841269506483096945, 0.000024801493118546276959, 2.7557586492657614113e-6,
                                 2.7630240869567676078e-7, 2.5000013909283003008e-8};
};

// The row's part of the computation: from its largest logit.
template <class A> struct exp_row {
  A shift, least;           // what is subtracted first; below `least` (after it) the exponential is 0
  integer_of<A> exponent;   // added to k: the bias and the field's own, less k_max

  exp_row() = default;
  SARA_INLINE explicit exp_row(A max) {
    using c = exp_constants<A>;
    const A magnitude = max < 0 ? -max : max;
    shift = magnitude < c::shift_from ? A(0) : max;   // NaN and infinities shift by themselves: the row becomes NaN
    const A rest = magnitude < c::shift_from ? max : A(0);
    least = rest - c::reach;
    k_max_ = static_cast<integer_of<A>>(rest * c::log2_e + (rest < 0 ? A(-0.5) : A(0.5)));
    exponent = static_cast<integer_of<A>>(c::exponent_bias + c::bias) - k_max_;
  }

  // ln of the sum of exp(z), from the sum of the scaled exponentials.
  SARA_INLINE double log_sum_exp(A sum) const {
    return static_cast<double>(shift) + static_cast<double>(k_max_ - exp_constants<A>::bias) * 0.69314718055994530942 +
           std::log(static_cast<double>(sum));
  }

 private:
  integer_of<A> k_max_;
};

// exp(z) * 2^bias / 2^k_max, per lane; 0 for -inf and for what is too small, NaN for NaN.
template <class V> SARA_INLINE V exp_scaled(const V& z, const exp_row<typename V::scalar>& row) {
  using A = typename V::scalar;
  using c = exp_constants<A>;
  const V x = z - row.shift;
  const V rounded = keep(mul_add(x, V::broadcast(c::log2_e), V::broadcast(c::magic)));
  const V k = rounded - c::magic;
  const V r = mul_add(k, V::broadcast(-c::ln2_low), keep(mul_add(k, V::broadcast(-c::ln2_high), x)));
  const V q = horner(r, c::q);
  const V p = mul_add(mul_add(q, r, V::broadcast(A(1))), r, V::broadcast(A(1)));
  const V scale = V::from_bits((rounded.bits().v + row.exponent) << c::mantissa);
  return select(x < row.least, V::broadcast(A(0)), p * scale);
}

}   // namespace SARA_ABI
}   // namespace sara::math
