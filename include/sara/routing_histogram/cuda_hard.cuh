// The hard routing histogram on the GPU; its backward is cuda_hard_backward.cuh.
//
// Positions (cuda/sequences.cuh) are cut into tiles, from shapes alone. For each sequence that its tile meets a block adds up that
// sequence's slots: counts by atomics on integers, whose order is nobody's concern; weights in double, each warp a stretch of slots, in
// their order, into a row of its own, and the rows of the warps in order. The sums of tile i and sequence s are kept in the layer's
// partial i + s, which no other pair has; a second kernel adds a sequence's partials up in order. So results are the same bits on every
// run. Without weights the counts are the sums.
#pragma once

#include "cuda.cuh"
#include "cuda_chosen.cuh"

#if !defined(SARA_DYNAMIC_SHARED)
#define SARA_DYNAMIC_SHARED(T, name) extern __shared__ T name[]
#endif

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// row[expert] += value for every lane of a warp that has an expert (others have -1), in the order of the lanes. `bits`: of an expert.
__device__ __forceinline__ void add_in_order(double* row, index_t expert, double value, int bits) {
  unsigned same = __ballot_sync(full_warp, expert >= 0);   // the lanes with this one's expert
  for (int b = 0; b < bits; ++b) {
    const bool one = expert >> b & 1;
    const unsigned ones = __ballot_sync(full_warp, one);
    same &= one ? ones : ~ones;
  }
  const unsigned before = (1u << (threadIdx.x % warp_lanes)) - 1;
  const int turn = expert >= 0 ? __popc(same & before) : -1;
  for (int now = 0; __any_sync(full_warp, turn >= now); ++now) {
    if (turn == now) row[expert] += value;
    __syncwarp();
  }
}

// How the forward cuts a batch, and where the parts' sums lie.
struct chosen_partials {
  int log2_tile_rows;
  index_t tiles;      // of a layer
  bool weighted;      // sums are not the counts
  bool counted;       // counts are wanted, or the sums are counts
  bool shared;        // rows of experts fit shared memory
  int warps;          // that add up weights, with a row each
  int bits;           // of an expert's number
  double* sums;       // [layers, tiles + sequences, experts] if weighted
  unsigned* counts;   // the same if counted

  static constexpr index_t most_shared_bytes = 48 * 1024;

  chosen_partials(index_t layers, index_t tokens, index_t experts, bool weighted_, bool counted_) : weighted(weighted_), counted(counted_) {
    const tile_cut cut(layers, tokens);
    log2_tile_rows = cut.log2_rows;
    tiles = cut.count;
    warps = block_warps;
    const auto bytes_of = [&](bool has_weights) { return (has_weights ? warps * experts * 8 : 0) + experts * 4; };
    while (weighted && warps > 1 && bytes_of(true) > most_shared_bytes) warps /= 2;   // whether or not counts are wanted too
    shared = bytes_of(weighted) <= most_shared_bytes;
    bits = 0;
    while (bits < 63 && (experts - 1) >> bits) ++bits;
    sums = nullptr;
    counts = nullptr;
  }
  index_t shared_bytes(index_t experts) const {
    if (!shared) return 0;
    return (weighted ? warps * experts * 8 : 0) + (counted ? experts * 4 : 0);
  }

  __host__ __device__ index_t of_layer(index_t sequences) const { return tiles + sequences; }
  __device__ __forceinline__ index_t at(index_t l, index_t tile, index_t s, index_t sequences) const {
    return l * of_layer(sequences) + tile + s;
  }
};

