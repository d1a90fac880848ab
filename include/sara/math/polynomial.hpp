// Horner's rule, unrolled at compile time.
#pragma once

#include "../core/types.hpp"
#include "../core/written_out.hpp"

namespace sara::math {
inline namespace SARA_ABI {

// c[i] + x (c[i + 1] + x (...)), for a SIMD vector x.
template <int i = 0, class V, class A, int n> SARA_INLINE V horner(const V& x, const A (&c)[n]) {
  if constexpr (i == n - 1) {
    return V::broadcast(c[i]);
  } else {
    return mul_add(horner<i + 1>(x, c), x, V::broadcast(c[i]));
  }
}

}   // namespace SARA_ABI
}   // namespace sara::math
