// A run of a sequence's rows on the device, added up or differentiated: the primitives of the two sweeps (cuda/sweeps.cuh), and the batch as
// these see it. The twin of cpu/sequence_rows.hpp.
#pragma once

#include "exponentials.cuh"
#include "sequences.cuh"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// Both sweeps' view of a batch. A stands for the arithmetic type.
template <class T> struct tile_sweeps {
  using A = arithmetic_t<T>;

  device_layers<const T> logits;
  device_sequences sequences;
  const A* token_weights;   // [tokens] or null
  index_t layers, tokens, columns;
  int log2_tile_rows;
  int lanes;             // that share a row
  index_t tiles;         // of a layer
  bool differentiates;   // in a second sweep
  bool has_slots;        // of tiles; otherwise only one of each unit, for its slopes
  A* slots;              // [layers, slots_of_layer, columns]
  unsigned* arrivals;    // [layers, sequences], then one for all blocks

  __host__ __device__ index_t units() const { return layers * sequences.count; }
  __host__ __device__ index_t slots_of_layer() const { return (has_slots ? tiles : 0) + sequences.count; }
  __device__ __forceinline__ A* slot(index_t l, index_t tile, index_t s) const {
    return slots + (l * slots_of_layer() + (has_slots ? tile : 0) + s) * columns;
  }
  // Where the step leaves a unit's slopes.
  __device__ __forceinline__ A* slopes(index_t l, index_t s) const { return slot(l, sequences.of[s].begin >> log2_tile_rows, s); }
  __device__ __forceinline__ unsigned* all_blocks() const { return arrivals + units(); }
};

// The part [from, to) of a tile that belongs to sequence s of layer l: consecutive rows of a matrix, some stride apart.
struct tile_run {
  index_t layer, sequence, from, to;   // positions
  index_t first_row, row_step;

  __device__ __forceinline__ int count() const { return static_cast<int>(to - from); }
  __device__ __forceinline__ index_t row(int i) const { return first_row + i * row_step; }
};
template <class T> __device__ __forceinline__ tile_run run_of(const tile_sweeps<T>& sweep, index_t l, index_t s, index_t from, index_t to) {
  const bool interleaved = sweep.sequences.layout == token_layout::interleaved;
  return {l, s, from, to, sweep.sequences.row(s, from), interleaved ? sweep.sequences.count : 1};
}

// Some rows of each group: their weights (0 for none), and what was read of those that have weight.
template <class T, class Form> struct some_rows {
  static constexpr int at_once = Form::template rows_at_once<T>, parts = Form::rows_in_flight / at_once;

  arithmetic_t<T> weight[parts][at_once];
  row_storage<T, Form> held[parts][at_once];
};

// The rows of a run as the groups of a block take them, some at a time: calls visit(i, weight, storage) with as many rows for every
// group, i, i + g.groups, ... While they are computed with the next are on their way.
template <class Form, class T, class Visit>
__device__ __forceinline__ void visit_rows(const tile_sweeps<T>& sweep, const row_group<Form::lanes>& g, const tile_run& run,
                                           const Visit& visit) {
  using A = arithmetic_t<T>;
  using rows = some_rows<T, Form>;
  constexpr int n = Form::rows_in_flight, at_once = rows::at_once;
  const device_matrix<const T> logits = sweep.logits.layer(run.layer);
  const A* const weights = sweep.token_weights ? sweep.token_weights + run.first_row : nullptr;
  const index_t step = g.groups * run.row_step * logits.row_stride;
  const T* row = logits.row(run.row(g.group));
  const int count = run.count();
  const auto read = [&](int begin, rows& to) {
#pragma unroll
    for (int r = 0; r < n; ++r) to.weight[r / at_once][r % at_once] = begin + r * g.groups < count ? A(1) : A(0);
    if (weights) {   // one branch: without it, every address is formed under a predicate
#pragma unroll
      for (int r = 0; r < n; ++r)
        if (A& weight = to.weight[r / at_once][r % at_once]; weight != A(0)) weight = weights[(begin + r * g.groups) * run.row_step];
    }
#pragma unroll
    for (int r = 0; r < n; ++r) {
      to.held[r / at_once][r % at_once].load(row, sweep.columns, g, to.weight[r / at_once][r % at_once] != A(0));
      row += step;
    }
  };
  rows now, next;
  read(g.group, now);
  for (int begin = g.group; begin - g.group < count; begin += n * g.groups) {
    read(begin + n * g.groups, next);
#pragma unroll
    for (int i = 0; i < rows::parts; ++i) visit(begin + i * at_once * g.groups, now.weight[i], now.held[i]);
    now = next;
  }
}

