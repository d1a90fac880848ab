// cuda_executor: on which stream the GPU's kernels run, and which memory they keep between them.
#pragma once

#include <cstddef>

#include "../core/data_checks.hpp"
#include "../core/workspace.hpp"
#include "launch.cuh"

namespace sara {

// A value; it owns nothing. A call enqueues kernels on the stream and returns: it never waits for the device, copies nothing from host
// memory and keeps nothing between calls, so it may be captured in a graph and replayed. (From compute capability 9.0 on such a graph has
// programmatic edges, which cudaGraphGetEdges tells only to those who ask for the edges' data as well.) All views lie in memory of the stream's
// device (lists of layers in host memory, read during the call alone). Calls on several streams may run at the same time, each with
// a scratch of its own. Results are the same bits on every run.
//
//   sara::cuda_executor gpu{stream, sara::workspace{memory, bytes}};   of at least the `*_workspace_bytes` of the call
//   sara::cuda_executor gpu{stream};                                   cudaMallocAsync from the device's pool, in stream order
//
// A pool gives its memory back whenever the program waits for the device, unless its cudaMemPoolAttrReleaseThreshold is raised: raise it,
// or lend a workspace, where every step waits.
//
// A cudaStream_t that is null (PyTorch's default stream) is legal and means the current device; nobody gets it by saying nothing. Of any other
// stream the device is made the current one for the call; while it captures a graph it is to be so already.
class cuda_executor {
 public:
  static constexpr bool runs_on_host = false;

  SARA_HOST_INLINE explicit cuda_executor(cudaStream_t stream, const workspace& scratch = {}) : stream_(stream), scratch_(scratch) {}
  explicit cuda_executor(int, const workspace& = {}) = delete;
  explicit cuda_executor(std::nullptr_t, const workspace& = {}) = delete;

  SARA_HOST_INLINE cudaStream_t stream() const { return stream_; }
  SARA_HOST_INLINE const workspace& scratch() const { return scratch_; }

 private:
  cudaStream_t stream_;
  workspace scratch_;
};

inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// Throws unless an argument lies where the device can read it. To be told each of a call's arguments.
class device_memory_checks {
 public:
  explicit device_memory_checks(const device_call& call) : call_(call) {
    int device = 0;
    call.check(cudaGetDevice(&device), "asking for the current device");
    call.check(cudaDeviceGetAttribute(&reads_host_memory_, cudaDevAttrPageableMemoryAccess, device), "asking what the device can read");
  }

  template <class T> void input(const char* name, const vector_view<T>& v) const { look(name, v.data()); }
  template <class T> void input(const char* name, const matrix_view<T>& v) const { look(name, v.data()); }
  template <class T> void input(const char* name, const layers_view<T>& v) const {
    for (index_t l = 0; l < (v.is_list() ? v.layers() : 1); ++l)
      if (v.layers()) look(name, v[l].data());
  }
  void input(const char* name, const integers_view& v) const { look(name, v.data()); }
  template <class V> void output(const char* name, const V& v, const char* = nullptr) const { input(name, v); }

 private:
  void look(const char* name, const void* data) const {
    if (!data || reads_host_memory_) return;
    cudaPointerAttributes found{};
    call_.check(cudaPointerGetAttributes(&found, data), "asking where an argument lies");
    if (found.type == cudaMemoryTypeUnregistered)
      fail(call_.function(), sentence(name) << " must lie in memory of the device, but lies in the host's (checked build)");
  }

  const device_call& call_;
  int reads_host_memory_ = 0;
};

// In a checked build: throws unless all arguments of a call do; name_all(checks) tells each of them.
template <class NameAll> void check_memory(const device_call& call, const NameAll& name_all) {
  if constexpr (checks_data) name_all(device_memory_checks(call));
}

// The scratch of a call: the executor's, or the pool's until the stream has come past the call.
class device_scratch {
 public:
  device_scratch(const device_call& call, const cuda_executor& exec, std::size_t bytes) : call_(call), memory_(exec.scratch()) {
    if (memory_.data == nullptr) {
      call.check(cudaMallocAsync(&owned_, bytes, call.stream()), "allocating scratch memory from the stream's pool");
      memory_ = {owned_, bytes};
    } else if (memory_.bytes < bytes) {
      fail(call.function(), sentence("exec.scratch must have at least ") << bytes << " bytes, but has " << memory_.bytes);
    }
  }
  ~device_scratch() {
    if (owned_) static_cast<void>(cudaFreeAsync(owned_, call_.stream()));
  }
  device_scratch(const device_scratch&) = delete;
  device_scratch& operator=(const device_scratch&) = delete;

  carver carve() const { return carver(memory_); }

 private:
  const device_call& call_;
  workspace memory_;
  void* owned_ = nullptr;
};

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
