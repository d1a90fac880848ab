// CUB's scan over a block, one item a thread: sums from thread 0 on, whatever the schedule. As with CUB's own, every thread must call it,
// and a barrier must stand before its memory is used again.
#pragma once

#include <cstring>
#include <type_traits>

#include "cuda_runtime.h"

namespace cub {

template <class T, int threads_x, int = 0, int threads_y = 1, int threads_z = 1> class BlockScan {
  static_assert(std::is_trivially_copyable_v<T>);
  static constexpr int threads = threads_x * threads_y * threads_z;

 public:
  struct TempStorage {
    alignas(T) unsigned char bytes[threads * sizeof(T)];
  };

  explicit BlockScan(TempStorage& memory) : memory_(memory) {}

  // Without an initial value, thread 0 receives nothing that may be used: 0xff here.
  template <class Op> void ExclusiveScan(T in, T& out, Op op) { scan(in, out, nullptr, op, nullptr, false); }
  template <class Op> void ExclusiveScan(T in, T& out, Op op, T& aggregate) { scan(in, out, nullptr, op, &aggregate, false); }
  template <class Op> void ExclusiveScan(T in, T& out, T initial, Op op) { scan(in, out, &initial, op, nullptr, false); }
  template <class Op> void ExclusiveScan(T in, T& out, T initial, Op op, T& aggregate) { scan(in, out, &initial, op, &aggregate, false); }
  template <class Op> void InclusiveScan(T in, T& out, Op op) { scan(in, out, nullptr, op, nullptr, true); }
  template <class Op> void InclusiveScan(T in, T& out, Op op, T& aggregate) { scan(in, out, nullptr, op, &aggregate, true); }
  void ExclusiveSum(T in, T& out) { ExclusiveScan(in, out, T{}, plus); }
  void ExclusiveSum(T in, T& out, T& aggregate) { ExclusiveScan(in, out, T{}, plus, aggregate); }
  void InclusiveSum(T in, T& out) { InclusiveScan(in, out, plus); }
  void InclusiveSum(T in, T& out, T& aggregate) { InclusiveScan(in, out, plus, aggregate); }

 private:
  static T plus(const T& a, const T& b) { return static_cast<T>(a + b); }
  T item(int i) const {
    T x;
    std::memcpy(static_cast<void*>(&x), memory_.bytes + static_cast<std::size_t>(i) * sizeof(T), sizeof x);
    return x;
  }

  template <class Op> void scan(T in, T& out, const T* initial, Op op, T* aggregate, bool inclusive) {
    const int me = static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
    std::memcpy(memory_.bytes + static_cast<std::size_t>(me) * sizeof(T), &in, sizeof in);
    __syncthreads();
    T total = item(0), before;   // of all items, of those before mine
    std::memset(static_cast<void*>(&before), 0xff, sizeof before);
    for (int i = 1; i < threads; ++i) {
      if (i == me) before = total;
      total = op(total, item(i));
    }
    if (inclusive)
      out = me == 0 ? in : op(before, in);
    else if (initial)
      out = me == 0 ? *initial : op(*initial, before);
    else
      out = before;
    if (aggregate) *aggregate = total;
  }

  TempStorage& memory_;
};

}   // namespace cub
