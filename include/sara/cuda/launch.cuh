// A call on its way to the device: the stream's device made current, every launch checked, failures told apart.
#pragma once

#include <cuda_runtime.h>

#include "../core/errors.hpp"

// Code that can reach a kernel lives in an inline namespace that names the architectures (and the arithmetic) it was compiled for:
// of two libraries that bring the same call for different ones, the linker then keeps both.
// SARA_CUDA_ABI = cuda_<ieee or fast>_<architecture>_<architecture>...
// clang-format off
#define SARA_CUDA_JOIN_(a, b) a##_##b
#define SARA_CUDA_NAME_(a, b) SARA_CUDA_JOIN_(a, b)
#define SARA_CUDA_LIST_1_(a) a
#define SARA_CUDA_LIST_2_(a, b) SARA_CUDA_NAME_(a, b)
#define SARA_CUDA_LIST_3_(a, ...) SARA_CUDA_NAME_(a, SARA_CUDA_LIST_2_(__VA_ARGS__))
#define SARA_CUDA_LIST_4_(a, ...) SARA_CUDA_NAME_(a, SARA_CUDA_LIST_3_(__VA_ARGS__))
#define SARA_CUDA_LIST_5_(a, ...) SARA_CUDA_NAME_(a, SARA_CUDA_LIST_4_(__VA_ARGS__))
#define SARA_CUDA_LIST_6_(a, ...) SARA_CUDA_NAME_(a, SARA_CUDA_LIST_5_(__VA_ARGS__))
#define SARA_CUDA_LIST_7_(a, ...) SARA_CUDA_NAME_(a, SARA_CUDA_LIST_6_(__VA_ARGS__))
#define SARA_CUDA_LIST_8_(a, ...) SARA_CUDA_NAME_(a, SARA_CUDA_LIST_7_(__VA_ARGS__))
#define SARA_CUDA_LIST_9_(a, ...) SARA_CUDA_NAME_(a, SARA_CUDA_LIST_8_(__VA_ARGS__))
#define SARA_CUDA_LIST_10_(a, ...) SARA_CUDA_NAME_(a, SARA_CUDA_LIST_9_(__VA_ARGS__))
#define SARA_CUDA_LIST_11_(a, ...) SARA_CUDA_NAME_(a, SARA_CUDA_LIST_10_(__VA_ARGS__))
#define SARA_CUDA_LIST_12_(a, ...) SARA_CUDA_NAME_(a, SARA_CUDA_LIST_11_(__VA_ARGS__))
#define SARA_CUDA_COUNT_(_1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, n, ...) n
#define SARA_CUDA_LIST_OF_(n, ...) SARA_CUDA_LIST_##n##_(__VA_ARGS__)
#define SARA_CUDA_LIST_N_(n, ...) SARA_CUDA_LIST_OF_(n, __VA_ARGS__)
#define SARA_CUDA_LIST_(...) SARA_CUDA_LIST_N_(SARA_CUDA_COUNT_(__VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1), __VA_ARGS__)
#if !defined(__CUDA_ARCH_LIST__)
#define SARA_CUDA_ABI cuda_host
#elif defined(__USE_FAST_MATH__)
#define SARA_CUDA_ABI SARA_CUDA_NAME_(cuda_fast, SARA_CUDA_LIST_(__CUDA_ARCH_LIST__))
#else
#define SARA_CUDA_ABI SARA_CUDA_NAME_(cuda_ieee, SARA_CUDA_LIST_(__CUDA_ARCH_LIST__))
#endif
// clang-format on

namespace sara {

// What CUDA refused: `what()` names the call and tells CUDA's own words, `code()` is CUDA's. An error that earlier work on the device
// has left behind is told as one. It may come after kernels of the call were launched: outputs are then unspecified.
class cuda_error : public std::runtime_error {
 public:
  cuda_error(cudaError_t code, const char* what) : std::runtime_error(what), code_(code) {}
  cudaError_t code() const { return code_; }

 private:
  cudaError_t code_;
};

inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// Errors that stay with the device once a kernel has died on it; every later call then returns them.
inline bool is_of_earlier_work(cudaError_t code) {
  switch (code) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
      return true;
    default:
      return false;
  }
}

