// The two sweeps over sequences of logits on the device: sums of softmax rows, a step on each sequence's sums, gradients of the rows.
// Knows no loss: the step in the middle is the caller's. The twin of cpu/sweeps.hpp.
//
// Positions (cuda/sequences.cuh) are cut into tiles, from shapes alone. A block of the first sweep adds up, for each sequence that its
// tile meets, that sequence's rows; the sum of tile i and sequence s is kept in the layer's slot i + s, which no other pair has, since
// along the positions each new pair has a later tile or a later sequence. The block that completes a unit, a (layer, sequence) pair,
// adds its slots up in order and makes the step, which leaves the slopes in the first of them. The second sweep takes the tiles in
// reverse, since the last ones read are still in the cache, and takes the exponentials again: cheaper than keeping them.
//
// No sum depends on the order in which blocks run: results are the same bits on every run.
#pragma once

#include "sequence_rows.cuh"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// How positions are cut: enough tiles for a large GPU where there are rows for them, and so few that their sums are below 1 % of the
// logits. A tile's rows are a power of two.
struct tile_cut {
  int log2_rows;   // of a tile
  index_t count;   // of tiles a layer

  tile_cut(index_t layers, index_t tokens) {
    constexpr int least = 6, most = 10;
    constexpr index_t wanted_tiles = 384;
    log2_rows = least;
    while (log2_rows < most && layers * tokens >> (log2_rows + 1) >= wanted_tiles) ++log2_rows;
    count = (tokens + rows() - 1) >> log2_rows;
  }
  index_t rows() const { return index_t(1) << log2_rows; }
};

// A unit's sums, as a step asks for them.
template <class T> struct unit_sums {
  const tile_sweeps<T>& sweep;
  const device_sequence& sequence;
  const arithmetic_t<T>* first;   // slot
  index_t slots;

  // The weighted sum of expert e.
  __device__ double operator()(index_t e) const {
    constexpr int at_once = 16;   // on their way
    double sum = 0;
    for (index_t begin = 0; begin < slots; begin += at_once) {
      arithmetic_t<T> some[at_once];
#pragma unroll
      for (int i = 0; i < at_once; ++i) some[i] = begin + i < slots ? first[(begin + i) * sweep.columns + e] : 0;
#pragma unroll
      for (int i = 0; i < at_once; ++i) sum += static_cast<double>(some[i]);
    }
    if (sweep.columns == 1) return sequence.mass + (sum - sum);   // one expert takes all, exactly, or NaN
    return sum / sequence.weight_scale;
  }
};

// Step: bool has_weight(layer, sequence)                    no: neither sweep reads the unit, its gradient is 0 (overwrite) or left alone
//       void without_weight(layer, sequence)                called in its stead, by a warp
//       void operator()(layer, sequence, sums, A* slopes)   by a block: from the weighted sums, sums(e), to slopes [columns]
//       void finish()                                       by a block, after the first sweep and all steps; in the second sweep, if it follows
//       double coefficient(layer, sequence)                 of the gradient
//       bool has_gradient()                                 no: all of the gradient is 0 (overwrite) or left alone
//       const A* slopes(layer, sequence, sweep)             [columns]

// Units without weight, and the end of the step's kernel, by the blocks behind the first `blocks`.
template <class T, class Step> __device__ void settle_without_weight(const tile_sweeps<T>& sweep, const Step& step, index_t blocks) {
  const index_t warps = (static_cast<index_t>(gridDim.x) - blocks) * block_warps;
  const index_t first = (static_cast<index_t>(blockIdx.x) - blocks) * block_warps + static_cast<int>(threadIdx.x) / warp_lanes;
  for (index_t unit = first; unit < sweep.units(); unit += warps) {
    const index_t l = unit / sweep.sequences.count, s = unit % sweep.sequences.count;
    if (!step.has_weight(l, s)) step.without_weight(l, s);
  }
}

// A block's tile.
struct tile_place {
  index_t layer, tile, begin, end;   // positions

  template <class T> __device__ __forceinline__ tile_place(const tile_sweeps<T>& sweep, unsigned block) {
    const unsigned tiles = static_cast<unsigned>(sweep.tiles);   // 32 bits are enough for blocks, and divide quickly
    layer = block / tiles;
    tile = block % tiles;
    begin = tile << sweep.log2_tile_rows;
    end = begin + (index_t(1) << sweep.log2_tile_rows) < sweep.tokens ? begin + (index_t(1) << sweep.log2_tile_rows) : sweep.tokens;
  }
};

// Positions that belong to no sequence, which the packed layout alone has: a position is a row.
__device__ __forceinline__ tile_run run_of_none(index_t l, index_t from, index_t to) { return {l, 0, from, to, from, 1}; }

// By a block that has written one of a unit's sums: the step, if it was the last. Not inlined, since its registers are many and the
// sweep's blocks few.
template <class T, class Step> __device__ __noinline__ void settle(const tile_sweeps<T>& sweep, const Step& step, index_t l, index_t s) {
  const device_sequence& sequence = sweep.sequences.of[s];
  const index_t first = sequence.begin >> sweep.log2_tile_rows, slots = ((sequence.end - 1) >> sweep.log2_tile_rows) - first + 1;
  if (arrives_last(sweep.arrivals + l * sweep.sequences.count + s, static_cast<unsigned>(slots)))
    step(l, s, unit_sums<T>{sweep, sequence, sweep.slot(l, first, s), slots}, sweep.slopes(l, s));
}

// By a block that has done its part of a kernel: the end, if it was the last and no second sweep follows.
template <class T, class Step> __device__ __noinline__ void finish(const tile_sweeps<T>& sweep, const Step& step) {
  if (!sweep.differentiates && arrives_last(sweep.all_blocks(), gridDim.x)) step.finish();
}

