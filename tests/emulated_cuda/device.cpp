// The emulated CUDA device's host side: launches, streams, captures, and the runtime's calls. emulated_cuda.h tells what the device is.
#include <mutex>
#include <set>
#include <vector>

#include "block.hpp"
#include "memory.hpp"

namespace emulated_cuda {
namespace {

std::recursive_mutex mutex;   // one host thread at a time is inside
thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;
cudaError_t sticky = cudaSuccess;
int devices = 1;
counts counters;
struct {
  std::string function;
  int nth = 0;
  cudaError_t error = cudaSuccess;
} failure;
std::map<const void*, int> dynamic_limit;   // of kernels that were allowed more than usual
constexpr int usual_dynamic_limit = 48 * 1024, most_dynamic = 227 * 1024;

// What every call of the runtime begins and ends with.
template <class Body> cudaError_t call(const char* function, Body body) {
  const std::lock_guard lock(mutex);
  if (self != host) stop("%s calls %s, which only the host can", thread_text(self).c_str(), function);
  cudaError_t error = sticky;
  if (error == cudaSuccess && failure.nth > 0 && (failure.function.empty() || failure.function == function) && --failure.nth == 0)
    error = failure.error;
  if (error == cudaSuccess) error = body();
  if (error != cudaSuccess) last_error = error;
  return error;
}

template <class T> cudaError_t give(T* to, const T& value) {
  if (!to) return cudaErrorInvalidValue;
  *to = value;
  return cudaSuccess;
}

using work = std::function<void()>;
auto& handles = *new std::set<const void*>;   // of streams, events and graphs that live

template <class T> cudaError_t create(T** handle, const T& value) {
  if (!handle) return cudaErrorInvalidValue;
  handles.insert(*handle = new T(value));
  return cudaSuccess;
}
template <class T> cudaError_t destroy(const char* function, T* handle) {
  return call(function, [&] {
    if (!handles.erase(handle)) return cudaErrorInvalidResourceHandle;
    delete handle;
    return cudaSuccess;
  });
}
bool alive(const void* handle) { return handles.count(handle) != 0; }

}   // namespace
}   // namespace emulated_cuda

struct CUgraph_st {
  std::vector<emulated_cuda::work> nodes;
};
struct CUgraphExec_st {
  std::vector<emulated_cuda::work> nodes;
};
struct CUevent_st {
  bool recorded = false, captured = false;
};
struct CUstream_st {
  int device = 0;
  bool blocking = true;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::vector<emulated_cuda::work> captured = {};
};