[[noreturn, gnu::cold, gnu::noinline]] inline void fail_with(cudaError_t code, const char* function, const char* step) {
  sentence message("sara::");
  message << function << ": ";
  if (is_of_earlier_work(code))
    message << "the device reports an error of work launched before";
  else
    message << step << " failed";
  static_cast<void>(cudaGetLastError());   // told here: a caller's next check is not to find it again
  message << ": " << cudaGetErrorName(code) << " (" << cudaGetErrorString(code) << ")";
#if defined(__cpp_exceptions)
  throw cuda_error(code, message.text());
#else
  std::fprintf(stderr, "%s\n", message.text());
  std::abort();
#endif
}

// In a kernel of launch_behind, before it reads: the kernel before it has ended, and what that wrote is seen.
__device__ __forceinline__ void wait_for_kernel_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// In the kernel before it: from here on it may come, and wait.
__device__ __forceinline__ void let_kernel_behind_come() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// One call of the library: its name, its stream, and the stream's device as the current one until the call ends. A stream that captures a
// graph cannot be asked for its device: that must then be the current one, or the first launch fails.
class device_call {
 public:
  device_call(const char* function, cudaStream_t stream) : function_(function), stream_(stream) {
    check(cudaStreamIsCapturing(stream, &capture_), "asking the stream");
    if (captures() || stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) return;   // of the current device
    int device = 0;
    check(cudaGetDevice(&before_), "asking for the current device");
    check(cudaStreamGetDevice(stream, &device), "asking for the stream's device");
    if (device == before_) return;
    check(cudaSetDevice(device), "making the stream's device the current one");
    switched_ = true;
  }
  ~device_call() {
    if (switched_) static_cast<void>(cudaSetDevice(before_));
  }
  device_call(const device_call&) = delete;
  device_call& operator=(const device_call&) = delete;

  const char* function() const { return function_; }
  cudaStream_t stream() const { return stream_; }
  bool captures() const { return capture_ != cudaStreamCaptureStatusNone; }

  void check(cudaError_t code, const char* step) const {
    if (code != cudaSuccess) fail_with(code, function_, step);
  }

  // kernel<<<blocks, threads, shared_bytes, stream>>>(args...); nothing for no blocks. A kernel that wants more than 48 KiB of
  // shared memory is told so before.
  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), index_t blocks, int threads, std::size_t shared_bytes, const Arguments&... args) const {
    if (shared_bytes > 48 * 1024)
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
            "asking for shared memory");
    launch_with(nullptr, kernel, blocks, threads, shared_bytes, args...);
  }

  // The same behind a kernel of this call, for a kernel that begins with wait_for_kernel_before(): where the code has that instruction, the
  // kernel is launched while the one before it runs, and its blocks come as soon as there is room for them.
  template <class... Parameters, class... Arguments>
  void launch_behind(void (*kernel)(Parameters...), index_t blocks, int threads, const Arguments&... args) const {
    cudaFuncAttributes code{};
    check(cudaFuncGetAttributes(&code, kernel), "asking for a kernel's code");   // the device may run that of an older one
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    launch_with(code.ptxVersion >= 90 ? &early : nullptr, kernel, blocks, threads, 0, args...);
  }

  static constexpr index_t most_blocks = 2147483647;

 private:
  template <class... Parameters, class... Arguments>
  void launch_with(cudaLaunchAttribute* attribute, void (*kernel)(Parameters...), index_t blocks, int threads, std::size_t shared_bytes,
                   const Arguments&... args) const {
    if (blocks <= 0) return;
    if (blocks > most_blocks) fail(function_, sentence("the batch needs ") << blocks << " blocks, more than CUDA launches at once");
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream_;
    config.attrs = attribute;
    config.numAttrs = attribute ? 1 : 0;
    check(cudaLaunchKernelEx(&config, kernel, args...), "launching a kernel");
  }

  const char* function_;
  cudaStream_t stream_;
  cudaStreamCaptureStatus capture_ = cudaStreamCaptureStatusNone;
  int before_ = 0;
  bool switched_ = false;
};

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
