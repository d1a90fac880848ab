// Streams: each orders its own calls, whatever the current device is; where the scratch comes from changes nothing.
#include "batch.cuh"
#include "catch.hpp"

using namespace device_tests;

namespace {

std::vector<char> alone(batch& b) {
  const stream on;
  b.forget();
  sara::js_routing_into(sara::cuda_executor{on}, b.inputs(), b.outputs());
  on.wait();
  return b.bytes();
}

}   // namespace

TEST_CASE("two streams at once give what each gives alone", "[cuda]") {
  batch first(11), second(12);
  const auto want_first = alone(first), want_second = alone(second);
  first.forget();
  second.forget();
  const stream a, b;
  const std::size_t bytes = sara::js_routing_workspace_bytes(first.inputs(), first.outputs());
  const device_vector<char> of_a(bytes, 1), of_b(bytes, 1);
  for (int i = 0; i < 50; ++i) {
    sara::js_routing_into(sara::cuda_executor{a, {of_a.data(), bytes}}, first.inputs(), first.outputs());
    sara::js_routing_into(sara::cuda_executor{b, {of_b.data(), bytes}}, second.inputs(), second.outputs());
  }
  a.wait();
  b.wait();
  CHECK((first.bytes() == want_first));
  CHECK((second.bytes() == want_second));
}

TEST_CASE("a stream that is null is the current device's", "[cuda]") {
  batch b(13);
  const auto want = alone(b);
  b.forget();
  const cudaStream_t pytorchs = nullptr;
  sara::js_routing_into(sara::cuda_executor{pytorchs}, b.inputs(), b.outputs());
  require_success(cudaDeviceSynchronize());
  CHECK((b.bytes() == want));
}

TEST_CASE("the loss alone, returned to the host", "[cuda]") {
  batch b(14);
  alone(b);
  const stream on;
  CHECK(sara::js_routing(sara::cuda_executor{on}, b.inputs()) == b.loss.get()[0]);
  const std::size_t bytes = sara::js_routing_workspace_bytes(b.inputs(), sara::js_routing_outputs<sara::bf16>{});
  const device_vector<char> memory(bytes, 1);
  CHECK(sara::js_routing(sara::cuda_executor{on, {memory.data(), bytes}}, b.inputs()) == b.loss.get()[0]);
}

TEST_CASE("the current device is the caller's again after a call", "[cuda]") {
  int devices = 0;
  require_success(cudaGetDeviceCount(&devices));
  if (devices < 2) return;   // the emulated device has two of them for it: errors.cpp
  require_success(cudaSetDevice(1));
  const stream on;   // of device 1
  batch b(15);
  const auto want = alone(b);
  b.forget();
  require_success(cudaSetDevice(0));
  sara::js_routing_into(sara::cuda_executor{on}, b.inputs(), b.outputs());
  int current = -1;
  require_success(cudaGetDevice(&current));
  CHECK(current == 0);
  on.wait();
  CHECK((b.bytes() == want));
}
