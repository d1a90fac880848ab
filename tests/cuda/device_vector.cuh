// Vectors in memory of the device, for programs that speak to the CUDA runtime themselves.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <vector>

namespace device_tests {

inline void require_success(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

inline bool there_is_a_device() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

template <class T> class device_vector {
 public:
  explicit device_vector(const std::vector<T>& from) : size_(from.size()) {
    require_success(cudaMalloc(&data_, size_ * sizeof(T)));
    set(from);
  }
  device_vector(std::size_t size, T value) : device_vector(std::vector<T>(size, value)) {}
  ~device_vector() { cudaFree(data_); }
  device_vector(const device_vector&) = delete;
  device_vector& operator=(const device_vector&) = delete;

  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  void set(const std::vector<T>& from) {
    require_success(cudaMemcpy(data_, from.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
    require_success(cudaDeviceSynchronize());   // a stream that does not wait for the default one may read it next
  }
  std::vector<T> get() const {
    std::vector<T> to(size_);
    require_success(cudaMemcpy(to.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

class stream {
 public:
  stream() { require_success(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking)); }
  ~stream() { cudaStreamDestroy(handle_); }
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;

  operator cudaStream_t() const { return handle_; }
  void wait() const { require_success(cudaStreamSynchronize(handle_)); }

 private:
  cudaStream_t handle_ = nullptr;
};

// What a call enqueues, recorded and replayed.
class graph {
 public:
  template <class Call> graph(const stream& on, const Call& call) : stream_(on) {
    require_success(cudaStreamBeginCapture(on, cudaStreamCaptureModeGlobal));
    call();
    require_success(cudaStreamEndCapture(on, &graph_));
    require_success(cudaGraphInstantiate(&replay_, graph_, 0));
  }
  ~graph() {
    cudaGraphExecDestroy(replay_);
    cudaGraphDestroy(graph_);
  }
  graph(const graph&) = delete;
  graph& operator=(const graph&) = delete;

  void replay() const { require_success(cudaGraphLaunch(replay_, stream_)); }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t replay_ = nullptr;
};

}   // namespace device_tests