namespace emulated_cuda {
namespace {

CUstream_st legacy_stream, per_thread_stream;
std::set<CUstream_st*> capturing;   // streams between the begin and the end of a capture

CUstream_st* resolve(cudaStream_t stream) {
  if (stream != nullptr && stream != cudaStreamLegacy && stream != cudaStreamPerThread) return alive(stream) ? stream : nullptr;
  CUstream_st* usual = stream == cudaStreamPerThread ? &per_thread_stream : &legacy_stream;
  usual->device = current_device;
  return usual;
}
bool is_captured(cudaStream_t stream) {
  const CUstream_st* s = resolve(stream);
  return s && s->capture == cudaStreamCaptureStatusActive;
}

// `error` if there are captures for which `matters`, which are then lost.
template <class Matters> cudaError_t invalidate(Matters matters, cudaError_t error) {
  bool any = false;
  for (CUstream_st* s : capturing)
    if (s->capture == cudaStreamCaptureStatusActive && matters(*s)) {
      s->capture = cudaStreamCaptureStatusInvalidated;
      any = true;
    }
  return any ? error : cudaSuccess;
}
// What CUDA names a potentially unsafe call: it may wait for a device on which a stream is being captured.
cudaError_t unsafe_call() {
  return invalidate([](const CUstream_st& s) { return s.mode != cudaStreamCaptureModeRelaxed; }, cudaErrorStreamCaptureUnsupported);
}

cudaError_t enqueue(cudaStream_t handle, work job) {
  CUstream_st* stream = resolve(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture == cudaStreamCaptureStatusInvalidated) return cudaErrorStreamCaptureInvalidated;
  if (stream->capture == cudaStreamCaptureStatusActive) {
    stream->captured.push_back(std::move(job));
    return cudaSuccess;
  }
  if (stream == &legacy_stream) {
    const cudaError_t error = invalidate([](const CUstream_st& s) { return s.blocking; }, cudaErrorStreamCaptureImplicit);
    if (error != cudaSuccess) return error;
  }
  job();
  return cudaSuccess;
}

cudaError_t wait(cudaStream_t handle, bool only_ask) {
  CUstream_st* stream = resolve(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  const auto itself = [&](const CUstream_st& s) { return &s == stream; };
  cudaError_t error = invalidate(itself, cudaErrorStreamCaptureUnsupported);
  if (error == cudaSuccess && stream->capture != cudaStreamCaptureStatusNone) error = cudaErrorStreamCaptureInvalidated;
  if (error == cudaSuccess && !only_ask) error = unsafe_call();
  if (error != cudaSuccess || only_ask) return error;
  ++counters.host_waits;
  check_guard_bytes();
  return cudaSuccess;
}

cudaError_t check_copy(const void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool right = kind == cudaMemcpyDefault || ((find(to) != nullptr) == to_device && (find(from) != nullptr) == from_device);
  return bytes == 0 || (to && from && right && fits(to, bytes) && fits(from, bytes)) ? cudaSuccess : cudaErrorInvalidValue;
}

void free_now(void* pointer) {   // of memory that a graph owns, only the contents
  if (!pointer) return;
  const allocation& a = find(pointer)->second;
  if (a.of_graph)
    std::memset(pointer, 0xff, a.bytes);
  else
    deallocate(pointer);
}
bool is_allocation(void* pointer) { return !pointer || (find(pointer) && find(pointer)->first == pointer); }

bool is_illegal(const cudaLaunchAttribute& a) {
  const auto& cluster = a.val.clusterDim;
  return (a.id == cudaLaunchAttributeCooperative && a.val.cooperative) ||
         (a.id == cudaLaunchAttributeClusterDimension && cluster.x * cluster.y * cluster.z != 1);
}

}   // namespace

cudaError_t launch(const cudaLaunchConfig_t* config, const void* kernel, work thread) {
  return call("cudaLaunchKernelEx", [&]() -> cudaError_t {
    if (!config || !kernel) return kernel ? cudaErrorInvalidValue : cudaErrorInvalidDeviceFunction;
    const dim3 g = config->gridDim, b = config->blockDim;
    const std::uint64_t blocks = std::uint64_t{g.x} * g.y * g.z, threads = std::uint64_t{b.x} * b.y * b.z;
    if (blocks == 0 || g.x > 2147483647u || g.y > 65535 || g.z > 65535) return cudaErrorInvalidConfiguration;
    if (threads == 0 || threads > most_threads || b.z > 64) return cudaErrorInvalidConfiguration;
    const auto limit = dynamic_limit.find(kernel);
    const std::size_t bytes = config->dynamicSmemBytes;
    if (bytes > static_cast<std::size_t>(limit == dynamic_limit.end() ? usual_dynamic_limit : limit->second)) return cudaErrorInvalidValue;
    for (unsigned i = 0; i < config->numAttrs; ++i) {
      if (!config->attrs || config->attrs[i].id < 0 || config->attrs[i].id > 16) return cudaErrorInvalidValue;
      if (is_illegal(config->attrs[i])) return cudaErrorNotSupported;
    }
    const CUstream_st* stream = resolve(config->stream);
    if (stream && stream->device != current_device) return cudaErrorInvalidResourceHandle;
    const cudaError_t error = enqueue(config->stream, [g, b, bytes, thread = std::move(thread)] {
      ++counters.grids;
      char* memory = allocate(bytes, current_device);
      run_grid(g, b, memory, bytes, thread);
      deallocate(memory);
    });
    counters.launches += error == cudaSuccess;
    return error;
  });
}

counts counted() { return counters; }
void reset_counts() { counters = {}; }
void fail_call(const char* function, int nth, cudaError_t error) { failure = {function, nth, error}; }
void set_sticky_error(cudaError_t error) { sticky = error; }
void set_device_count(int count) { devices = count; }

}   // namespace emulated_cuda

using namespace emulated_cuda;

const char* cudaGetErrorName(cudaError_t error) {
#define X(name, number, text) \
  if (error == number) return "cuda" #name;
  EMULATED_CUDA_ERRORS(X)
#undef X
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
#define X(name, number, text) \
  if (error == number) return text;
  EMULATED_CUDA_ERRORS(X)
#undef X
  return "unrecognized error code";
}
cudaError_t cudaPeekAtLastError() { return sticky != cudaSuccess ? sticky : last_error; }
cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaGetDeviceCount(int* count) {
  return call(__func__, [&] { return devices ? give(count, devices) : cudaErrorNoDevice; });
}
cudaError_t cudaGetDevice(int* device) {
  return call(__func__, [&] { return give(device, current_device); });
}
cudaError_t cudaSetDevice(int device) {
  return call(__func__, [&] { return device < 0 || device >= devices ? cudaErrorInvalidDevice : give(&current_device, device); });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call(__func__, [&] { return device < 0 || device >= devices ? cudaErrorInvalidDevice : give(properties, cudaDeviceProp{}); });
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return call(__func__, [&] {
    constexpr std::pair<cudaDeviceAttr, int> known[] = {{cudaDevAttrMaxThreadsPerBlock, most_threads},
                                                        {cudaDevAttrMaxGridDimX, 2147483647},
                                                        {cudaDevAttrMaxGridDimY, 65535},
                                                        {cudaDevAttrMaxSharedMemoryPerBlock, usual_dynamic_limit},
                                                        {cudaDevAttrWarpSize, lanes},
                                                        {cudaDevAttrMultiProcessorCount, 132},
                                                        {cudaDevAttrL2CacheSize, 50 << 20},
                                                        {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
                                                        {cudaDevAttrComputeCapabilityMajor, 9},
                                                        {cudaDevAttrComputeCapabilityMinor, 0},
                                                        {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 228 * 1024},
                                                        {cudaDevAttrPageableMemoryAccess, 0},
                                                        {cudaDevAttrMaxSharedMemoryPerBlockOptin, most_dynamic},
                                                        {cudaDevAttrMemoryPoolsSupported, 1}};
    if (device < 0 || device >= devices) return cudaErrorInvalidDevice;
    for (const auto& [name, known_value] : known)
      if (name == attribute) return give(value, known_value);
    return cudaErrorInvalidValue;
  });
}
cudaError_t cudaDeviceSynchronize() {
  return call(__func__, [] { return wait(nullptr, false); });
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  return call(__func__, [&] {
    const cudaError_t error = pointer ? unsafe_call() : cudaErrorInvalidValue;
    if (error != cudaSuccess) return error;
    ++counters.allocations;
    *pointer = bytes ? allocate(bytes, current_device) : nullptr;
    return bytes && !*pointer ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}
cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream) {
  return call(__func__, [&] {
    const bool captured = is_captured(stream);
    const cudaError_t error = !pointer ? cudaErrorInvalidValue : captured ? cudaSuccess : enqueue(stream, [] {});
    if (error != cudaSuccess) return error;
    ++counters.allocations;
    *pointer = bytes ? allocate(bytes, resolve(stream)->device, captured) : nullptr;
    if (bytes && !*pointer) return cudaErrorMemoryAllocation;
    if (!captured || !bytes) return cudaSuccess;
    const std::shared_ptr<void> owned(*pointer, deallocate);   // as long as the graph and what was made of it
    return enqueue(stream, [owned, bytes] { std::memset(owned.get(), 0xff, bytes); });
  });
}
cudaError_t cudaFree(void* pointer) {
  return call(__func__, [&] {
    const cudaError_t error = is_allocation(pointer) ? unsafe_call() : cudaErrorInvalidValue;
    if (error == cudaSuccess) free_now(pointer);
    return error;
  });
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return call(__func__, [&] { return is_allocation(pointer) ? enqueue(stream, [pointer] { free_now(pointer); }) : cudaErrorInvalidValue; });
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return call(__func__, [&] {
    cudaError_t error = unsafe_call();
    if (error == cudaSuccess) error = check_copy(to, from, bytes, kind);
    if (error != cudaSuccess) return error;
    ++counters.host_waits;
    if (bytes) std::memcpy(to, from, bytes);
    check_guard_bytes();
    return cudaSuccess;
  });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return call(__func__, [&] {
    const cudaError_t error = check_copy(to, from, bytes, kind);
    return error != cudaSuccess || !bytes ? error : enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return call(__func__, [&] {
    if (!bytes) return cudaSuccess;
    return find(to) && fits(to, bytes) ? enqueue(stream, [=] { std::memset(to, value, bytes); }) : cudaErrorInvalidValue;
  });
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return call(__func__, [&] {
    const auto* a = find(pointer);
    void* address = const_cast<void*>(pointer);
    return give(attributes, a ? cudaPointerAttributes{cudaMemoryTypeDevice, a->second.device, address, nullptr}
                              : cudaPointerAttributes{cudaMemoryTypeUnregistered, -2, nullptr, address});
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call(__func__, [&] { return create(stream, CUstream_st{current_device, !(flags & cudaStreamNonBlocking)}); });
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(emulated_cuda::mutex);
  capturing.erase(stream);
  return destroy(__func__, stream);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call(__func__, [&] { return wait(stream, false); });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call(__func__, [&] { return wait(stream, true); });
}
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  return call(__func__, [&] {
    if (is_captured(stream)) return cudaErrorStreamCaptureUnsupported;   // as a driver of CUDA 13 was seen to say, on an H200
    return resolve(stream) ? give(device, resolve(stream)->device) : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return call(__func__, [&] { return create(event, CUevent_st{}); });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy(__func__, event); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call(__func__, [&] {
    if (!alive(event)) return cudaErrorInvalidResourceHandle;
    *event = {true, is_captured(stream)};
    return enqueue(stream, [] {});
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call(__func__, [&] {
    if (!alive(event)) return cudaErrorInvalidResourceHandle;
    if (event->captured != is_captured(stream)) return cudaErrorStreamCaptureIsolation;   // captures of several streams are not emulated
    return enqueue(stream, [] {});
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call(__func__, [&] {
    const cudaError_t error = !alive(event) ? cudaErrorInvalidResourceHandle : event->captured ? cudaErrorCapturedEvent : unsafe_call();
    counters.host_waits += error == cudaSuccess;
    return error;
  });
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call(__func__, [&] {
    const bool recorded = alive(start) && alive(end) && start->recorded && end->recorded;
    return recorded ? give(milliseconds, 0.0f) : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call(__func__, [&] {
    CUstream_st* s = resolve(stream);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (s == &legacy_stream) return cudaErrorStreamCaptureUnsupported;
    if (s->capture != cudaStreamCaptureStatusNone) return cudaErrorIllegalState;
    s->capture = cudaStreamCaptureStatusActive;
    s->mode = mode;
    capturing.insert(s);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return call(__func__, [&] {
    const CUstream_st* s = resolve(stream);
    if (!s) return cudaErrorInvalidResourceHandle;
    for (const CUstream_st* other : capturing)   // this call loses no capture
      if (s == &legacy_stream && other->blocking && other->capture == cudaStreamCaptureStatusActive) return cudaErrorStreamCaptureImplicit;
    return give(status, s->capture);
  });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call(__func__, [&] {
    CUstream_st* s = resolve(stream);
    if (!s || !graph) return s ? cudaErrorInvalidValue : cudaErrorInvalidResourceHandle;
    *graph = nullptr;
    capturing.erase(s);
    const cudaStreamCaptureStatus status = std::exchange(s->capture, cudaStreamCaptureStatusNone);
    const CUgraph_st captured{std::exchange(s->captured, {})};
    if (status == cudaStreamCaptureStatusActive) return create(graph, captured);
    return status == cudaStreamCaptureStatusNone ? cudaErrorIllegalState : cudaErrorStreamCaptureInvalidated;
  });
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return call(__func__, [&] { return alive(graph) ? create(exec, CUgraphExec_st{graph->nodes}) : cudaErrorInvalidValue; });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return call(__func__, [&] {
    if (!alive(exec)) return cudaErrorInvalidValue;
    return enqueue(stream, [nodes = exec->nodes] {
      for (const work& node : nodes) node();
    });
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return destroy(__func__, graph); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return destroy(__func__, exec); }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return call(__func__, [&] {
    if (!kernel) return cudaErrorInvalidDeviceFunction;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > most_dynamic) return cudaErrorInvalidValue;
    dynamic_limit[kernel] = value;
    return cudaSuccess;
  });
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  return call(__func__, [&] {
    const int limit = dynamic_limit.count(kernel) ? dynamic_limit[kernel] : usual_dynamic_limit;
    return kernel ? give(attributes, {0, 0, 0, most_threads, 32, 90, 90, limit}) : cudaErrorInvalidDeviceFunction;
  });
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel, int threads, std::size_t dynamic_bytes) {
  return call(__func__, [&] {
    if (!kernel || threads <= 0 || threads > most_threads || dynamic_bytes > most_dynamic) return cudaErrorInvalidValue;
    const int by_memory = static_cast<int>(228 * 1024 / (dynamic_bytes + 1024));
    return give(blocks, std::min({32, 2048 / ((threads + 31) / 32 * 32), by_memory}));
  });
}
