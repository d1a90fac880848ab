// Which SIMD code runs: chosen when the program runs, so that a binary built anywhere runs everywhere.
#pragma once

#include "../core/errors.hpp"

namespace sara {

// `best` is the widest that this machine has. 128-bit code runs on every machine the compiler builds for; on x86-64 AVX2 stands for
// AVX2 + FMA, AVX-512 for its F, VL, BW and DQ parts.
enum class instruction_set { best, vector128, avx2, avx512 };

inline namespace SARA_ABI {

inline bool is_supported(instruction_set isa) {
  switch (isa) {
#if defined(__x86_64__)
    case instruction_set::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case instruction_set::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
#else
    case instruction_set::avx2:
    case instruction_set::avx512:
      return false;
#endif
    default:
      return true;
  }
}

inline instruction_set best_instruction_set() {
  if (is_supported(instruction_set::avx512)) return instruction_set::avx512;
  return is_supported(instruction_set::avx2) ? instruction_set::avx2 : instruction_set::vector128;
}

inline const char* name_of(instruction_set isa) {
  constexpr const char* names[] = {"best", "vector128", "avx2", "avx512"};
  return names[static_cast<int>(isa)];
}

}   // namespace SARA_ABI
}   // namespace sara