// The first sweep and the step.
template <class Rows, class T, class Step>
__global__ void __launch_bounds__(block_threads, Rows::template blocks_a_multiprocessor<T>())
    sum_softmax(const __grid_constant__ tile_sweeps<T> sweep, const __grid_constant__ Step step) {
  wait_for_kernel_before();
  let_kernel_behind_come();
  const index_t blocks = sweep.layers * sweep.tiles;
  if (static_cast<index_t>(blockIdx.x) < blocks) {
    const tile_place at(sweep, blockIdx.x);
    for (index_t s = sweep.sequences.first_behind(at.begin); s < sweep.sequences.count; ++s) {
      const device_sequence& sequence = sweep.sequences.of[s];
      if (sequence.begin >= at.end) break;
      const index_t from = sequence.begin > at.begin ? sequence.begin : at.begin, to = sequence.end < at.end ? sequence.end : at.end;
      if (from >= to || !step.has_weight(at.layer, s)) continue;
      Rows::sum(sweep, run_of(sweep, at.layer, s, from, to), sweep.slot(at.layer, at.tile, s));
      settle(sweep, step, at.layer, s);
    }
  } else {
    settle_without_weight(sweep, step, blocks);
  }
  finish(sweep, step);
}

// The step alone, where the histograms are given.
template <class T, class Step>
__global__ void __launch_bounds__(block_threads)
    settle_units(const __grid_constant__ tile_sweeps<T> sweep, const __grid_constant__ Step step, index_t blocks) {
  wait_for_kernel_before();
  let_kernel_behind_come();
  if (static_cast<index_t>(blockIdx.x) < blocks) {
    for (index_t unit = static_cast<index_t>(blockIdx.x); unit < sweep.units(); unit += blocks) {
      const index_t l = unit / sweep.sequences.count, s = unit % sweep.sequences.count;
      if (step.has_weight(l, s)) step(l, s, unit_sums<T>{sweep, sweep.sequences.of[s], nullptr, 0}, sweep.slopes(l, s));
    }
  } else {
    settle_without_weight(sweep, step, blocks);
  }
  finish(sweep, step);
}

// The second sweep; its first block finishes the step while the others work.
template <class Rows, class T, class G, class Step>
__global__ void __launch_bounds__(block_threads, Rows::template blocks_a_multiprocessor<T>())
    differentiate_softmax(const __grid_constant__ tile_sweeps<T> sweep, const __grid_constant__ device_layers<G> gradient, bool adds,
                          const __grid_constant__ Step step) {
  wait_for_kernel_before();
  if (blockIdx.x == 0) return step.finish();
  const tile_place at(sweep, gridDim.x - 1 - blockIdx.x);
  const device_matrix<G> matrix = gradient.layer(at.layer);
  index_t reached = at.begin;   // by sequences, or cleared
  for (index_t s = sweep.sequences.first_behind(at.begin); s < sweep.sequences.count; ++s) {
    const device_sequence& sequence = sweep.sequences.of[s];
    if (sequence.begin >= at.end) break;
    const index_t from = sequence.begin > at.begin ? sequence.begin : at.begin, to = sequence.end < at.end ? sequence.end : at.end;
    if (from >= to) continue;
    if (!adds) set_run_to_zero(run_of_none(at.layer, reached, from), sweep.columns, matrix);   // rows before the first sequence
    reached = to;
    const tile_run run = run_of(sweep, at.layer, s, from, to);
    if (step.has_gradient() && step.has_weight(at.layer, s))
      Rows::differentiate(sweep, run, step.slopes(at.layer, s, sweep), step.coefficient(at.layer, s), matrix, adds);
    else if (!adds)
      set_run_to_zero(run, sweep.columns, matrix);
  }
  if (!adds) set_run_to_zero(run_of_none(at.layer, reached, at.end), sweep.columns, matrix);   // and behind the last
}

// Enqueues the sweeps of a call.
template <class T, class Step> void sum_and_settle(const device_call& call, const tile_sweeps<T>& sweep, int alignment, const Step& step) {
  const index_t settling = std::clamp<index_t>(sweep.units() / (16 * block_warps), 1, 256);
  if (!sweep.has_slots) {
    const index_t blocks = std::min<index_t>(sweep.units(), index_t(1) << 20);
    return call.launch_behind(settle_units<T, Step>, blocks + settling, block_threads, sweep, step, blocks);
  }
  const index_t blocks = sweep.layers * sweep.tiles + settling;
  if (sweep.columns > most_columns_in_registers)
    return call.launch_behind(sum_softmax<rows_from_memory, T, Step>, blocks, block_threads, sweep, step);
  with_row_form<T>(sweep.columns, alignment, [&](auto form) {
    call.launch_behind(sum_softmax<rows_in_registers<decltype(form)>, T, Step>, blocks, block_threads, sweep, step);
  });
}

template <class T, class G, class Step>
void differentiate(const device_call& call, const tile_sweeps<T>& sweep, int alignment, const device_layers<G>& gradient, bool adds,
                   const Step& step) {
  const index_t blocks = 1 + sweep.layers * sweep.tiles;
  if (sweep.columns > most_columns_in_registers)
    return call.launch_behind(differentiate_softmax<rows_from_memory, T, G, Step>, blocks, block_threads, sweep, gradient, adds, step);
  with_row_form<T>(sweep.columns, alignment, [&](auto form) {
    call.launch_behind(differentiate_softmax<rows_in_registers<decltype(form)>, T, G, Step>, blocks, block_threads, sweep, gradient, adds,
                       step);
  });
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