template <class W, class I>
__global__ void __launch_bounds__(block_threads)
    sum_chosen(const __grid_constant__ chosen_experts<W, I> batch, const __grid_constant__ chosen_partials partials) {
  SARA_DYNAMIC_SHARED(double, chosen_rows);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / warp_lanes;
  const index_t experts = batch.experts, k = batch.k, l = blockIdx.x / partials.tiles, tile = blockIdx.x % partials.tiles;
  const index_t begin = tile << partials.log2_tile_rows, tile_end = (tile + 1) << partials.log2_tile_rows;
  const index_t end = tile_end < batch.tokens ? tile_end : batch.tokens;
  const device_matrix<const I> indices = batch.indices.layer(l);
  device_matrix<const W> weights{};
  if (batch.weights.given()) weights = batch.weights.layer(l);

  for (index_t s = batch.sequences.first_behind(begin); s < batch.sequences.count; ++s) {
    const device_sequence& sequence = batch.sequences.of[s];
    if (sequence.begin >= end) break;
    const index_t from = sequence.begin > begin ? sequence.begin : begin, to = sequence.end < end ? sequence.end : end;
    if (from >= to) continue;

    const auto run = batch.run_of(s, from, to);
    const index_t at = partials.at(l, tile, s, batch.sequences.count) * experts;
    const index_t of_warp = (run.slots + partials.warps * warp_lanes - 1) / (partials.warps * warp_lanes) * warp_lanes;
    const int warps = static_cast<int>((run.slots + of_warp - 1) / of_warp);   // that have a slot
    double* const rows = partials.shared ? chosen_rows : partials.sums + at;
    unsigned* const counts = partials.shared ? reinterpret_cast<unsigned*>(chosen_rows + (partials.weighted ? partials.warps * experts : 0))
                                             : partials.counts + at;
    __syncthreads();   // of the sequence before, all have read
    for (index_t i = thread; partials.weighted && i < warps * experts; i += block_threads) rows[i] = 0;
    for (index_t e = thread; partials.counted && e < experts; e += block_threads) counts[e] = 0;
    __syncthreads();

    const index_t last = (warp + 1) * of_warp < run.slots ? (warp + 1) * of_warp : run.slots;
    slot_walk walk(warp * of_warp + thread % warp_lanes, warp_lanes, k);
    for (index_t first = warp * of_warp; first < last; first += warp_lanes, walk.next(warp_lanes, k)) {
      index_t expert = -1;
      double value = 0;
      if (walk.slot < last) {
        const index_t row = run.first_row + walk.token * run.row_step;
        const arithmetic_t<W> weight = batch.token_weight(row);
        if (weight != 0) {
          expert = static_cast<index_t>(indices.row(row)[walk.column]);
          if (expert < 0 || expert >= experts) expert = -1;
          value = static_cast<double>(weight);
          if (partials.weighted && weights.data && expert >= 0) value *= static_cast<double>(widen_one(weights.row(row)[walk.column]));
        }
      }
      if (partials.counted && expert >= 0) atomicAdd(counts + expert, 1u);
      if (partials.weighted) add_in_order(rows + warp * experts, expert, value, partials.bits);
    }
    if (!partials.shared) continue;
    __syncthreads();
    for (index_t e = thread; e < experts; e += block_threads) {
      if (partials.weighted) {
        double sum = rows[e];
        for (int w = 1; w < warps; ++w) sum += rows[w * experts + e];
        partials.sums[at + e] = sum;
      }
      if (partials.counted) partials.counts[at + e] = counts[e];
    }
  }
}

template <class A> struct chosen_outputs {
  device_layers<A> histograms, sums;
  device_layers<std::int64_t> counts;
};

// A unit's partials to its outputs, `lanes` threads each.
template <class A>
__global__ void __launch_bounds__(block_threads)
    settle_chosen(const __grid_constant__ chosen_partials partials, const __grid_constant__ device_sequences sequences, index_t layers,
                  index_t experts, const __grid_constant__ chosen_outputs<A> out, int lanes) {
  const index_t unit = (static_cast<index_t>(blockIdx.x) * block_threads + threadIdx.x) / lanes;
  if (unit >= layers * sequences.count) return;
  const index_t l = unit / sequences.count, s = unit % sequences.count;
  const device_sequence sequence = sequences.of[s];
  const index_t tile = sequence.begin >> partials.log2_tile_rows;
  const index_t count = sequence.begin < sequence.end ? ((sequence.end - 1) >> partials.log2_tile_rows) - tile + 1 : 0;
  const index_t first = partials.at(l, tile, s, sequences.count) * experts;
  for (index_t e = static_cast<int>(threadIdx.x) % lanes; e < experts; e += lanes) {
    double sum = 0;
    std::int64_t slots = 0;
    for (index_t i = 0; partials.weighted && i < count; ++i) sum += partials.sums[first + i * experts + e];
    for (index_t i = 0; partials.counted && i < count; ++i) slots += partials.counts[first + i * experts + e];
    if (!partials.weighted) sum = static_cast<double>(slots);
    if (out.sums.given()) out.sums.row(l, s)[e] = static_cast<A>(sum);
    if (out.histograms.given()) out.histograms.row(l, s)[e] = sequence.mass != 0 ? static_cast<A>(sum / sequence.mass) : A(0);
    if (out.counts.given()) out.counts.row(l, s)[e] = slots;
  }
}

