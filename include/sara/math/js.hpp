// The Jensen-Shannon term of one expert and its slopes, in the form without cancellation. The one place of this formula: every
// backend and the tests call it.
//
//   m = (p + q) / 2,  u = (hi - lo) / (hi + lo),  hi = max(p, q), lo = min(p, q)
//   JS = sum over experts of m phi(u),  phi(u) = 1/2 [(1 + u) ln(1 + u) + (1 - u) ln(1 - u)]
//   d JS / d hi = 1/2 ln(1 + u),  d JS / d lo = 1/2 ln(1 - u)           (exact for unnormalised p and q too)
//
// which equals 1/2 KL(p || m) + 1/2 KL(q || m) (SARA, arXiv 2606.25821), whose own form has no right digit near convergence.
// Near (u < 1/2): phi = u atanh(u) + 1/2 log1p(-u^2), slopes from the same two; far: 1/2 ln(1 + u) = atanh(u / (2 + u)), and the logarithm
// of 1 - u = 2 lo / (p + q), taken by division. Every term is >= 0; hi and lo make the sum symmetric bit by bit.
//
// R may be double, a SIMD vector of it, or an Eigen AutoDiffScalar: whatever has the arithmetic operators and, found
// by its namespace or here, select, log, log1p and atanh, and any and reused for what its comparisons yield.
#pragma once

#include <cmath>

#include "log.hpp"

namespace sara::math {
inline namespace SARA_ABI {

template <class R> SARA_INLINE R select(bool condition, const R& yes, const R& no) { return condition ? yes : no; }

SARA_INLINE bool any(bool condition) { return condition; }
SARA_INLINE double log(double x) { return std::log(x); }
SARA_INLINE double log1p(double x) { return std::log1p(x); }
SARA_INLINE double atanh(double x) { return std::atanh(x); }
inline long double log(long double x) { return std::log(x); }   // host only, for the Eigen executor
inline long double log1p(long double x) { return std::log1p(x); }
inline long double atanh(long double x) { return std::atanh(x); }

template <class R> struct js_term { R value, slope_p, slope_q; };

// 0 <= p, q < 5e307. Where a side is 0 its slope (-inf, or undefined) is given as 0: what it multiplies, the probability of that expert
// in any token, is 0 as well. NaN in, NaN out.
template <class R> SARA_INLINE js_term<R> js(const R& p, const R& q) {
  const auto p_is_less = reused(p < q);
  const R zero = p - p, one = zero + 1.0;   // NaN where p is
  const R hi = select(p_is_less, q, p), lo = select(p_is_less, p, q), sum = hi + lo, apart = hi - lo;
  const auto empty = reused(sum == zero);
  const R whole = select(empty, one, sum);

  const auto near = reused(apart + apart < whole);
  const R v = apart / select(near, whole, whole + (hi + hi));   // u; far u / (2 + u), whose atanh is 1/2 ln(1 + u)
  const R a = atanh(v), b = log1p(-(v * v)) * 0.5;              // near log1p(+-u) = b +- a
  R phi = v * a + b, slope_hi = (b + a) * 0.5, slope_lo = (b - a) * 0.5;
  if (any(!near)) {                  // lo is compared here and below, as what is kept across a branch costs more
    const R y = (lo + lo) / whole;   // 1 - u
    const R half_log_y = log(select(near, one, select(reused(lo == zero), one, y))) * 0.5;
    phi = select(near, phi, y * half_log_y - (y - 2.0) * a);
    slope_hi = select(near, slope_hi, a);
    slope_lo = select(near, slope_lo, half_log_y);
  }
  const R at_lo = select(reused(lo == zero), zero, slope_lo), at_hi = select(empty, zero, slope_hi);
  return {sum * 0.5 * phi, select(p_is_less, at_lo, at_hi), select(p_is_less, at_hi, at_lo)};
}

}   // namespace SARA_ABI
}   // namespace sara::math
