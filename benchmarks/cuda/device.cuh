// The GPU that a benchmark runs on: its memory, launches, caches made cold, calls captured in a graph, and the time between two events.
#pragma once

#include <cuda_runtime.h>
#include <sara/core/types.hpp>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace benchmarks {

using sara::index_t;

inline void require(cudaError_t code, const char* step) {
  if (code != cudaSuccess)
    throw std::runtime_error(std::string(step) + ": " + cudaGetErrorName(code) + " (" + cudaGetErrorString(code) + ")");
}

inline bool device_is_there() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

inline index_t device_attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  require(cudaGetDevice(&device), "cudaGetDevice");
  require(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

inline constexpr const char* no_device = "no CUDA device here";
inline constexpr int exit_code_without_device = 77;

// Device memory, every byte 0xff until it is written: floating-point numbers begin as NaN.
template <class T> class device_array {
 public:
  device_array() = default;
  explicit device_array(index_t size) : size_(size) {
    void* p = nullptr;
    require(cudaMalloc(&p, bytes() + 1), "cudaMalloc");
    data_.reset(static_cast<T*>(p));
    require(cudaMemset(p, 0xff, bytes()), "cudaMemset");
  }
  // `copies` times what the host holds, one behind the other.
  explicit device_array(const std::vector<T>& from, index_t copies = 1) : device_array(static_cast<index_t>(from.size()) * copies) {
    for (index_t i = 0; i < copies; ++i)
      require(cudaMemcpy(data() + i * static_cast<index_t>(from.size()), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice),
              "cudaMemcpy to the device");
  }

  T* data() const { return data_.get(); }
  index_t size() const { return size_; }
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

  std::vector<T> read(index_t from, index_t count) const {
    std::vector<T> values(static_cast<std::size_t>(count));
    require(cudaMemcpy(values.data(), data() + from, values.size() * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
    return values;
  }
  std::vector<T> read() const { return read(0, size_); }

 private:
  struct release {
    void operator()(T* p) const { cudaFree(p); }
  };
  std::unique_ptr<T, release> data_;
  index_t size_ = 0;
};

// kernel<<<blocks, threads, shared_bytes, stream>>>(args...), checked; in clusters of so many blocks where that is not 1.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), index_t blocks, int threads, std::size_t shared_bytes, int cluster, cudaStream_t stream,
            const Arguments&... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = cluster == 1 ? 0 : 1;
  require(cudaLaunchKernelEx(&config, kernel, args...), "launching a kernel");
}

template <class Word> __global__ void read_through(const Word* from, index_t count, Word* never) {
  Word all = 0;
  const index_t step = static_cast<index_t>(gridDim.x) * static_cast<index_t>(blockDim.x);
  for (index_t i = static_cast<index_t>(blockIdx.x) * static_cast<index_t>(blockDim.x) + static_cast<index_t>(threadIdx.x); i < count;
       i += step)
    all |= from[i];
  if (all != Word(-1)) *never = all;
}

// The stream of all benchmarks, and its device's caches.
class gpu {
 public:
  gpu() {
    require(cudaStreamCreate(&stream_), "cudaStreamCreate");
    other_ = device_array<unsigned long long>(cold_bytes() / 8 + 1);
  }
  ~gpu() { cudaStreamDestroy(stream_); }
  gpu(const gpu&) = delete;
  gpu& operator=(const gpu&) = delete;

  cudaStream_t stream() const { return stream_; }
  void wait() const { require(cudaStreamSynchronize(stream_), "waiting for the device"); }

  // So much memory read or written since puts what was there before out of the caches.
  static index_t cold_bytes() { return 4 * device_attribute(cudaDevAttrL2CacheSize); }
  // Fills the caches with other memory, by reading: nothing is left to be written back. It takes the device tens of microseconds,
  // in which the host enqueues what is timed.
  void cool() const {
    launch(read_through<unsigned long long>, 16 * device_attribute(cudaDevAttrMultiProcessorCount), 256, 0, 1, stream_,
           static_cast<const unsigned long long*>(other_.data()), other_.size() - 1, other_.data() + other_.size() - 1);
  }

 private:
  cudaStream_t stream_ = nullptr;
  device_array<unsigned long long> other_;
};

// What a function enqueues on a stream, to be enqueued again at once.
class captured {
 public:
  template <class Enqueue> captured(cudaStream_t stream, const Enqueue& enqueue) : stream_(stream) {
    require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    try {
      enqueue();
    } catch (...) {
      cudaGraph_t broken = nullptr;
      if (cudaStreamEndCapture(stream, &broken) == cudaSuccess && broken) cudaGraphDestroy(broken);
      throw;
    }
    require(cudaStreamEndCapture(stream, &graph_), "cudaStreamEndCapture");
    require(cudaGraphInstantiate(&replay_, graph_, 0), "cudaGraphInstantiate");
  }
  ~captured() {
    if (replay_) cudaGraphExecDestroy(replay_);
    if (graph_) cudaGraphDestroy(graph_);
  }
  captured(const captured&) = delete;
  captured& operator=(const captured&) = delete;

  void operator()() const { require(cudaGraphLaunch(replay_, stream_), "cudaGraphLaunch"); }
  // Kernels, copies and memsets.
  index_t nodes() const {
    std::size_t count = 0;
    require(cudaGraphGetNodes(graph_, nullptr, &count), "cudaGraphGetNodes");
    return static_cast<index_t>(count);
  }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t replay_ = nullptr;
};

// Time on the device.
class stopwatch {
 public:
  explicit stopwatch(cudaStream_t stream) : stream_(stream) {
    require(cudaEventCreate(&begin_), "cudaEventCreate");
    require(cudaEventCreate(&end_), "cudaEventCreate");
  }
  ~stopwatch() {
    if (begin_) cudaEventDestroy(begin_);
    if (end_) cudaEventDestroy(end_);
  }
  stopwatch(const stopwatch&) = delete;
  stopwatch& operator=(const stopwatch&) = delete;

  void start() const { require(cudaEventRecord(begin_, stream_), "cudaEventRecord"); }
  void stop() const { require(cudaEventRecord(end_, stream_), "cudaEventRecord"); }
  // Waits for the second event.
  double seconds() const {
    float milliseconds = 0;
    require(cudaEventSynchronize(end_), "cudaEventSynchronize");
    require(cudaEventElapsedTime(&milliseconds, begin_, end_), "cudaEventElapsedTime");
    return static_cast<double>(milliseconds) * 1e-3;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}   // namespace benchmarks