// Everything that the forward takes from its workspace, and what its kernels are given.
template <class W, class I> struct hard_histogram_forward {
  using A = arithmetic_t<W>;

  sequence_planning<A, routing_histogram_weigh<A>> planning{};
  chosen_experts<W, I> batch{};
  chosen_partials partials;
  chosen_outputs<A> outputs{};
  layer_tables tables;

  // A query that names no output measures for all of them.
  hard_histogram_forward(carver& memory, const hard_routing_histogram_inputs<W, I>& in, const hard_routing_histogram_outputs<W>& out)
      : hard_histogram_forward(memory, in, out, out.histograms.given() || out.sums.given() || out.counts.given() || out.token_mass.given(),
                               in.weights.given() || in.token_weights.given()) {}

 private:
  hard_histogram_forward(carver& memory, const hard_routing_histogram_inputs<W, I>& in, const hard_routing_histogram_outputs<W>& out,
                         bool named, bool has_weights)
      : partials(in.indices.layers(), in.indices.rows(), in.experts, has_weights && (!named || out.histograms.given() || out.sums.given()),
                 !named || out.counts.given() || (!has_weights && (out.histograms.given() || out.sums.given()))),
        tables(memory) {
    const index_t layers = in.indices.layers(), tokens = in.indices.rows(), count = in.sequences.sequences();
    device_sequence* const plan = memory.take<device_sequence>(count);
    planning = {in.sequences, tokens, in.token_weights.data(), nullptr, plan, memory.take<unsigned>(1), 1, {out.token_mass.data()}};
    batch = {tables.take(in.indices),
             tables.take(in.weights),
             sequences_of(in.sequences, tokens, plan),
             in.token_weights.data(),
             layers,
             tokens,
             in.experts,
             in.indices.columns()};
    const index_t values = layers * partials.of_layer(count) * in.experts;
    partials.sums = memory.take<double>(partials.weighted ? values : 0);
    partials.counts = memory.take<unsigned>(partials.counted ? values : 0);
    outputs = {tables.take(out.histograms), tables.take(out.sums), tables.take(out.counts)};
    for (int table = 0; !named && table < 3; ++table) memory.take<layer_place>(layers);
  }
};

// Bytes that the executor's workspace must have for hard_routing_histogram_into; from shapes alone.
template <class W, class I>
std::size_t hard_routing_histogram_workspace_bytes(const hard_routing_histogram_inputs<W, I>& in,
                                                   const hard_routing_histogram_outputs<std::type_identity_t<W>>& out = {}) {
  carver memory;
  hard_histogram_forward<W, I>(memory, in, out);
  return memory.bytes();
}

// Contract and formulas: sara/routing_histogram.hpp.
template <class W, class I>
void hard_routing_histogram_into(const cuda_executor& exec, const hard_routing_histogram_inputs<W, I>& in,
                                 const hard_routing_histogram_outputs<std::type_identity_t<W>>& out) {
  static_assert(is_kernel_storage<W>, "cuda_executor computes with double, float, bf16 and fp16 storage");
  constexpr const char* function = "hard_routing_histogram_into";
  check_hard_routing_histogram(function, in, out);
  const bool wants_rows = out.histograms.given() || out.sums.given() || out.counts.given();
  if (!wants_rows && !out.token_mass.given()) return;
  const device_call call(function, exec.stream());
  check_memory(call, [&](const auto& places) { place_hard_routing_histogram(places, in, out); });
  const device_scratch memory(call, exec, hard_routing_histogram_workspace_bytes(in, out));
  carver carve = memory.carve();
  hard_histogram_forward<W, I> mine(carve, in, out);
  plan(call, mine.planning);
  if (!wants_rows) return;
  mine.tables.write(call, in.indices, mine.batch.indices);
  mine.tables.write(call, in.weights, mine.batch.weights);
  mine.tables.write(call, out.histograms, mine.outputs.histograms);
  mine.tables.write(call, out.sums, mine.outputs.sums);
  mine.tables.write(call, out.counts, mine.outputs.counts);

  const index_t experts = in.experts, units = mine.batch.layers * in.sequences.sequences();
  if (mine.batch.k == 0)
    mine.partials.weighted = mine.partials.counted = false;   // there are none
  else
    call.launch(sum_chosen<W, I>, mine.batch.layers * mine.partials.tiles, block_threads,
                static_cast<std::size_t>(mine.partials.shared_bytes(experts)), mine.batch, mine.partials);
  int lanes = 1;
  while (lanes < block_threads && lanes < experts) lanes *= 2;
  const index_t at_once = block_threads / lanes;
  call.launch(settle_chosen<arithmetic_t<W>>, (units + at_once - 1) / at_once, block_threads, 0, mine.partials, mine.batch.sequences,
              mine.batch.layers, experts, mine.outputs, lanes);
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
