// What the laboratory's own designs share: rows of 128 logits in registers, 16 lanes a row and 8 values a lane, their softmaxes summed and
// differentiated by a block of 256 threads, the step on a unit's sums, and the order among blocks.
//
// `thread` is threadIdx.x everywhere, but where a design (clusters.cu) takes several blocks for parts of one.
#pragma once

#include <sara/cuda/lane.cuh>
#include <sara/math/js.hpp>

#include "laboratory.cuh"

namespace benchmarks::laboratory {

inline constexpr int threads = 256, lanes = experts / 8, groups = threads / lanes;
inline constexpr unsigned full_warp = 0xffffffffu;

// ---- rows

// A lane's part of a row, as it lies in memory.
template <class T> struct part_of_row {
  static constexpr int width = 16 / static_cast<int>(sizeof(T)), packets = 8 / width;

  sara::packet packet[packets];

  __device__ __forceinline__ static int expert(int lane, int i) { return (i / width * lanes + lane) * width + i % width; }
  __device__ __forceinline__ void load(const T* row, int lane) {
#pragma unroll
    for (int c = 0; c < packets; ++c) packet[c] = sara::load_packet(row + expert(lane, c * width));
  }
  __device__ __forceinline__ void store(T* row, int lane) const {
#pragma unroll
    for (int c = 0; c < packets; ++c) sara::store_packet(row + expert(lane, c * width), packet[c]);
  }
  __device__ __forceinline__ void widen(float (&to)[8]) const {
#pragma unroll
    for (int c = 0; c < packets; ++c) {
      float some[width];
      sara::widen<T>(packet[c], some);
#pragma unroll
      for (int i = 0; i < width; ++i) to[c * width + i] = some[i];
    }
  }
  __device__ __forceinline__ void narrow(const float (&from)[8]) {
#pragma unroll
    for (int c = 0; c < packets; ++c) {
      float some[width];
#pragma unroll
      for (int i = 0; i < width; ++i) some[i] = from[c * width + i];
      packet[c] = sara::narrow<T>(some);
    }
  }
};

__device__ __forceinline__ float sum_of_row(float x) {
#pragma unroll
  for (int o = 1; o < lanes; o *= 2) x += __shfl_xor_sync(full_warp, x, o);
  return x;
}

enum class exponential { polynomial, library };   // the CPU's (math/exp.hpp), or the library's on a device: 2^x by its own instruction

// z becomes its exponentials up to the row's factor; returns their sum over the row. As in the library, the row's maximum is looked for only
// where the sum tells that it is needed.
template <exponential how> __device__ __forceinline__ float exponentiate(float (&z)[8]) {
  namespace math = sara::math;
  const math::usual_exp_row<float> usual_row;
  const sara::usual_exp<float> exp;
  float x[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if constexpr (how == exponential::library) {
      x[i] = exp(z[i]);
    } else {
      sara::lane<float> one[1] = {{z[i]}};
      math::exp_usual(one, usual_row);
      x[i] = one[0].v;
    }
  }
  const auto sum_of = [](const float(&of)[8]) {
    return sum_of_row(((of[0] + of[1]) + (of[2] + of[3])) + ((of[4] + of[5]) + (of[6] + of[7])));
  };
  float sum = sum_of(x);
  const bool usual = usual_row.was_usual(sum, experts);
  if (!__all_sync(full_warp, usual)) {
    float most = z[0];
#pragma unroll
    for (int i = 1; i < 8; ++i) most = fmaxf(most, z[i]);
#pragma unroll
    for (int o = 1; o < lanes; o *= 2) most = fmaxf(most, __shfl_xor_sync(full_warp, most, o));
    const math::exp_row<float> row(most);
    float y[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = math::exp_scaled(sara::lane<float>{z[i]}, row).v;
    const float its_sum = sum_of(y);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = usual ? x[i] : y[i];
    sum = usual ? sum : its_sum;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) z[i] = x[i];
  return sum;
}

inline constexpr int rows_at_once = 4;   // of a group: all are read before the first is computed with

// Softmaxes of `count` rows, added up: of_groups [groups][experts] in shared memory then holds each group's sums. `load(row, lane)` gives a
// part_of_row, and `seen(row, lane, part)` gets it.
template <class T, exponential how, class Load, class Seen>
__device__ __forceinline__ void sum_rows(int thread, int count, float (*of_groups)[experts], const Load& load, const Seen& seen) {
  const int lane = thread % lanes, group = thread / lanes;
  float sums[8] = {};
  for (int first = 0; first < count; first += rows_at_once * groups) {
    part_of_row<T> held[rows_at_once];
#pragma unroll
    for (int r = 0; r < rows_at_once; ++r)
      if (const int row = first + r * groups + group; row < count) held[r] = load(row, lane);
#pragma unroll
    for (int r = 0; r < rows_at_once; ++r) {
      const int row = first + r * groups + group;
      float z[8] = {};
      if (row < count) {
        held[r].widen(z);
        seen(row, lane, held[r]);
      }
      const float sum = exponentiate<how>(z), share = row < count ? 1 / sum : 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[i] += z[i] * share;
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) of_groups[group][part_of_row<T>::expert(lane, i)] = sums[i];
  __syncthreads();
}
__device__ __forceinline__ float sum_over_groups(const float (*of_groups)[experts], int expert) {
  float sum = 0;
#pragma unroll
  for (int g = 0; g < groups; ++g) sum += of_groups[g][expert];
  return sum;
}

// The gradient of `count` rows: coefficient p (slope - sum of p slope).
template <class T, exponential how, class Load>
__device__ __forceinline__ void differentiate_rows(int thread, int count, const float* slopes, float coefficient, T* gradient,
                                                   const Load& load) {
  const int lane = thread % lanes, group = thread / lanes;
  float slope[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) slope[i] = slopes[part_of_row<T>::expert(lane, i)];
  for (int first = 0; first < count; first += rows_at_once * groups) {
    part_of_row<T> held[rows_at_once];
#pragma unroll
    for (int r = 0; r < rows_at_once; ++r)
      if (const int row = first + r * groups + group; row < count) held[r] = load(row, lane);
#pragma unroll
    for (int r = 0; r < rows_at_once; ++r) {
      const int row = first + r * groups + group;
      float z[8] = {};
      if (row < count) held[r].widen(z);
      const float inverse = 1 / exponentiate<how>(z);
      float dot = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) dot += z[i] * slope[i];
      const float mean = sum_of_row(dot) * inverse, factor = coefficient * inverse;
      if (row >= count) continue;
#pragma unroll
      for (int i = 0; i < 8; ++i) z[i] = z[i] * factor * (slope[i] - mean);
      held[r].narrow(z);
      held[r].store(gradient + static_cast<index_t>(row) * experts, lane);
    }
  }
}

// ---- a unit's step, and the loss

// Over a block, in all its threads, in one order. `warps`: [threads / 32] in shared memory.
__device__ __forceinline__ double sum_over_block(int thread, double x, double* warps) {
#pragma unroll
  for (int o = 1; o < 32; o *= 2) x += __shfl_xor_sync(full_warp, x, o);
  __syncthreads();   // of the sum before, all have read
  if (thread % 32 == 0) warps[thread / 32] = x;
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (int w = 0; w < threads / 32; ++w) sum += warps[w];
  return sum;
}

// The divergence of a unit of so many rows from `sum_of(expert)`; its slopes, less their mean, to `slopes`.
template <class SumOf>
__device__ __forceinline__ double settle(int thread, const SumOf& sum_of, index_t rows, const float* anchor, float* slopes, double* warps) {
  double q = 0;
  sara::math::js_term<double> term{0, 0, 0};
  if (thread < experts) {
    q = sum_of(thread) / static_cast<double>(rows);
    term = sara::math::js(static_cast<double>(anchor[thread]), q);
  }
  const double js = sum_over_block(thread, term.value, warps), mean = sum_over_block(thread, term.slope_q * q, warps);
  if (thread < experts) slopes[thread] = static_cast<float>(term.slope_q - mean);
  return js;
}

// By one warp.
__device__ __forceinline__ void write_loss(int lane_of_warp, const double* divergences, index_t units, float* loss) {
  double sum = 0;
  for (index_t u = lane_of_warp; u < units; u += 32) sum += divergences[u];
#pragma unroll
  for (int o = 1; o < 32; o *= 2) sum += __shfl_xor_sync(full_warp, sum, o);
  if (lane_of_warp == 0) *loss = static_cast<float>(sum / static_cast<double>(units));
}

// ---- order among blocks

// By all threads of a block that has written what another is to read: true in the block that is the last of `expected`, which then sees
// what all have written. `flag` in shared memory.
__device__ __forceinline__ bool arrives_last(int thread, unsigned* counter, unsigned expected, bool* flag) {
  __threadfence();
  __syncthreads();
  if (thread == 0) *flag = atomicAdd(counter, 1u) + 1 == expected;
  __syncthreads();
  __threadfence();
  return *flag;
}

}   // namespace benchmarks::laboratory
