// The host's side of the emulated CUDA device: types, and the calls of the runtime that the tests and the library make. What they mean is
// told by CUDA's own manual; device.cpp is their body.
#pragma once

#include <cstddef>
#include <cstdint>

#define __host__
#define __device__
#define __global__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define CUDART_VERSION 13000

// clang-format off
#define EMULATED_CUDA_ERRORS(X) \
  X(Success, 0, "no error") \
  X(ErrorInvalidValue, 1, "invalid argument") \
  X(ErrorMemoryAllocation, 2, "out of memory") \
  X(ErrorInitializationError, 3, "initialization error") \
  X(ErrorInvalidConfiguration, 9, "invalid configuration argument") \
  X(ErrorInvalidSymbol, 13, "invalid device symbol") \
  X(ErrorInvalidDevicePointer, 17, "invalid device pointer") \
  X(ErrorInvalidMemcpyDirection, 21, "invalid copy direction for memcpy") \
  X(ErrorInsufficientDriver, 35, "CUDA driver version is insufficient for CUDA runtime version") \
  X(ErrorInvalidDeviceFunction, 98, "invalid device function") \
  X(ErrorNoDevice, 100, "no CUDA-capable device is detected") \
  X(ErrorInvalidDevice, 101, "invalid device ordinal") \
  X(ErrorInvalidKernelImage, 200, "device kernel image is invalid") \
  X(ErrorNoKernelImageForDevice, 209, "no kernel image is available for execution on the device") \
  X(ErrorECCUncorrectable, 214, "uncorrectable ECC error encountered") \
  X(ErrorNvlinkUncorrectable, 220, "uncorrectable NVLink error detected during the execution") \
  X(ErrorContained, 226, "Invalid access of peer GPU memory over nvlink or a hardware error") \
  X(ErrorInvalidResourceHandle, 400, "invalid resource handle") \
  X(ErrorIllegalState, 401, "the operation cannot be performed in the present state") \
  X(ErrorNotReady, 600, "device not ready") \
  X(ErrorIllegalAddress, 700, "an illegal memory access was encountered") \
  X(ErrorLaunchOutOfResources, 701, "too many resources requested for launch") \
  X(ErrorLaunchTimeout, 702, "the launch timed out and was terminated") \
  X(ErrorAssert, 710, "device-side assert triggered") \
  X(ErrorHardwareStackError, 714, "hardware stack error") \
  X(ErrorIllegalInstruction, 715, "an illegal instruction was encountered") \
  X(ErrorMisalignedAddress, 716, "misaligned address") \
  X(ErrorInvalidAddressSpace, 717, "operation not supported on global/shared address space") \
  X(ErrorInvalidPc, 718, "invalid program counter") \
  X(ErrorLaunchFailure, 719, "unspecified launch failure") \
  X(ErrorTensorMemoryLeak, 721, "tensor memory not completely freed") \
  X(ErrorNotPermitted, 800, "operation not permitted") \
  X(ErrorNotSupported, 801, "operation not supported") \
  X(ErrorMpsClientTerminated, 810, "the client was terminated by the MPS server") \
  X(ErrorStreamCaptureUnsupported, 900, "operation not permitted when stream is capturing") \
  X(ErrorStreamCaptureInvalidated, 901, "operation failed due to a previous error during capture") \
  X(ErrorStreamCaptureUnmatched, 903, "capture was not ended in the same stream as it began") \
  X(ErrorStreamCaptureIsolation, 905, "dependency created on uncaptured work in another stream") \
  X(ErrorStreamCaptureImplicit, 906, "operation would make the legacy stream depend on a capturing blocking stream") \
  X(ErrorCapturedEvent, 907, "operation not permitted on an event last recorded in a capturing stream") \
  X(ErrorExternalDevice, 911, "an async error has occurred in external entity outside of CUDA") \
  X(ErrorInvalidClusterSize, 912, "a kernel launch error has occurred due to cluster misconfiguration") \
  X(ErrorUnknown, 999, "unknown error")
#define X(name, number, text) cuda##name = number,
enum cudaError : int { EMULATED_CUDA_ERRORS(X) };
#undef X
using cudaError_t = cudaError;

