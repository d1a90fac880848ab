// A CUDA device emulated in software, for machines that have none: what tests may ask of it. (How kernels are compiled for it:
// CMakeLists.txt; CUDA's own calls and words: the other headers of this folder.)
//
// Each thread of a block is a fiber with a stack of its own. The fibers of a block take turns on one processor: one runs until it has to
// wait at a barrier or a warp collective, then another one does. Blocks run one after another, launches at once. Every run of one
// schedule is the same run.
//
// It shows: a kernel's arithmetic and indices, for any block and grid; a missing barrier, as results that differ between schedules (or,
// under the thread sanitizer, as a data race of two threads of a block); barriers and collectives that not all threads reach, masks that
// name the wrong lanes, lanes read that do not take part: each stops the program with a sentence; access outside of an allocation (at
// once under the address sanitizer, else where its guard bytes are looked at: when it is freed, when the host waits); use of memory that
// nobody wrote (it is filled with 0xff: NaN); calls that a capture forbids; launches beyond the device's limits.
//
// It cannot show: CUDA's memory model (what one thread wrote, all see at once, fence or none), races between blocks (they never run at the
// same time; a block that waits for a later one hangs), time, occupancy and registers (a kernel's __launch_bounds__ too), alignment
// faults (but under the undefined-behaviour sanitizer), local arithmetic that differs (fused multiply-add, approximate functions), code
// under __CUDA_ARCH__.
#pragma once

#include <functional>

#include "cuda_runtime_api.h"

namespace emulated_cuda {

// Which of the threads that could run does, and which block comes next: "forward" (the lowest number first; so it begins), "backward", or
// a number, the seed of a random order. The environment variable SARA_EMULATED_SCHEDULE says how a program begins.
void set_schedule(const char* order);

struct counts {
  long launches = 0;      // kernels launched or captured
  long grids = 0;         // kernels run, replays included
  long allocations = 0;   // cudaMalloc and its kin
  long host_waits = 0;    // of cudaStreamSynchronize and its kin, and of copies that wait
};
counts counted();   // since the last reset
void reset_counts();
std::size_t live_allocations();   // not freed yet

// The nth next call of this function of the runtime ("cudaLaunchKernelEx", "cudaMallocAsync", ...; "" for any) does nothing but fail.
void fail_call(const char* function, int nth, cudaError_t error);
// From now on every call fails, as after a kernel that died; cudaSuccess mends the device.
void set_sticky_error(cudaError_t error);
void set_device_count(int count);   // of equal devices, all of them this one processor

// Stops the program if the bytes around an allocation were written to.
void check_guard_bytes();

// What follows is called by cuda_runtime.h.

// clang-format off
#define EMULATED_CUDA_OPERATIONS(X) \
  X(shfl_sync) X(shfl_up_sync) X(shfl_down_sync) X(shfl_xor_sync) X(ballot_sync) X(any_sync) X(all_sync) X(syncwarp) \
  X(reduce_add_sync) X(reduce_min_sync) X(reduce_max_sync) X(reduce_and_sync) X(reduce_or_sync) X(reduce_xor_sync) \
  X(syncthreads) X(syncthreads_count) X(syncthreads_and) X(syncthreads_or)
#define X(name) name,
enum class operation : unsigned char { EMULATED_CUDA_OPERATIONS(X) };
#undef X
// clang-format on
cudaError_t launch(const cudaLaunchConfig_t* config, const void* kernel, std::function<void()> thread);
std::uint64_t warp_collective(operation, unsigned mask, std::uint64_t value, int operand, int width, const char* file, int line);
int block_barrier(operation, int predicate, const char* file, int line);
void* dynamic_shared();   // the block's dynamic shared memory
[[noreturn]] void trap(const char* file, int line);

}   // namespace emulated_cuda
