// What CUDA refuses, told by call and in CUDA's own words; and what a call asks of the runtime. On the emulated device, which can be
// made to fail and counts.
#include <emulated_cuda.h>

#include "batch.cuh"
#include "catch.hpp"

using namespace device_tests;

namespace {

// The sentence of the cuda_error that a call ends in, and its code.
std::pair<std::string, cudaError_t> failure(const batch& b, const stream& on, const sara::workspace& scratch = {}) {
  try {
    sara::js_routing_into(sara::cuda_executor{on, scratch}, b.inputs(), b.outputs());
  } catch (const sara::cuda_error& e) {
    return {e.what(), e.code()};
  }
  return {"", cudaSuccess};
}

std::string told(const std::string& what, cudaError_t code) {
  return "sara::js_routing_into: " + what + ": " + cudaGetErrorName(code) + " (" + cudaGetErrorString(code) + ")";
}

}   // namespace

TEST_CASE("a launch that fails is told by the call's name", "[cuda]") {
  const stream on;
  const batch b(41);
  for (int nth = 1; nth <= 5; ++nth) {
    emulated_cuda::fail_call("cudaLaunchKernelEx", nth, cudaErrorLaunchOutOfResources);
    const auto [said, code] = failure(b, on);
    CHECK(said == told("launching a kernel failed", cudaErrorLaunchOutOfResources));
    CHECK(code == cudaErrorLaunchOutOfResources);
  }
  CHECK(failure(b, on).first.empty());
}

TEST_CASE("a pool that is empty is told, and no kernel launched", "[cuda]") {
  const stream on;
  const batch b(42);
  emulated_cuda::reset_counts();
  emulated_cuda::fail_call("cudaMallocAsync", 1, cudaErrorMemoryAllocation);
  CHECK(failure(b, on).first == told("allocating scratch memory from the stream's pool failed", cudaErrorMemoryAllocation));
  CHECK(emulated_cuda::counted().launches == 0);
}

TEST_CASE("an error that earlier work has left is told as such", "[cuda]") {
  const stream on;
  const batch b(43);
  emulated_cuda::reset_counts();
  emulated_cuda::set_sticky_error(cudaErrorIllegalAddress);
  const auto [said, code] = failure(b, on);
  emulated_cuda::set_sticky_error(cudaSuccess);
  CHECK(said == told("the device reports an error of work launched before", cudaErrorIllegalAddress));
  CHECK(code == cudaErrorIllegalAddress);
  CHECK(emulated_cuda::counted().launches == 0);
}

TEST_CASE("an error that the caller has not looked at is left to him", "[cuda]") {
  const stream on;
  batch b(44);
  REQUIRE(cudaStreamQuery(reinterpret_cast<cudaStream_t>(1234567)) != cudaSuccess);
  CHECK(failure(b, on).first.empty());
  CHECK(cudaGetLastError() != cudaSuccess);
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("a call neither allocates nor waits where a workspace is lent", "[cuda]") {
  const stream on;
  batch b(45);
  const std::size_t bytes = sara::js_routing_workspace_bytes(b.inputs(), b.outputs());
  const device_vector<char> memory(bytes, 1);
  emulated_cuda::reset_counts();
  CHECK(failure(b, on, {memory.data(), bytes}).first.empty());
  const auto lent = emulated_cuda::counted();
  CHECK(lent.allocations == 0);
  CHECK(lent.host_waits == 0);
  CHECK(lent.launches == 5);   // a list of layers, the plan and the token masses, two sweeps

  emulated_cuda::reset_counts();
  const std::size_t before = emulated_cuda::live_allocations();
  CHECK(failure(b, on).first.empty());
  CHECK(emulated_cuda::counted().allocations == 1);   // from the pool
  CHECK(emulated_cuda::counted().host_waits == 0);
  CHECK(emulated_cuda::live_allocations() == before);
}

TEST_CASE("the stream's device is made the current one for a call, and the caller's again after it", "[cuda]") {
  emulated_cuda::set_device_count(2);
  {
    require_success(cudaSetDevice(1));
    const stream on;
    batch b(46);
    require_success(cudaSetDevice(0));
    CHECK(failure(b, on).first.empty());
    int current = -1;
    require_success(cudaGetDevice(&current));
    CHECK(current == 0);
    emulated_cuda::fail_call("cudaLaunchKernelEx", 2, cudaErrorLaunchOutOfResources);
    CHECK(failure(b, on).second == cudaErrorLaunchOutOfResources);
    require_success(cudaGetDevice(&current));
    CHECK(current == 0);
  }
  emulated_cuda::set_device_count(1);
}
