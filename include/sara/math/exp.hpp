// Exponentials of a row of logits, scaled so that a softmax of any range loses nothing.
//
// A softmax needs exp(z) only up to a common factor. Instead of exp(z - max), whose subtraction rounds (by up to |z - max| / 2 ulp),
// z is split as k ln 2 + r and the factor 2^(bias - k_max) is applied to 2^k: exact. The bias keeps what would be a denormal
// probability normal until it is divided by the row's sum. Rows whose largest logit is huge are shifted by it first, which is exact
// there (Sterbenz). Accuracy: 1 ulp or so for float, little more than half where powers are looked up; measured by tests/math.
//
// k is rounded by an addition: of a number so large that the sum's last bit counts ones. That number ends in the exponent field of 2^bias
// / 2^k_max, so that the sum's low bits are the field of the whole factor. r times the factor may be denormal, where a machine may flush it;
// the bias has more bits than the mantissa, or as many, so that only probabilities that are denormal themselves feel that.
//
// For most rows the largest logit need not be known: with a bias of 2^32 (2^64 for double) any from -5 to 16 does, and the sum of the
// exponentials tells whether it was one. The factor being a power of two, the softmax is the same. The sum stays below 2^56 times the
// number of columns, so that what is divided by it, a token's weight or the gradient's scale, may be as small as 1e-17 in fp32.
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
  static constexpr int mantissa = 23, exponent_bias = 127, bias = 25;
  static constexpr float reach = 104.f;   // exp(-reach) of the largest is below half the least denormal
  static constexpr float shift_from = 256.f;
  static constexpr int usual_bias = 32;
  static constexpr float usual_none = -110.2f;   // its 2^k, k in sixteenths too, is 2^-159, with an exponent field of 0: it is 0
  // Minimax for exp(r) = 1 + r + r^2 q(r), |r| <= ln 2 / 2: relative error 3.1e-9.
  static constexpr float coefficients[] = {0.499999934512f, 0.166665206655f, 0.0416683874211f, 0.00836871295582f, 0.00138146197212f};
  // Near 0, |r| <= ln 2 / 32, two do: relative error 1.6e-9. A number, which device code may read, not an array.
  template <int i, bool looks_up> static constexpr float q = looks_up ? (i ? 0.16667058f : 0.5000162f) : coefficients[i];

  // The bits of 2^(i / 16) below the exponent; and 2^(i / 16) over the float that has them, less 1.
  static constexpr std::int32_t roots[] = {0x000000, 0x05aac3, 0x0b95c2, 0x11c3d3, 0x1837f0, 0x1ef532, 0x25fed7, 0x2d583f,
                                           0x3504f3, 0x3d08a4, 0x45672a, 0x4e248c, 0x5744fd, 0x60ccdf, 0x6ac0c7, 0x75257d};
  static constexpr float root_rests[] = {0,        4.63e-8f,  -1.20e-8f, 4.73e-8f, 3.19e-8f,  3.62e-8f, -3.10e-8f, -7.5e-9f,
                                         1.71e-8f, -3.05e-8f, 5.2e-9f,   6.1e-9f,  -1.47e-8f, -5.3e-9f, -6.1e-9f,  5.1e-9f};
};

template <> struct exp_constants<double> {
  static constexpr double log2_e = 1.4426950408889634074, ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double magic = 6755399441055744.;
  static constexpr int mantissa = 52, exponent_bias = 1023, bias = 64;
  static constexpr double reach = 746., shift_from = 2048.;
  static constexpr int usual_bias = 64;
  static constexpr double usual_none = -753.4;
  // Relative error 3.6e-18.
  static constexpr double coefficients[] = {
      0.50000000000000106211,    0.16666666666666412511,     0.041666666666530218175,  0.008333333333494487887,  0.0013888888943612671789,
      0.00019841269506483096945, 0.000024801493118546276959, 2.7557586492657614113e-6, 2.7630240869567676078e-7, 2.5000013909283003008e-8};
  template <int i, bool> static constexpr double q = coefficients[i];
};

// What a row of usual logits has. A kernel keeps one as a member: of what compilers take for constants they make two instructions of each
// minimum and maximum.
template <class A> struct usual_exp_row {
  A least = exp_constants<A>::usual_none;   // from here down the exponential is 0: ln 2 below what it is for a largest logit of -5
  A most = 17;                              // clamped to it: enough to be told by the sum
  A rounder = exp_constants<A>::magic + (exp_constants<A>::exponent_bias + exp_constants<A>::usual_bias);

  // From the sum of exp_usual over a row: was its largest logit from -5 to 16? The largest term is at least the mean and at most the
  // sum. False for NaN. V: the sum of one row, or of a row in each lane.
  template <class V> SARA_INLINE static auto was_usual(const V& sum, A columns) {
    constexpr A one = static_cast<A>(std::uint64_t(1) << (exp_constants<A>::usual_bias - 1)) * 2;
    return (sum > columns * (A(0.006737946999085467) * one)) & (sum < A(8886110.520507872) * one);
  }
};

