// A loop whose rounds are written out.
#pragma once

#include <utility>

#include "config.hpp"

namespace sara {
inline namespace SARA_ABI {

// A number as a type, which the device may read too (std::integral_constant's conversion is the host's alone).
template <int i> struct constant {
  static constexpr int value = i;
  SARA_INLINE constexpr operator int() const { return i; }
};

// f(0), f(1), ... f(n - 1), written out: each call has its number as a constant, and what an array holds lives in registers, whatever
// the optimisation level. A lambda for it is marked __attribute__((always_inline)).
template <class F, int... i> SARA_INLINE void write_out(const F& f, std::integer_sequence<int, i...>) { (f(constant<i>{}), ...); }
template <int n, class F> SARA_INLINE void written_out(const F& f) { write_out(f, std::make_integer_sequence<int, n>{}); }

}   // namespace SARA_ABI
}   // namespace sara
