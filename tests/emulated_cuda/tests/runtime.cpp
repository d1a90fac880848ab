// The host's calls of the emulated device: memory, launches, streams, captures, errors; and CUDA's 16-bit numbers.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <limits>
#include <random>
#include <sara/core/types.hpp>
#include <thread>

#include "on_device.hpp"

namespace {

__global__ void nothing() {}
struct pair {
  int add, times;
};
__global__ void step(int* x, const __grid_constant__ pair p) { *x = (*x + p.add) * p.times; }
__global__ void copy_first(const int* from, int* to) { *to = *from; }
__global__ void needs_memory(int* to) {
  SARA_DYNAMIC_SHARED(char, memory);
  memory[99999] = 5;
  *to = memory[99999];
}

struct stream {
  cudaStream_t s = nullptr;
  explicit stream(unsigned flags = cudaStreamDefault) { REQUIRE(cudaStreamCreateWithFlags(&s, flags) == cudaSuccess); }
  ~stream() { cudaStreamDestroy(s); }
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;
};

}   // namespace

TEST_CASE("memory of the device is told from the host's, and begins as 0xff") {
  const device_array<unsigned> x(3);
  CHECK(x.read() == std::vector<unsigned>(3, 0xffffffffu));
  std::vector<unsigned> host(3);
  cudaPointerAttributes a{};
  REQUIRE(cudaPointerGetAttributes(&a, x.data() + 2) == cudaSuccess);
  CHECK(a.type == cudaMemoryTypeDevice);
  REQUIRE(cudaPointerGetAttributes(&a, x.data() + 3) == cudaSuccess);
  CHECK(a.type == cudaMemoryTypeUnregistered);
  REQUIRE(cudaPointerGetAttributes(&a, host.data()) == cudaSuccess);
  CHECK(a.type == cudaMemoryTypeUnregistered);

  CHECK(cudaMemcpy(host.data(), x.data(), 12, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(x.data(), x.data() + 1, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(x.data(), host.data(), 16, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);   // one too many
  CHECK(cudaMemcpy(host.data(), x.data() + 1, 12, cudaMemcpyDefault) == cudaErrorInvalidValue);
  CHECK(cudaMemset(host.data(), 0, 4) == cudaErrorInvalidValue);
  REQUIRE(cudaMemset(x.data() + 1, 0, 4) == cudaSuccess);
  CHECK(x.read() == std::vector<unsigned>{0xffffffffu, 0, 0xffffffffu});
  CHECK(cudaFree(x.data() + 1) == cudaErrorInvalidValue);

  void* none = &host;
  CHECK(cudaMalloc(&none, 0) == cudaSuccess);
  CHECK(none == nullptr);
  CHECK(cudaFree(nullptr) == cudaSuccess);
  CHECK(cudaMalloc(&none, std::size_t{1} << 40) == cudaErrorMemoryAllocation);
}

TEST_CASE("launches beyond the device's limits are refused") {
  CHECK(try_launch({1, 1024}, nothing) == cudaSuccess);
  CHECK(try_launch({1, 1025}, nothing) == cudaErrorInvalidConfiguration);
  CHECK(try_launch({1, dim3(32, 33)}, nothing) == cudaErrorInvalidConfiguration);
  CHECK(try_launch({1, dim3(1, 1, 65)}, nothing) == cudaErrorInvalidConfiguration);
  CHECK(try_launch({0, 1}, nothing) == cudaErrorInvalidConfiguration);
  CHECK(try_launch({1, 0}, nothing) == cudaErrorInvalidConfiguration);
  CHECK(try_launch({dim3(1, 65536), 1}, nothing) == cudaErrorInvalidConfiguration);
  CHECK(try_launch({2147483648u, 1}, nothing) == cudaErrorInvalidConfiguration);
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  CHECK(cudaGetLastError() == cudaSuccess);

  const device_array<int> x(1);
  CHECK(try_launch({1, 1, 100000}, needs_memory, x.data()) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(needs_memory, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024) == cudaErrorInvalidValue);
  REQUIRE(cudaFuncSetAttribute(needs_memory, cudaFuncAttributeMaxDynamicSharedMemorySize, 100000) == cudaSuccess);
  launch({1, 1, 100000}, needs_memory, x.data());
  CHECK(x.read()[0] == 5);
  CHECK(try_launch({1, 1, 100001}, needs_memory, x.data()) == cudaErrorInvalidValue);

  cudaLaunchAttribute attribute{};
  cudaLaunchConfig_t config{};
  config.attrs = &attribute;
  config.numAttrs = 1;
  CHECK(cudaLaunchKernelEx(&config, nothing) == cudaSuccess);
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  CHECK(cudaLaunchKernelEx(&config, nothing) == cudaErrorNotSupported);
}

TEST_CASE("a captured launch keeps its parameters and reads memory at each replay") {
  const stream on;
  const device_array<int> x(std::vector<int>{1});
  pair p{2, 10};
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  REQUIRE(cudaStreamBeginCapture(on.s, cudaStreamCaptureModeGlobal) == cudaSuccess);
  emulated_cuda::reset_counts();
  launch({1, 1, 0, on.s}, step, x.data(), p);
  p = {0, 0};
  CHECK(emulated_cuda::counted().launches == 1);
  CHECK(emulated_cuda::counted().grids == 0);
  REQUIRE(cudaStreamEndCapture(on.s, &graph) == cudaSuccess);
  CHECK(x.read()[0] == 1);
  REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
  REQUIRE(cudaGraphLaunch(exec, on.s) == cudaSuccess);
  CHECK(x.read()[0] == 30);
  REQUIRE(cudaMemset(x.data(), 0, sizeof(int)) == cudaSuccess);
  for (int i = 0; i < 2; ++i) REQUIRE(cudaGraphLaunch(exec, on.s) == cudaSuccess);
  CHECK(x.read()[0] == 220);
  CHECK(emulated_cuda::counted().launches == 1);
  CHECK(emulated_cuda::counted().grids == 3);
  CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
  CHECK(cudaGraphLaunch(exec, on.s) == cudaErrorInvalidValue);
}

TEST_CASE("a capture forbids what may wait, and is lost by it") {
  const stream on, other;
  const device_array<int> x(1);
  int host = 0;
  void *memory = nullptr, *spare = nullptr;
  REQUIRE(cudaMalloc(&spare, 4) == cudaSuccess);
  const std::vector<std::function<cudaError_t()>> forbidden = {
      [&] { return cudaMalloc(&memory, 4); },      [&] { return cudaFree(spare); },
      [&] { return cudaStreamSynchronize(on.s); }, [&] { return cudaStreamSynchronize(other.s); },
      [&] { return cudaDeviceSynchronize(); },     [&] { return cudaMemcpy(&host, x.data(), 4, cudaMemcpyDeviceToHost); },
      [&] { return cudaStreamQuery(on.s); },
  };
  cudaGraph_t graph = nullptr;
  cudaStreamCaptureStatus status;
  for (const auto& call : forbidden) {
    REQUIRE(cudaStreamBeginCapture(on.s, cudaStreamCaptureModeGlobal) == cudaSuccess);
    CHECK(call() == cudaErrorStreamCaptureUnsupported);
    CHECK(try_launch({1, 1, 0, on.s}, nothing) == cudaErrorStreamCaptureInvalidated);
    REQUIRE(cudaStreamIsCapturing(on.s, &status) == cudaSuccess);
    CHECK(status == cudaStreamCaptureStatusInvalidated);
    CHECK(cudaStreamEndCapture(on.s, &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(graph == nullptr);
    CHECK(call() == cudaSuccess);
    CHECK(cudaFree(std::exchange(memory, nullptr)) == cudaSuccess);
  }
  REQUIRE(cudaStreamBeginCapture(on.s, cudaStreamCaptureModeGlobal) == cudaSuccess);
  CHECK(try_launch({1, 1, 0, other.s}, nothing) == cudaSuccess);
  CHECK(try_launch({1, 1}, nothing) == cudaErrorStreamCaptureImplicit);   // on the legacy stream
  CHECK(cudaStreamEndCapture(on.s, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(cudaStreamEndCapture(on.s, &graph) == cudaErrorIllegalState);
}

TEST_CASE("memory of a stream, in a capture too") {
  const stream on;
  const device_array<int> from(std::vector<int>{5}), to(1), unwritten(1);
  const std::size_t before = emulated_cuda::live_allocations();
  emulated_cuda::reset_counts();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  int* x = nullptr;
  for (bool captured : {false, true}) {
    if (captured) REQUIRE(cudaStreamBeginCapture(on.s, cudaStreamCaptureModeGlobal) == cudaSuccess);
    REQUIRE(cudaMallocAsync(&x, sizeof(int), on.s) == cudaSuccess);
    launch({1, 1, 0, on.s}, copy_first, x, unwritten.data());
    launch({1, 1, 0, on.s}, copy_first, from.data(), x);
    launch({1, 1, 0, on.s}, copy_first, x, to.data());
    REQUIRE(cudaFreeAsync(x, on.s) == cudaSuccess);
    if (captured) {
      REQUIRE(cudaStreamEndCapture(on.s, &graph) == cudaSuccess);
      REQUIRE(cudaGraphInstantiate(&exec, graph) == cudaSuccess);
      for (int i = 0; i < 2; ++i) {
        REQUIRE(cudaMemset(to.data(), 0, sizeof(int)) == cudaSuccess);
        REQUIRE(cudaGraphLaunch(exec, on.s) == cudaSuccess);
        CHECK(unwritten.read()[0] == -1);
        CHECK(to.read()[0] == 5);
      }
      CHECK(cudaGraphDestroy(graph) == cudaSuccess);
      CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
    }
    CHECK(unwritten.read()[0] == -1);
    CHECK(to.read()[0] == 5);
    CHECK(emulated_cuda::live_allocations() == before);
  }
  CHECK(emulated_cuda::counted().allocations == 2);
}

TEST_CASE("calls are counted, and fail where a test wants them to") {
  const stream on;
  const device_array<int> x(1);
  emulated_cuda::reset_counts();
  launch({2, 32}, nothing);
  static_cast<void>(x.read());
  REQUIRE(cudaStreamSynchronize(on.s) == cudaSuccess);
  CHECK(emulated_cuda::counted().launches == 1);
  CHECK(emulated_cuda::counted().host_waits == 2);
  CHECK(emulated_cuda::counted().allocations == 0);

  emulated_cuda::fail_call("cudaLaunchKernelEx", 2, cudaErrorLaunchOutOfResources);
  CHECK(try_launch({1, 1}, nothing) == cudaSuccess);
  CHECK(cudaStreamSynchronize(on.s) == cudaSuccess);
  CHECK(try_launch({1, 1}, nothing) == cudaErrorLaunchOutOfResources);
  CHECK(try_launch({1, 1}, nothing) == cudaSuccess);
  CHECK(cudaPeekAtLastError() == cudaErrorLaunchOutOfResources);
  CHECK(cudaGetLastError() == cudaErrorLaunchOutOfResources);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(emulated_cuda::counted().launches == 3);

  emulated_cuda::set_sticky_error(cudaErrorIllegalAddress);
  int device = 0;
  CHECK(try_launch({1, 1}, nothing) == cudaErrorIllegalAddress);
  CHECK(cudaGetDevice(&device) == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  emulated_cuda::set_sticky_error(cudaSuccess);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaGetErrorName(cudaErrorIllegalAddress) == std::string("cudaErrorIllegalAddress"));
  CHECK(cudaGetErrorString(cudaErrorInvalidValue) == std::string("invalid argument"));
}

TEST_CASE("several devices, and none") {
  int n = 0, device = -1;
  emulated_cuda::set_device_count(2);
  REQUIRE(cudaSetDevice(1) == cudaSuccess);
  {
    const stream on;
    const device_array<int> x(1);
    REQUIRE(cudaSetDevice(0) == cudaSuccess);
    CHECK(cudaStreamGetDevice(on.s, &device) == cudaSuccess);
    CHECK(device == 1);
    CHECK(cudaStreamGetDevice(nullptr, &device) == cudaSuccess);
    CHECK(device == 0);
    cudaPointerAttributes a{};
    CHECK(cudaPointerGetAttributes(&a, x.data()) == cudaSuccess);
    CHECK(a.device == 1);
    CHECK(try_launch({1, 1, 0, on.s}, nothing) == cudaErrorInvalidResourceHandle);
    REQUIRE(cudaSetDevice(1) == cudaSuccess);
    CHECK(try_launch({1, 1, 0, on.s}, nothing) == cudaSuccess);
  }
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  emulated_cuda::set_device_count(0);
  CHECK(cudaGetDeviceCount(&n) == cudaErrorNoDevice);
  emulated_cuda::set_device_count(1);
  CHECK(cudaGetDeviceCount(&n) == cudaSuccess);
  CHECK(n == 1);
  CHECK(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, 0) == cudaSuccess);
  CHECK(n == 132);
}

TEST_CASE("CUDA's 16-bit numbers convert as the library's own") {
  bool same = true;
  const auto check = [&](float x) {
    const unsigned short b = __bfloat16_as_ushort(__float2bfloat16(x)), h = __half_as_ushort(__float2half(x));
    const bool nan = (__float_as_uint(x) & 0x7fffffffu) > 0x7f800000u;
    same = same && (nan ? b == 0x7fffu && h == 0x7fffu : b == sara::bf16_of_float(x) && h == sara::fp16_of_float(x));
  };
  for (unsigned i = 0; i < 65536; ++i) {
    const auto bits = static_cast<unsigned short>(i);
    const float b = __ushort_as_bfloat16(bits), h = __ushort_as_half(bits);
    same = same && __float_as_uint(b) == __float_as_uint(sara::float_of_bf16(bits)) &&
           __float_as_uint(h) == __float_as_uint(sara::float_of_fp16(bits));
    check(b);
    check(h);
    check(std::nextafter(h, 1e30f));
    check(__uint_as_float(__float_as_uint(h) + 0x1000u));   // half of a step: a tie
  }
  std::mt19937 random(3);
  for (int i = 0; i < 100000; ++i) check(__uint_as_float(static_cast<unsigned>(random())));
  CHECK(same);
}

TEST_CASE("host threads take turns") {
  const device_array<int> x(std::vector<int>{0, 0});
  const auto steps = [&](int which) {
    const stream on;
    for (int i = 0; i < 1000; ++i) static_cast<void>(try_launch({1, 1, 0, on.s}, step, x.data() + which, pair{1 + which, 1}));
  };
  std::thread other(steps, 1);
  steps(0);
  other.join();
  CHECK(x.read() == std::vector<int>{1000, 2000});
}
