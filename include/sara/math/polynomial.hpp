// Polynomials, unrolled at compile time.
#pragma once

#include "../core/types.hpp"
#include "../core/written_out.hpp"

namespace sara::math {
inline namespace SARA_ABI {

// `c<i> + x (c<i + step> + x (...))` of the `count` coefficients of C: Horner's rule. They are numbers, which device code may read; an array
// it may not.
template <class C, int i, int step, class V> SARA_INLINE V horner(const V& x) {
  if constexpr (i + step >= C::count) {
    return V::broadcast(C::template c<i>);
  } else {
    return mul_add(horner<C, i + step, step>(x), x, V::broadcast(C::template c<i>));
  }
}

// c<0> + c<1> x + c<2> x^2 + ... for a SIMD vector x: even and odd powers apart, two chains of half the length that overlap.
template <class C, class V> SARA_INLINE V polynomial(const V& x) {
  const V square = x * x;
  return mul_add(horner<C, 1, 2>(square), x, horner<C, 0, 2>(square));
}

}   // namespace SARA_ABI
}   // namespace sara::math
