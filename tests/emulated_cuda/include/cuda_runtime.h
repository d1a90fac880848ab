// The device's side of the emulated CUDA device: CUDA's words for C++, index variables, barriers, warp collectives, intrinsics, and the
// launch. Compile with `-x c++ -D__CUDACC__ -include cuda_runtime.h`; emulated_cuda.h tells what it is worth.
//
// `extern __shared__ T name[];` is the one thing that C++ cannot be made to read. Write SARA_DYNAMIC_SHARED(T, name); instead, which this
// header defines, and which on CUDA's own compiler is `extern __shared__ T name[]`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>   // before __noinline__ becomes a macro: libstdc++ has the word in an attribute
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_runtime_api.h"
#include "emulated_cuda.h"

#define __forceinline__ inline   // as the compiler likes it: forced, sanitized builds take twice as long
#define __noinline__ __attribute__((noinline))

// One block runs at a time, so that a block's memory is static memory. Clang can fill it with 0xff before each block; GCC cannot gather
// it in one section, and the address sanitizer wants to have it alone.
#if defined(__clang__)
#if !__has_feature(address_sanitizer)
#define __shared__ static __attribute__((section("emulated_shared"), used))
#endif
#endif
#if !defined(__shared__)
#define __shared__ static
#endif
#define SARA_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::emulated_cuda::dynamic_shared())

#if defined(__CUDACC__)

extern uint3 threadIdx, blockIdx;   // of the thread that runs
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

