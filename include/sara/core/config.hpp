// What the compiler's flags mean for the library: the ABI namespace, checked builds, forced inlining.
//
// Function templates live in `inline namespace SARA_ABI`, whose name is composed of the flags that change a function's
// body. Objects built with different flags then link into one program and each keeps its own code: without it the linker
// keeps one body for all, and a plain caller may die of another object's AVX-512. Public types stand outside of it, so that
// they can cross between such objects; their members are force-inlined and leave no symbol behind.
#pragma once

#if __cplusplus < 202002L
#error "sara needs C++20: compile with -std=c++20 or newer"
#endif

#ifndef SARA_CHECKED
#define SARA_CHECKED 0   // 1: also validate data (NaN, negative weights, falling offsets, ...) and throw
#endif

// Force-inlined, on the host and, where CUDA reads it, on the device.
#if defined(__CUDACC__)
#define SARA_INLINE __host__ __device__ __forceinline__
#else
#define SARA_INLINE [[gnu::always_inline]] inline
#endif
#define SARA_HOST_INLINE [[gnu::always_inline]] inline   // of what calls functions that only the host has

// SARA_ABI = abi_<vectors>_<scalar extras>_<checked>_<exceptions>_<fast-math>
#define SARA_ABI_JOIN_(a, b, c, d, e) abi_##a##_##b##_##c##_##d##_##e
#define SARA_ABI_NAME_(a, b, c, d, e) SARA_ABI_JOIN_(a, b, c, d, e)

#if defined(__AVX512VL__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#define SARA_ABI_A_ avx512
#elif defined(__AVX512F__)
#define SARA_ABI_A_ avx512f
#elif defined(__AVX2__)
#define SARA_ABI_A_ avx2
#elif defined(__AVX__)
#define SARA_ABI_A_ avx
#elif defined(__SSE4_1__)
#define SARA_ABI_A_ sse4
#else
#define SARA_ABI_A_ base
#endif

#if defined(__FMA__) && defined(__BMI2__)
#define SARA_ABI_B_ fma_bmi2
#elif defined(__FMA__)
#define SARA_ABI_B_ fma
#elif defined(__BMI2__)
#define SARA_ABI_B_ bmi2
#else
#define SARA_ABI_B_ plain
#endif

#if SARA_CHECKED
#define SARA_ABI_C_ checked
#else
#define SARA_ABI_C_ trusting
#endif

#if defined(__cpp_exceptions)
#define SARA_ABI_D_ throws
#else
#define SARA_ABI_D_ aborts
#endif

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#define SARA_ABI_E_ fast
#else
#define SARA_ABI_E_ ieee
#endif

#define SARA_ABI SARA_ABI_NAME_(SARA_ABI_A_, SARA_ABI_B_, SARA_ABI_C_, SARA_ABI_D_, SARA_ABI_E_)