// The block's sum, over its groups, of what each lane holds of a row; by halves of the warps, valid in the first group of warp 0.
template <class A, int per_lane, int lanes> __device__ __forceinline__ void sum_over_groups(A (&x)[per_lane], const row_group<lanes>& g) {
  __shared__ A of_warps[block_warps / 2][per_lane * warp_lanes];
  const int warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const bool speaks = static_cast<int>(threadIdx.x) % warp_lanes < g.lanes();   // for its warp
#pragma unroll
  for (int i = 0; i < per_lane; ++i) x[i] = g.sum_of_groups(x[i]);
#pragma unroll
  for (int half = block_warps / 2; half > 0; half /= 2) {
    __syncthreads();
    if (speaks && warp >= half && warp < 2 * half) {
#pragma unroll
      for (int i = 0; i < per_lane; ++i) of_warps[warp - half][i * warp_lanes + g.lane] = x[i];
    }
    __syncthreads();
    if (speaks && warp < half) {
#pragma unroll
      for (int i = 0; i < per_lane; ++i) x[i] += of_warps[warp][i * warp_lanes + g.lane];
    }
  }
}

// Sets a row to 0, by a warp.
template <class G> __device__ __forceinline__ void set_to_zero(G* row, index_t columns) {
  for (index_t e = static_cast<int>(threadIdx.x) % warp_lanes; e < columns; e += warp_lanes) narrow_one(row[e], arithmetic_t<G>(0));
}

// How the sweeps take a run: `sum` to a slot, `differentiate` to the gradient's rows.

// With rows in registers: up to 1024 columns.
template <class Form> struct rows_in_registers {
  static constexpr int per_lane = Form::per_lane;
  template <class T> static constexpr int blocks_a_multiprocessor() {   // as registers allow
    return per_lane == 32 || sizeof(T) == 8 ? 1 : per_lane == 16 ? 2 : 3;
  }

  template <class T> __device__ static void sum(const tile_sweeps<T>& sweep, const tile_run& run, arithmetic_t<T>* slot) {
    using A = arithmetic_t<T>;
    constexpr int n = Form::template rows_at_once<T>;
    const row_group<Form::lanes> g(sweep.lanes);
    const A weight_scale = static_cast<A>(sweep.sequences.of[run.sequence].weight_scale);
    A sums[per_lane] = {};
    visit_rows<Form>(sweep, g, run, [&](int, const A(&weight)[n], const row_storage<T, Form>(&held)[n]) {
      A z[n][per_lane];
      exp_sum<A> of_rows[n];
      exponentiate(held, sweep.columns, g, z, of_rows);
#pragma unroll
      for (int r = 0; r < n; ++r) {
        const A share = weight[r] * weight_scale * inverse(of_rows[r].sum);   // 0 for a row that was not read
#pragma unroll
        for (int i = 0; i < per_lane; ++i) sums[i] += z[r][i] * share;
      }
    });
    sum_over_groups(sums, g);
    if (static_cast<int>(threadIdx.x) < g.lanes()) store_row<T, Form>(sums, slot, sweep.columns, g);
  }

  template <class T, class G>
  __device__ static void differentiate(const tile_sweeps<T>& sweep, const tile_run& run, const arithmetic_t<T>* slopes, double coefficient,
                                       const device_matrix<G>& gradient, bool adds) {
    using A = arithmetic_t<T>;
    constexpr int n = Form::template rows_at_once<T>;
    const row_group<Form::lanes> g(sweep.lanes);
    const double weight_scale = sweep.sequences.of[run.sequence].weight_scale;
    const A of_weight = static_cast<A>(weight_scale), times = static_cast<A>(coefficient / weight_scale);
    const index_t step = g.groups * run.row_step * gradient.row_stride;
    G* next = gradient.row(run.row(g.group));
    A slope[per_lane];
    load_row<T, Form>(slope, slopes, sweep.columns, g, A(0));
    if (sweep.columns == 1) slope[0] = 0;   // one expert has probability 1, and a gradient of exactly 0
    visit_rows<Form>(sweep, g, run, [&](int begin, const A(&weight)[n], const row_storage<T, Form>(&held)[n]) {
      A z[n][per_lane], dot[n], left[n] = {}, share[n];
      exp_sum<A> of_rows[n];
      exponentiate(held, sweep.columns, g, z, of_rows);
#pragma unroll
      for (int r = 0; r < n; ++r) {
        dot[r] = z[r][0] * slope[0];
#pragma unroll
        for (int i = 1; i < per_lane; ++i) dot[r] += z[r][i] * slope[i];
      }
#pragma unroll
      for (int r = 0; r < n; ++r) {
        dot[r] = g.sum(dot[r]);
        share[r] = inverse(of_rows[r].sum);
      }
      const auto off_mean = [&](int r, int i) { return fused(-dot[r], share[r], slope[i]); };   // a slope less the row's mean
      // What rounding has left of the mean, which the entry of a large probability would show; logits of 16 bits are rounded more than that.
      if constexpr (sizeof(T) > 2) {
#pragma unroll
        for (int r = 0; r < n; ++r) {
#pragma unroll
          for (int i = 0; i < per_lane; ++i) left[r] += z[r][i] * off_mean(r, i);
        }
#pragma unroll
        for (int r = 0; r < n; ++r) left[r] = g.sum(left[r]);
      }
#pragma unroll
      for (int r = 0; r < n; ++r) {
        G* const row = next;
        next += step;
        if (weight[r] == A(0)) {   // also where a slope is NaN
          if (adds || begin + r * g.groups >= run.count()) continue;
          const A none[per_lane] = {};
          store_row<T, Form>(none, row, sweep.columns, g);
          continue;
        }
        const A factor = weight[r] * of_weight * times * share[r];
#pragma unroll
        for (int j = 0; j < per_lane; ++j) {
          A d = off_mean(r, j);
          if constexpr (sizeof(T) > 2) d = fused(-left[r], share[r], d);
          z[r][j] = product(z[r][j] * factor, d);
        }
        if (adds) {
          A before[per_lane];
          load_row<T, Form>(before, row, sweep.columns, g, A(0));
#pragma unroll
          for (int j = 0; j < per_lane; ++j) z[r][j] += before[j];
        }
        store_row<T, Form>(z[r], row, sweep.columns, g);
      }
    });
  }
};