// Where a barrier or collective was called, for the sentence of an error.
#define EMULATED_CUDA_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATED_CUDA_PLACE) { emulated_cuda::block_barrier(emulated_cuda::operation::syncthreads, 0, file, line); }
inline int __syncthreads_count(int predicate, EMULATED_CUDA_PLACE) {
  return emulated_cuda::block_barrier(emulated_cuda::operation::syncthreads_count, predicate, file, line);
}
inline int __syncthreads_and(int predicate, EMULATED_CUDA_PLACE) {
  return emulated_cuda::block_barrier(emulated_cuda::operation::syncthreads_and, predicate, file, line);
}
inline int __syncthreads_or(int predicate, EMULATED_CUDA_PLACE) {
  return emulated_cuda::block_barrier(emulated_cuda::operation::syncthreads_or, predicate, file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATED_CUDA_PLACE) {
  emulated_cuda::warp_collective(emulated_cuda::operation::syncwarp, mask, 0, 0, 32, file, line);
}

namespace emulated_cuda {
template <class T> T shuffle(operation kind, unsigned mask, T value, int operand, int width, const char* file, int line) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 32-bit and 64-bit numbers");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp_collective(kind, mask, bits, operand, width, file, line);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned vote(operation kind, unsigned mask, bool predicate, const char* file, int line) {
  return static_cast<unsigned>(warp_collective(kind, mask, predicate, 0, 32, file, line));
}
template <class T> T reduce(operation kind, unsigned mask, T value, const char* file, int line) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>, "CUDA reduces int and unsigned");
  const auto wide = static_cast<std::uint64_t>(static_cast<std::int64_t>(value));
  return static_cast<T>(warp_collective(kind, mask, wide, 0, 32, file, line));
}
}   // namespace emulated_cuda

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATED_CUDA_PLACE) {
  return emulated_cuda::shuffle(emulated_cuda::operation::shfl_sync, mask, value, source, width, file, line);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATED_CUDA_PLACE) {
  return emulated_cuda::shuffle(emulated_cuda::operation::shfl_up_sync, mask, value, static_cast<int>(delta), width, file, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATED_CUDA_PLACE) {
  return emulated_cuda::shuffle(emulated_cuda::operation::shfl_down_sync, mask, value, static_cast<int>(delta), width, file, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, EMULATED_CUDA_PLACE) {
  return emulated_cuda::shuffle(emulated_cuda::operation::shfl_xor_sync, mask, value, lane_mask, width, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATED_CUDA_PLACE) {
  return emulated_cuda::vote(emulated_cuda::operation::ballot_sync, mask, predicate != 0, file, line);
}
inline int __any_sync(unsigned mask, int predicate, EMULATED_CUDA_PLACE) {
  return static_cast<int>(emulated_cuda::vote(emulated_cuda::operation::any_sync, mask, predicate != 0, file, line));
}
inline int __all_sync(unsigned mask, int predicate, EMULATED_CUDA_PLACE) {
  return static_cast<int>(emulated_cuda::vote(emulated_cuda::operation::all_sync, mask, predicate != 0, file, line));
}
#define EMULATED_CUDA_REDUCTION(name)                                                                      \
  template <class T> T __reduce_##name##_sync(unsigned mask, T value, EMULATED_CUDA_PLACE) {               \
    return emulated_cuda::reduce(emulated_cuda::operation::reduce_##name##_sync, mask, value, file, line); \
  }
EMULATED_CUDA_REDUCTION(add)
EMULATED_CUDA_REDUCTION(min)
EMULATED_CUDA_REDUCTION(max)
EMULATED_CUDA_REDUCTION(and)
EMULATED_CUDA_REDUCTION(or)
EMULATED_CUDA_REDUCTION(xor)
#undef EMULATED_CUDA_REDUCTION

[[noreturn]] inline void __trap(EMULATED_CUDA_PLACE) { emulated_cuda::trap(file, line); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <class T> T __ldg(const T* from) { return *from; }

// Each returns what was there before. Integers only: the order of float atomics is nobody's.
template <class T> T atomicAdd(T* at, std::type_identity_t<T> x) { return __atomic_fetch_add(at, x, __ATOMIC_ACQ_REL); }
template <class T> T atomicSub(T* at, std::type_identity_t<T> x) { return __atomic_fetch_sub(at, x, __ATOMIC_ACQ_REL); }
template <class T> T atomicAnd(T* at, std::type_identity_t<T> x) { return __atomic_fetch_and(at, x, __ATOMIC_ACQ_REL); }
template <class T> T atomicOr(T* at, std::type_identity_t<T> x) { return __atomic_fetch_or(at, x, __ATOMIC_ACQ_REL); }
template <class T> T atomicXor(T* at, std::type_identity_t<T> x) { return __atomic_fetch_xor(at, x, __ATOMIC_ACQ_REL); }
template <class T> T atomicExch(T* at, std::type_identity_t<T> x) { return __atomic_exchange_n(at, x, __ATOMIC_ACQ_REL); }
template <class T> T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> x) {
  __atomic_compare_exchange_n(at, &expected, x, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  return expected;
}
template <class T> T atomicMin(T* at, std::type_identity_t<T> x) {
  T seen = __atomic_load_n(at, __ATOMIC_ACQUIRE);
  while (x < seen && !__atomic_compare_exchange_n(at, &seen, x, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
  }
  return seen;
}
template <class T> T atomicMax(T* at, std::type_identity_t<T> x) {
  T seen = __atomic_load_n(at, __ATOMIC_ACQUIRE);
  while (seen < x && !__atomic_compare_exchange_n(at, &seen, x, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
  }
  return seen;
}

// CUDA's bit counts and casts of bits.
constexpr int __popc(unsigned x) { return __builtin_popcount(x); }
constexpr int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
constexpr int __ffs(int x) { return __builtin_ffs(x); }
constexpr int __ffsll(long long x) { return __builtin_ffsll(x); }
constexpr int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
constexpr int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
constexpr unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= ((x >> i) & 1u) << (31 - i);
  return reversed;
}
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline double __longlong_as_double(long long x) { return __builtin_bit_cast(double, x); }
inline long long __double_as_longlong(double x) { return __builtin_bit_cast(long long, x); }

// Arithmetic of one rounding; the approximate functions are the exact ones here.
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1 / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }

// CUDA has min and max of numbers in the global namespace; of floats, the one that is no NaN.
#define EMULATED_CUDA_MIN_MAX(T)                      \
  constexpr T min(T a, T b) { return b < a ? b : a; } \
  constexpr T max(T a, T b) { return a < b ? b : a; }
EMULATED_CUDA_MIN_MAX(int)
EMULATED_CUDA_MIN_MAX(unsigned)
EMULATED_CUDA_MIN_MAX(long)
EMULATED_CUDA_MIN_MAX(unsigned long)
EMULATED_CUDA_MIN_MAX(long long)
EMULATED_CUDA_MIN_MAX(unsigned long long)
#undef EMULATED_CUDA_MIN_MAX
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

// The launch: what the parameters were then is what every thread reads, now or at each replay.
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<std::remove_cv_t<Parameters>> && ...), "a kernel's parameters are copied as bytes");
  static_assert((sizeof(Parameters) + ... + std::size_t{0}) <= 32764, "more bytes of kernel parameters than CUDA takes");
  return [&](Parameters... converted) {
    return emulated_cuda::launch(
        config, reinterpret_cast<const void*>(kernel),
        [kernel, parameters = std::tuple<std::remove_cv_t<Parameters>...>(converted...)] { std::apply(kernel, parameters); });
  }(std::forward<Arguments>(arguments)...);
}
#endif   // __CUDACC__

template <class T> cudaError_t cudaMalloc(T** pointer, std::size_t bytes) { return cudaMalloc(reinterpret_cast<void**>(pointer), bytes); }
template <class T> cudaError_t cudaMallocAsync(T** pointer, std::size_t bytes, cudaStream_t stream) {
  return cudaMallocAsync(reinterpret_cast<void**>(pointer), bytes, stream);
}
template <class R, class... P> cudaError_t cudaFuncSetAttribute(R (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class R, class... P> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, R (*kernel)(P...)) {
  return cudaFuncGetAttributes(attributes, reinterpret_cast<const void*>(kernel));
}
template <class R, class... P>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, R (*kernel)(P...), int threads, std::size_t dynamic_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, reinterpret_cast<const void*>(kernel), threads, dynamic_bytes);
}
