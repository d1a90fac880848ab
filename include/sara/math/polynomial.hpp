// Horner's rule, unrolled at compile time.
#pragma once

#include "../core/types.hpp"
#include "../core/written_out.hpp"

namespace sara::math {
inline namespace SARA_ABI {

// c<0> + x (c<1> + x (...)) of the `count` coefficients c<i> of C, for a SIMD vector x. They are numbers, which device code may read; an
// array it may not.
template <class C, int i = 0, class V> SARA_INLINE V horner(const V& x) {
  if constexpr (i == C::count - 1) {
    return V::broadcast(C::template c<i>);
  } else {
    return mul_add(horner<C, i + 1>(x), x, V::broadcast(C::template c<i>));
  }
}

}   // namespace SARA_ABI
}   // namespace sara::math