#define VECTOR_TYPES(T, name, alignment_2, alignment_4) \
  struct name##1 { T x; }; \
  struct alignas(alignment_2) name##2 { T x, y; }; \
  struct name##3 { T x, y, z; }; \
  struct alignas(alignment_4) name##4 { T x, y, z, w; }; \
  constexpr name##1 make_##name##1(T x) { return {x}; } \
  constexpr name##2 make_##name##2(T x, T y) { return {x, y}; } \
  constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTOR_TYPES(signed char, char, 2, 4)
VECTOR_TYPES(unsigned char, uchar, 2, 4)
VECTOR_TYPES(short, short, 4, 8)
VECTOR_TYPES(unsigned short, ushort, 4, 8)
VECTOR_TYPES(int, int, 8, 16)
VECTOR_TYPES(unsigned, uint, 8, 16)
VECTOR_TYPES(long long, longlong, 16, 16)
VECTOR_TYPES(unsigned long long, ulonglong, 16, 16)
VECTOR_TYPES(float, float, 8, 16)
VECTOR_TYPES(double, double, 16, 16)
#undef VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(const uint3& v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;
#define cudaStreamLegacy (reinterpret_cast<cudaStream_t>(1))
#define cudaStreamPerThread (reinterpret_cast<cudaStream_t>(2))
#define cudaStreamDefault 0u
#define cudaStreamNonBlocking 1u
#define cudaEventDefault 0u
#define cudaEventDisableTiming 2u

enum cudaMemcpyKind : int { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };   // never Host, Managed
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive, cudaStreamCaptureStatusInvalidated };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaFuncAttributePreferredSharedMemoryCarveout = 9 };
enum cudaDeviceAttr : int {
  cudaDevAttrMaxThreadsPerBlock = 1, cudaDevAttrMaxGridDimX = 5, cudaDevAttrMaxGridDimY = 6, cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrWarpSize = 10, cudaDevAttrMultiProcessorCount = 16, cudaDevAttrL2CacheSize = 38, cudaDevAttrMaxThreadsPerMultiProcessor = 39,
  cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76, cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrPageableMemoryAccess = 88, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97, cudaDevAttrMemoryPoolsSupported = 115
};
enum cudaLaunchAttributeID : int {
  cudaLaunchAttributeIgnore = 0, cudaLaunchAttributeCooperative = 2, cudaLaunchAttributeClusterDimension = 4,
  cudaLaunchAttributeProgrammaticStreamSerialization = 6, cudaLaunchAttributePriority = 8,
  cudaLaunchAttributePreferredSharedMemoryCarveout = 14
};
// clang-format on

union cudaLaunchAttributeValue {
  char pad[64];
  int cooperative, programmaticStreamSerializationAllowed, priority;
  struct {
    unsigned x, y, z;
  } clusterDim;
  unsigned sharedMemCarveout;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  char pad[4];
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
  void *devicePointer, *hostPointer;
};
struct cudaFuncAttributes {
  std::size_t sharedSizeBytes, constSizeBytes, localSizeBytes;
  int maxThreadsPerBlock, numRegs, ptxVersion, binaryVersion, maxDynamicSharedSizeBytes;
};
struct cudaDeviceProp {
  char name[256] = "emulated CUDA device";
  std::size_t totalGlobalMem = std::size_t{80} << 30, sharedMemPerBlock = 48 * 1024, sharedMemPerBlockOptin = 227 * 1024;
  std::size_t sharedMemPerMultiprocessor = 228 * 1024;
  int warpSize = 32, maxThreadsPerBlock = 1024, major = 9, minor = 0, multiProcessorCount = 132, l2CacheSize = 50 << 20;
  int maxThreadsPerMultiProcessor = 2048, maxBlocksPerMultiProcessor = 32, regsPerBlock = 65536, pageableMemoryAccess = 0;
};

const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaMalloc(void** pointer, std::size_t bytes);
cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream);
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* to, int value, std::size_t bytes);
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer);

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);
cudaError_t cudaEventDestroy(cudaEvent_t event);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel, int threads, std::size_t dynamic_bytes);