// With rows read again and again from memory, a warp a row: any number of columns.
struct rows_from_memory {
  template <class> static constexpr int blocks_a_multiprocessor() { return 3; }

  template <class T> __device__ static void sum(const tile_sweeps<T>& sweep, const tile_run& run, arithmetic_t<T>* slot) {
    using A = arithmetic_t<T>;
    constexpr int at_once = 64;
    __shared__ A share[at_once];
    __shared__ math::exp_row<A> peak[at_once];
    const int thread = static_cast<int>(threadIdx.x);
    const device_matrix<const T> logits = sweep.logits.layer(run.layer);
    const A weight_scale = static_cast<A>(sweep.sequences.of[run.sequence].weight_scale);
    for (int first = 0; first < run.count(); first += at_once) {
      const int count = run.count() - first < at_once ? run.count() - first : at_once;
      __syncthreads();
      for (int r = thread / warp_lanes; r < count; r += block_warps) {
        const index_t row = run.row(first + r);
        const A weight = sweep.token_weights ? sweep.token_weights[row] : A(1);
        exp_sum<A> of_row{A(1), {}};
        if (weight != A(0)) of_row = sum_row(logits.row(row), sweep.columns);
        if (thread % warp_lanes == 0) {
          share[r] = weight * weight_scale * inverse(of_row.sum);
          peak[r] = of_row.peak;
        }
      }
      __syncthreads();
      for (index_t e = thread; e < sweep.columns; e += block_threads) {
        double sum = 0;
        for (int r = 0; r < count; ++r)
          if (share[r] != A(0)) {
            const A z = widen_one(logits.row(run.row(first + r))[e]);
            sum += static_cast<double>(share[r] * math::exp_scaled(lane<A>{z}, peak[r]).v);
          }
        slot[e] = (first == 0 ? A(0) : slot[e]) + static_cast<A>(sum);
      }
    }
  }

  template <class T, class G>
  __device__ static void differentiate(const tile_sweeps<T>& sweep, const tile_run& run, const arithmetic_t<T>* slopes, double coefficient,
                                       const device_matrix<G>& gradient, bool adds) {
    using A = arithmetic_t<T>;
    const row_group<warp_lanes> g(warp_lanes);
    const device_matrix<const T> logits = sweep.logits.layer(run.layer);
    const double weight_scale = sweep.sequences.of[run.sequence].weight_scale;
    const A of_weight = static_cast<A>(weight_scale), times = static_cast<A>(coefficient / weight_scale);
    for (int i = g.group; i < run.count(); i += block_warps) {
      const index_t row = run.row(i);
      const A weight = sweep.token_weights ? sweep.token_weights[row] : A(1);
      G* const to = gradient.row(row);
      if (weight == A(0)) {
        if (!adds) set_to_zero(to, sweep.columns);
        continue;
      }
      const T* const z = logits.row(row);
      const exp_sum<A> of_row = sum_row(z, sweep.columns);
      double dot = 0;   // of any number of terms
      for (index_t e = g.lane; e < sweep.columns; e += warp_lanes)
        dot += static_cast<double>(math::exp_scaled(lane<A>{widen_one(z[e])}, of_row.peak).v * slopes[e]);
      const A share = inverse(of_row.sum), mean = static_cast<A>(g.sum(dot)) * share, factor = weight * of_weight * times * share;
      double left = 0;   // as with rows in registers
      for (index_t e = g.lane; sizeof(T) > 2 && e < sweep.columns; e += warp_lanes)
        left += static_cast<double>(math::exp_scaled(lane<A>{widen_one(z[e])}, of_row.peak).v * (slopes[e] - mean));
      const A rest = static_cast<A>(g.sum(left)) * share;
      for (index_t e = g.lane; e < sweep.columns; e += warp_lanes) {
        const A value = math::exp_scaled(lane<A>{widen_one(z[e])}, of_row.peak).v * factor * (slopes[e] - mean - rest);
        narrow_one(to[e], adds ? widen_one(to[e]) + value : value);
      }
    }
  }
};

// Sets the rows of a run to 0, a warp a row.
template <class G> __device__ void set_run_to_zero(const tile_run& run, index_t columns, const device_matrix<G>& gradient) {
  for (int i = static_cast<int>(threadIdx.x) / warp_lanes; i < run.count(); i += block_warps)
    set_to_zero(gradient.row(run.row(i)), columns);
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
