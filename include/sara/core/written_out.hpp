// A loop whose rounds are written out.
#pragma once

#include <type_traits>
#include <utility>

#include "config.hpp"

namespace sara {
inline namespace SARA_ABI {

// f(0), f(1), ... f(n - 1), written out: each call has its number as a constant, and what an array holds lives in registers, whatever
// the optimisation level. A lambda for it is marked __attribute__((always_inline)).
template <class F, int... i> SARA_INLINE void write_out(const F& f, std::integer_sequence<int, i...>) {
  (f(std::integral_constant<int, i>{}), ...);
}
template <int n, class F> SARA_INLINE void written_out(const F& f) { write_out(f, std::make_integer_sequence<int, n>{}); }

}   // namespace SARA_ABI
}   // namespace sara
