// One kernel in the order of the sequences, so that the second read of the logits comes from the L2 cache: 4 B an element of bf16 from
// memory. As many blocks as the device holds draw tickets; a ticket is a tile of a sequence's rows to be summed, or one of an earlier
// sequence, `lag` before, to be differentiated.
//
// A block waits for nothing but tickets drawn before its own, whose blocks run: it needs no cooperative launch. The lag is twice the tickets
// that the device works on at once, so that it seldom waits, and the cache holds what lies in between.
#include "rows.cuh"

namespace benchmarks::laboratory {
namespace {

constexpr int tile_rows = 64;

struct memory {
  float* partials;       // [units, tiles, experts]
  float* slopes;         // [units, experts]
  double* divergences;   // [units]
  unsigned* arrivals;    // [units]
  unsigned* settled;     // [units]
  unsigned *units_settled, *tickets;
  index_t tiles;           // of a unit
  index_t lag;             // in units
  index_t counter_bytes;   // of those from `arrivals` on
};

template <class T>
__global__ void __launch_bounds__(threads, 3) draw_tickets(const __grid_constant__ batch<T> b, const __grid_constant__ memory m) {
  __shared__ float of_groups[groups][experts];
  __shared__ double warps[threads / 32];
  __shared__ bool last;
  __shared__ unsigned ticket;
  const int thread = static_cast<int>(threadIdx.x);
  const index_t tickets = (b.units() + m.lag) * 2 * m.tiles;

  for (;;) {
    __syncthreads();   // all have read the ticket before
    if (thread == 0) ticket = atomicAdd(m.tickets, 1u);
    __syncthreads();
    if (static_cast<index_t>(ticket) >= tickets) return;
    const index_t step = static_cast<index_t>(ticket) / (2 * m.tiles), which = static_cast<index_t>(ticket) % (2 * m.tiles);
    const bool sums = which < m.tiles;
    const index_t unit = sums ? step : step - m.lag, tile = sums ? which : which - m.tiles, begin = tile * tile_rows;
    if (unit < 0 || unit >= b.units()) continue;
    const int count = static_cast<int>(b.length - begin < tile_rows ? b.length - begin : tile_rows);
    const index_t first = unit * b.length + begin;
    const auto load = [&](int row, int lane) {
      part_of_row<T> part;
      part.load(b.logits + (first + row) * experts, lane);
      return part;
    };

    if (!sums) {
      if (thread == 0)
        while (*static_cast<volatile unsigned*>(m.settled + unit) == 0) {
        }
      __threadfence();
      __syncthreads();
      differentiate_rows<T, exponential::library>(thread, count, m.slopes + unit * experts, 1 / static_cast<float>(b.rows()),
                                                  b.gradient + first * experts, load);
      continue;
    }
    sum_rows<T, exponential::library>(thread, count, of_groups, load, [](int, int, const part_of_row<T>&) {});
    float* const partials = m.partials + unit * m.tiles * experts;
    if (thread < experts) partials[tile * experts + thread] = sum_over_groups(of_groups, thread);
    if (!arrives_last(thread, m.arrivals + unit, static_cast<unsigned>(m.tiles), &last)) continue;
    const auto sum_of = [&](int e) {
      double sum = 0;
      for (index_t i = 0; i < m.tiles; ++i) sum += static_cast<double>(partials[i * experts + e]);
      return sum;
    };
    const double js = settle(thread, sum_of, b.length, b.anchors + unit * experts, m.slopes + unit * experts, warps);
    if (thread == 0) m.divergences[unit] = js;
    __threadfence();
    __syncthreads();
    if (thread == 0) atomicExch(m.settled + unit, 1u);
    if (arrives_last(thread, m.units_settled, static_cast<unsigned>(b.units()), &last) && thread < 32)
      write_loss(thread, m.divergences, b.units(), b.loss);
  }
}

}   // namespace

template <class T> design persistent(const batch<T>& b) {
  int blocks_a_multiprocessor = 0;
  require(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_a_multiprocessor, draw_tickets<T>, threads, 0),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  const index_t blocks = blocks_a_multiprocessor * device_attribute(cudaDevAttrMultiProcessorCount);
  return with_scratch<memory>(
      "persistent blocks, second read from L2",
      [=](sara::carver& c) {
        memory m;
        m.tiles = (b.length + tile_rows - 1) / tile_rows;
        m.lag = blocks / m.tiles + 1;
        m.counter_bytes = (2 * b.units() + 2) * index_t{sizeof(unsigned)};
        m.arrivals = c.take<unsigned>(2 * b.units() + 2);
        m.settled = m.arrivals + b.units();
        m.units_settled = m.settled + b.units();
        m.tickets = m.units_settled + 1;
        m.partials = c.take<float>(b.units() * m.tiles * experts);
        m.slopes = c.take<float>(b.units() * experts);
        m.divergences = c.take<double>(b.units());
        return m;
      },
      [=](cudaStream_t stream, const memory& m) {
        require(cudaMemsetAsync(m.arrivals, 0, static_cast<std::size_t>(m.counter_bytes), stream), "cudaMemsetAsync");
        launch(draw_tickets<T>, blocks, threads, 0, 1, stream, b, m);
      });
}

template design persistent(const batch<bf16>&);
template design persistent(const batch<float>&);

}   // namespace benchmarks::laboratory
