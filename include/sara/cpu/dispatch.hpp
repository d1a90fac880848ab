// From an instruction set known when the program runs to code compiled for it.
#pragma once

#include "instruction_set.hpp"

namespace sara {
inline namespace SARA_ABI {

// A kernel is an object with a force-inlined `template <int bytes> void run() const`. These are the only functions with a target
// attribute; all that a kernel calls is inlined into them, attribute-free.
template <class Kernel> [[gnu::noinline]] void run_vector128(const Kernel& kernel) { kernel.template run<16>(); }
template <class Kernel> [[gnu::noinline]] void run_one_lane(const Kernel& kernel) {
  kernel.template run<sizeof(typename Kernel::arithmetic)>();
}
#if defined(__x86_64__)
template <class Kernel> [[gnu::noinline, gnu::target("avx2,fma")]] void run_avx2(const Kernel& kernel) { kernel.template run<32>(); }
template <class Kernel>
[[gnu::noinline, gnu::target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]] void run_avx512(const Kernel& kernel) {
  kernel.template run<64>();
}
#endif

// Runs a kernel over rows of `columns` values with the widest vectors of `isa` (not `best`) that are no longer than a row: a
// row's last vector may then overlap the one before it, and no kernel needs a masked load.
template <class Kernel> void run_kernel([[maybe_unused]] instruction_set isa, index_t columns, const Kernel& kernel) {
  const index_t row_bytes = columns * static_cast<index_t>(sizeof(typename Kernel::arithmetic));
#if defined(__x86_64__)
#if defined(__CUDACC__) && !defined(__clang__)   // what reused() does for GCC it does not do behind nvcc
  if constexpr (sizeof(typename Kernel::arithmetic) == 4)
#endif
    if (isa == instruction_set::avx512 && row_bytes >= 64) return run_avx512(kernel);
  if (isa >= instruction_set::avx2 && row_bytes >= 32) return run_avx2(kernel);
#endif
  if (row_bytes >= 16) return run_vector128(kernel);
  run_one_lane(kernel);
}

}   // namespace SARA_ABI
}   // namespace sara
