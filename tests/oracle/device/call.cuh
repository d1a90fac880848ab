// A device_executor's call: its arguments in the device's memory, cuda_executor's call there, and the outputs back.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "../device.hpp"
#include "mirror.hpp"

namespace oracle {

inline void require_success(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Device memory, and the stream that every copy and every call is ordered by.
class device_memory {
 public:
  device_memory() { require_success(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  device_memory(const device_memory&) = delete;
  device_memory& operator=(const device_memory&) = delete;

  void* take(std::size_t bytes) {
    void* p = nullptr;
    require_success(cudaMalloc(&p, bytes), "cudaMalloc");
    return p;
  }
  void give_back(void* p) { cudaFree(p); }
  void copy_there(void* to, const void* from, std::size_t bytes) {
    require_success(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
  }
  void copy_here(void* to, const void* from, std::size_t bytes) {
    require_success(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
  }
  void fill(void* to, int byte, std::size_t bytes) { require_success(cudaMemsetAsync(to, byte, bytes, stream_), "cudaMemsetAsync"); }
  void wait() { require_success(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }
  cudaStream_t stream() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Scratch of exactly the size that a query tells, full of NaN, and aligned to nothing.
class lent_workspace {
 public:
  lent_workspace(device_memory& memory, std::size_t bytes)
      : memory_(memory), block_(memory.take(bytes + 1)), lent_{static_cast<char*>(block_) + 1, bytes} {
    memory.fill(block_, 0xff, bytes + 1);
  }
  ~lent_workspace() { memory_.give_back(block_); }
  lent_workspace(const lent_workspace&) = delete;
  lent_workspace& operator=(const lent_workspace&) = delete;
  const sara::workspace& lent() const { return lent_; }

 private:
  device_memory& memory_;
  void* block_;
  sara::workspace lent_;
};

// Never destroyed: CUDA's runtime may be gone by then.
inline device_memory& the_device_memory() {
  static device_memory* const memory = new device_memory;
  return *memory;
}

inline constexpr std::nullptr_t no_workspace = nullptr;

// call(exec, in, out) on the device; `bytes(in, out)` tells its workspace, if it needs one. What breaks the contract, as `check` knows, is
// not mirrored, for its shapes may tell of more memory than there is: the call must refuse it by itself, before it is read.
template <class Inputs, class Outputs, class Check, class Bytes, class Call>
void on_the_device(const Inputs& in, const Outputs& out, const Check& check, const Bytes& bytes, const Call& call) {
  device_memory& memory = the_device_memory();
  try {
    check(in, out);
  } catch (const sara::invalid_argument&) {
    call(sara::cuda_executor{memory.stream()}, in, out);
    throw std::logic_error("the call took arguments that break its contract");
  }
  call_mirrored(memory, in, out, [&](const Inputs& in_there, const Outputs& out_there) {
    if constexpr (std::is_null_pointer_v<Bytes>) {
      call(sara::cuda_executor{memory.stream()}, in_there, out_there);
      memory.wait();
    } else {
      const lent_workspace scratch(memory, bytes(in_there, out_there));
      call(sara::cuda_executor{memory.stream(), scratch.lent()}, in_there, out_there);
      memory.wait();
    }
  });
}

}   // namespace oracle
