// The sequences of a batch on the device: which token rows each holds, its token mass and its weight; and the layers' matrices.
//
// Tokens are counted by position: the sequences lie one after the other, so that a stretch of positions holds whole runs of few
// sequences in every layout. Only in the interleaved layout is a position not the token's row.
#pragma once

#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <limits>

#include "../core/sequences.hpp"
#include "executor.cuh"
#include "rows.cuh"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// The sum over a block's threads, in all of them, in one fixed order.
__device__ inline double sum_over_block(double x) {
  using reduce = cub::BlockReduce<double, block_threads>;
  __shared__ typename reduce::TempStorage storage;
  __shared__ double total;
  __syncthreads();   // of the call before, all have read
  const double sum = reduce(storage).Sum(x);
  if (threadIdx.x == 0) total = sum;
  __syncthreads();
  return total;
}

// Called by all threads of a block that has written what another is to read: true in the block that arrives last, which then sees what
// all have written.
__device__ inline bool arrives_last(unsigned* counter, unsigned expected) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {   // the barriers pass on to the block, and from it, what one thread's fences order
    __threadfence();
    last = atomicAdd(counter, 1u) + 1 == expected;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// ---- layers

// A layer of a list: its matrix.
struct layer_place {
  void* data;
  index_t row_stride;
};

// A layer's matrix as kernels read it.
template <class T> struct device_matrix {
  T* data;
  index_t row_stride;

  __device__ __forceinline__ T* row(index_t r) const { return data + r * row_stride; }
};

// A pointer that was read from memory, of which the compiler cannot know that it is to global memory.
template <class T> __device__ __forceinline__ T* known_global(T* p) {
#if defined(__CUDA_ARCH__)
  p = static_cast<T*>(__cvta_global_to_generic(__cvta_generic_to_global(p)));
#endif
  return p;
}

// layers_view as kernels read it: one strided block, or a table in the workspace.
template <class T> struct device_layers {
  T* data = nullptr;
  index_t row_stride = 0, layer_stride = 0;
  const layer_place* table = nullptr;

  __device__ __forceinline__ device_matrix<T> layer(index_t l) const {
    if (table) return {known_global(static_cast<T*>(table[l].data)), table[l].row_stride};
    return {data + l * layer_stride, row_stride};
  }
  __device__ __forceinline__ T* row(index_t l, index_t r) const { return layer(l).row(r); }
  __device__ __forceinline__ bool given() const { return data != nullptr || table != nullptr; }
};

// As many layers as travel in the parameters of one launch.
inline constexpr int places_at_once = 1024;
struct layer_places {
  int count;
  layer_place place[places_at_once];
};

// A template, as every kernel here: a plain one would be defined in each object.
template <class Places> __global__ void write_layer_places(const __grid_constant__ Places from, layer_place* to) {
  for (int i = static_cast<int>(threadIdx.x); i < from.count; i += block_threads) to[i] = from.place[i];
}

// The lists of a call on their way to the workspace: in the parameters of kernels, since a copy from host memory that a graph has
// captured would read it again at every replay.
class layer_tables {
 public:
  explicit layer_tables(carver& memory) : memory_(memory) {}

  // What kernels read of v; the table of a list is written by the next `write`. Every argument has room for one, whether or not its
  // layers lie some stride apart: how much a call takes is to follow from shapes, and not from where its arguments lie.
  template <class T> device_layers<T> take(const layers_view<T>& v) {
    if (!v.layers()) return {};
    layer_place* const table = memory_.take<layer_place>(v.layers());
    const matrix_view<T> first = v[0];
    index_t stride = v.layers() > 1 ? v[1].data() - first.data() : 0;
    bool regular = true;
    for (index_t l = 1; v.is_list() && l < v.layers(); ++l)
      regular = regular && v[l].row_stride() == first.row_stride() && v[l].data() == first.data() + l * stride;
    if (regular) return {first.data(), first.row_stride(), stride, nullptr};
    return {nullptr, 0, 0, table};
  }

  template <class T> void write(const device_call& call, const layers_view<T>& v, const device_layers<T>& taken) const {
    for (index_t first = 0; taken.table && first < v.layers(); first += places_at_once) {
      layer_places some;
      some.count = static_cast<int>(std::min<index_t>(places_at_once, v.layers() - first));
      for (int i = 0; i < some.count; ++i) {
        const matrix_view<T> m = v[first + i];
        some.place[i] = {const_cast<std::remove_const_t<T>*>(m.data()), m.row_stride()};
      }
      call.launch(write_layer_places<layer_places>, 1, block_threads, 0, some, const_cast<layer_place*>(taken.table) + first);
    }
  }

 private:
  carver& memory_;
};

// ---- sequences

struct device_sequence {
  index_t begin, end;    // positions
  double mass;           // sum of token weights
  double weight;         // of the sequence, as the call counts it; 0: it is not read
  double weight_scale;   // power of two that brings token weights to about 1: exact, and out of reach of float's ends
};

// The sequences as kernels read them.
struct device_sequences {
  const device_sequence* of;   // [count]
  index_t count, tokens, length;
  token_layout layout;

  // The first sequence that ends behind a position.
  __device__ index_t first_behind(index_t position) const {
    if (layout != token_layout::packed) return length ? position / length : count;
    index_t low = 0, high = count;
    while (low < high) {
      const index_t middle = (low + high) / 2;
      if (of[middle].end > position)
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }
  // The token row of a position of sequence s.
  __device__ __forceinline__ index_t row(index_t s, index_t position) const {
    return layout == token_layout::interleaved ? s + (position - s * length) * count : position;
  }
};

// What the two kernels below are given. Weigh: double operator()(s, mass)   the weight of sequence s, called once for each by one thread
//                                          void finish(sum)             once, by all threads of one block, with the sum of the weights
template <class A, class Weigh> struct sequence_planning {
  sequences_view sequences;
  index_t tokens;
  const A* token_weights;   // [tokens] or null
  const A* token_mass;      // [sequences] or null: instead of the sum of token_weights
  device_sequence* plan;
  unsigned* counters;   // cleared; the first is this planning's own
  index_t counter_count;
  Weigh weigh;

  __host__ __device__ bool sums_weights() const { return token_weights && !token_mass; }
};

inline constexpr index_t cleared_at_once = 16 * block_threads;

// Block 0: begin and end of every sequence and, unless token weights are to be summed, masses and weights. The others clear counters.
template <class A, class Weigh>
__global__ void __launch_bounds__(block_threads) plan_sequences(const __grid_constant__ sequence_planning<A, Weigh> p) {
  let_kernel_behind_come();
  const index_t thread = static_cast<index_t>(threadIdx.x);
  for (index_t at = static_cast<index_t>(blockIdx.x) * cleared_at_once; at < (static_cast<index_t>(blockIdx.x) + 1) * cleared_at_once;
       at += block_threads)
    if (at + thread < p.counter_count) p.counters[at + thread] = 0;
  if (blockIdx.x != 0) return;

  using scan = cub::BlockScan<index_t, block_threads>;
  __shared__ typename scan::TempStorage storage;
  const auto larger = [](index_t a, index_t b) { return a < b ? b : a; };
  const auto clamped = [&](index_t offset) { return offset < 0 ? 0 : offset > p.tokens ? p.tokens : offset; };
  const bool packed = p.sequences.layout() == token_layout::packed;
  const index_t count = p.sequences.sequences();
  index_t reached = packed && count > 0 ? clamped(p.sequences.offsets()[0]) : 0;
  double sum = 0;
  for (index_t first = 0; first < count; first += block_threads) {
    const index_t s = first + thread;
    device_sequence mine{s * p.sequences.length(), (s + 1) * p.sequences.length(), 0, 0, 1};
    if (packed) {
      const index_t offset = s < count ? clamped(p.sequences.offsets()[s + 1]) : 0;
      index_t last;
      scan(storage).ExclusiveScan(offset, mine.begin, reached, larger, last);
      mine.end = larger(mine.begin, offset);
      reached = larger(reached, last);
      __syncthreads();
    }
    if (s >= count) continue;
    mine.mass = p.token_mass ? static_cast<double>(p.token_mass[s]) : static_cast<double>(mine.end - mine.begin);
    if (!p.sums_weights()) sum += mine.weight = p.weigh(s, mine.mass);
    p.plan[s] = mine;
  }
  if (!p.sums_weights()) p.weigh.finish(sum_over_block(sum));
}

// Token masses and weights of the sequences, `lanes` threads each (a warp or a block).
template <class A, class Weigh>
__global__ void __launch_bounds__(block_threads) sum_token_weights(const __grid_constant__ sequence_planning<A, Weigh> p, int lanes) {
  wait_for_kernel_before();
  let_kernel_behind_come();
  const int thread = static_cast<int>(threadIdx.x);
  const index_t count = p.sequences.sequences(), s = static_cast<index_t>(blockIdx.x) * (block_threads / lanes) + thread / lanes;
  double mass = 0;
  if (s < count) {
    const index_t begin = p.plan[s].begin, end = p.plan[s].end;
    const bool interleaved = p.sequences.layout() == token_layout::interleaved;
    const A* const first = p.token_weights + (interleaved ? s : begin);
    const index_t step = interleaved ? count : 1;
    for (index_t i = thread % lanes; i < end - begin; i += lanes) mass += static_cast<double>(first[i * step]);
  }
  if (lanes == block_threads) {
    mass = sum_over_block(mass);
  } else {
    for (int o = 1; o < warp_lanes; o *= 2) mass += __shfl_xor_sync(full_warp, mass, o);
  }
  if (s < count && thread % lanes == 0) {
    device_sequence& mine = p.plan[s];
    mine.mass = mass;
    constexpr int most = std::numeric_limits<A>::max_exponent - 2;   // what A holds, and its inverse: weights may be denormal
    const int found = mass > 0 && mass < HUGE_VAL ? ilogb(mass / static_cast<double>(mine.end - mine.begin)) : 0;
    const int exponent = found < -most ? -most : found > most ? most : found;
    if (exponent < -16 || exponent > 16) mine.weight_scale = ldexp(1.0, -exponent);   // most weights are near 1 as they are
    mine.weight = p.weigh(s, mass);
  }
  if (!arrives_last(p.counters, gridDim.x)) return;
  double sum = 0;
  for (index_t i = thread; i < count; i += block_threads) sum += p.plan[i].weight;
  p.weigh.finish(sum_over_block(sum));
}

// Enqueues the planning of a call.
template <class A, class Weigh> void plan(const device_call& call, const sequence_planning<A, Weigh>& p) {
  const index_t clearing = (p.counter_count + cleared_at_once - 1) / cleared_at_once, count = p.sequences.sequences();
  call.launch(plan_sequences<A, Weigh>, std::max<index_t>(clearing, 1), block_threads, 0, p);
  if (!p.sums_weights()) return;
  const int lanes = p.tokens > count * block_threads ? block_threads : warp_lanes, at_once = block_threads / lanes;
  call.launch_behind(sum_token_weights<A, Weigh>, std::max<index_t>((count + at_once - 1) / at_once, 1), block_threads, p, lanes);
}

inline device_sequences sequences_of(const sequences_view& v, index_t tokens, const device_sequence* plan) {
  return {plan, v.sequences(), tokens, v.length(), v.layout()};
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
