// CUB's reduction over a block, one item a thread: folded from thread 0 on, whatever the schedule; only thread 0 has the result (the others
// receive 0xff). As with CUB's own, every thread must call it, and a barrier must stand before its memory is used again.
#pragma once

#include <cstring>
#include <type_traits>

#include "cuda_runtime.h"

namespace cub {

template <class T, int threads_x, int = 0, int threads_y = 1, int threads_z = 1> class BlockReduce {
  static_assert(std::is_trivially_copyable_v<T>);
  static constexpr int threads = threads_x * threads_y * threads_z;

 public:
  struct TempStorage {
    alignas(T) unsigned char bytes[threads * sizeof(T)];
  };

  explicit BlockReduce(TempStorage& memory) : memory_(memory) {}

  T Sum(T x) { return Sum(x, threads); }
  T Sum(T x, int valid) {
    return Reduce(
        x, [](const T& a, const T& b) { return static_cast<T>(a + b); }, valid);
  }
  template <class Op> T Reduce(T x, Op op) { return Reduce(x, op, threads); }
  template <class Op> T Reduce(T x, Op op, int valid) {
    const int me = static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
    std::memcpy(memory_.bytes + static_cast<std::size_t>(me) * sizeof(T), &x, sizeof x);
    __syncthreads();
    T total, item;
    std::memset(static_cast<void*>(&total), 0xff, sizeof total);
    for (int i = 0; me == 0 && i < valid; ++i) {
      std::memcpy(static_cast<void*>(&item), memory_.bytes + static_cast<std::size_t>(i) * sizeof(T), sizeof item);
      total = i == 0 ? item : op(total, item);
    }
    return total;
  }

 private:
  TempStorage& memory_;
};

}   // namespace cub