// The row's part of the computation: from its largest logit.
template <class A> struct exp_row {
  A shift, least;   // what is subtracted first; below `least` (after it) the exponential is 0
  A rounder;        // added to round to k; leaves k, the bias and the field's own, less k_max, in the low bits

  exp_row() = default;
  SARA_INLINE explicit exp_row(A max) {
    using c = exp_constants<A>;
    const A magnitude = max < 0 ? -max : max;
    shift = magnitude < c::shift_from ? A(0) : max;   // NaN and infinities shift by themselves: the row becomes NaN
    const A rest = magnitude < c::shift_from ? max : A(0);
    least = rest - c::reach;
    k_max_ = static_cast<integer_of<A>>(rest * c::log2_e + (rest < 0 ? A(-0.5) : A(0.5)));
    rounder = c::magic + static_cast<A>(c::exponent_bias + c::bias - k_max_);
  }
  // What exp_usual is relative to.
  SARA_INLINE static exp_row usual() {
    using c = exp_constants<A>;
    exp_row row(0);
    row.k_max_ = c::bias - c::usual_bias;
    row.rounder = usual_exp_row<A>().rounder;
    return row;
  }

  // ln of the sum of exp(z), from the sum of the scaled exponentials.
  SARA_INLINE double log_sum_exp(A sum) const {
    return static_cast<double>(shift) + static_cast<double>(k_max_ - exp_constants<A>::bias) * 0.69314718055994530942 +
           std::log(static_cast<double>(sum));
  }

 private:
  integer_of<A> k_max_;
};

// exp(x) of n vectors, times the power of two that `whole` ends in. Each is a long chain of operations; they overlap only where they are
// written interleaved.
//
// With looks_up, k counts sixteenths, and what their powers of two have below the exponent is looked up: r is 16 times as small, and two
// coefficients do. What a power looked up lacks is added to r's part, where it is not lost. A factor with an exponent field of 0 is wrong:
// the biases keep it above 0 until the probability is 0.
template <bool looks_up, class V, int n> SARA_INLINE void exp_times_power(V (&x)[n], typename V::scalar whole) {
  using A = typename V::scalar;
  using c = exp_constants<A>;
  constexpr int degree = looks_up ? 1 : sizeof c::coefficients / sizeof(A) - 1;
  const A rounder = looks_up ? whole - (c::magic - c::magic / 16) : whole;
  V rounded[n], k[n], q[n], power[n];
  written_out<n>([&](auto i)
                     __attribute__((always_inline)) { rounded[i] = keep(mul_add(x[i], V::broadcast(c::log2_e), V::broadcast(rounder))); });
  written_out<n>([&](auto i) __attribute__((always_inline)) { k[i] = rounded[i] - rounder; });
  written_out<n>([&](auto i) __attribute__((always_inline)) { x[i] = keep(mul_add(k[i], V::broadcast(-c::ln2_high), x[i])); });
  written_out<n>([&](auto i) __attribute__((always_inline)) { power[i] = V::from_bits(rounded[i].bits().v << c::mantissa); });
  written_out<n>([&](auto i) __attribute__((always_inline)) { x[i] = mul_add(k[i], V::broadcast(-c::ln2_low), x[i]); });
  written_out<n>([&](auto i) __attribute__((always_inline)) { q[i] = V::broadcast(c::template q<degree, looks_up>); });
  written_out<degree>([&](auto d) __attribute__((always_inline)) {
    constexpr A next = c::template q<degree - 1 - decltype(d)::value, looks_up>;
    written_out<n>([&](auto i) __attribute__((always_inline)) { q[i] = mul_add(q[i], x[i], V::broadcast(next)); });
  });
  written_out<n>([&](auto i) __attribute__((always_inline)) { q[i] = mul_add(q[i], x[i], V::broadcast(A(1))); });
  if constexpr (looks_up) {
    written_out<n>([&](auto i) __attribute__((always_inline)) { x[i] = mul_add(q[i], x[i], looked_up(c::root_rests, rounded[i])); });
    written_out<n>([&](auto i) __attribute__((always_inline)) {
      power[i] = V::from_bits((rounded[i].bits().v << (c::mantissa - 4) & -(1 << c::mantissa)) | looked_up(c::roots, rounded[i]).bits().v);
      x[i] = mul_add(x[i], power[i], power[i]);
    });
  } else {
    written_out<n>([&](auto i) __attribute__((always_inline)) { x[i] = mul_add(q[i], x[i] * power[i], power[i]); });
  }
}

// exp(z) * 2^bias / 2^k_max, per lane; 0 for -inf and for what is too small, NaN for NaN.
template <bool looks_up = false, class V> SARA_INLINE V exp_scaled(const V& z, const exp_row<typename V::scalar>& row) {
  const V x = z - row.shift;
  V scaled[1] = {x};
  exp_times_power<looks_up>(scaled, row.rounder);
  return select(x < row.least, V::broadcast(0), scaled[0]);
}

// exp(z) * 2^usual_bias of n vectors; 0 for -inf and for what is too small; of the order of exp(17) for more than 17; NaN, or as
// much, for NaN.
template <class V, int n> SARA_INLINE void exp_usual(V (&z)[n], const usual_exp_row<typename V::scalar>& row) {
  written_out<n>([&](auto i) __attribute__((always_inline)) { z[i] = max(V::broadcast(row.least), at_most(z[i], row.most)); });
  exp_times_power<V::looks_up_16>(z, row.rounder);
}

}   // namespace SARA_ABI
}   // namespace sara::math
