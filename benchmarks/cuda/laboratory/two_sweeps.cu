// Two kernels over tiles of rows: the first adds up the softmaxes of its rows, and the last block of a unit makes the step; the second takes
// the exponentials again and writes the gradient, its tiles in reverse, since the last ones read are still in the cache. 6 B an element of
// bf16. With the polynomial that the CPU takes for an exponential, or with the library's by the device's own instruction: what does that save?
#include "rows.cuh"

namespace benchmarks::laboratory {
namespace {

constexpr int tile_rows = 256;

struct memory {
  float* partials;       // [units, tiles, experts]
  float* slopes;         // [units, experts]
  double* divergences;   // [units]
  unsigned* arrivals;    // [units], and one for the units
  index_t tiles;         // of a unit
  index_t counter_bytes;
};

template <class T, exponential how>
__global__ void __launch_bounds__(threads, 3) sum_sweep(const __grid_constant__ batch<T> b, const __grid_constant__ memory m) {
  __shared__ float of_groups[groups][experts];
  __shared__ double warps[threads / 32];
  __shared__ bool last;
  const int thread = static_cast<int>(threadIdx.x);
  const index_t unit = static_cast<index_t>(blockIdx.x) / m.tiles, tile = static_cast<index_t>(blockIdx.x) % m.tiles,
                begin = tile * tile_rows;
  const int count = static_cast<int>(b.length - begin < tile_rows ? b.length - begin : tile_rows);
  const T* const rows = b.logits + (unit * b.length + begin) * experts;
  sum_rows<T, how>(
      thread, count, of_groups,
      [&](int row, int lane) {
        part_of_row<T> part;
        part.load(rows + row * experts, lane);
        return part;
      },
      [](int, int, const part_of_row<T>&) {});
  float* const partials = m.partials + unit * m.tiles * experts;
  if (thread < experts) partials[tile * experts + thread] = sum_over_groups(of_groups, thread);

  if (!arrives_last(thread, m.arrivals + unit, static_cast<unsigned>(m.tiles), &last)) return;
  const auto sum_of = [&](int e) {
    double sum = 0;
    for (index_t i = 0; i < m.tiles; ++i) sum += static_cast<double>(partials[i * experts + e]);
    return sum;
  };
  const double js = settle(thread, sum_of, b.length, b.anchors + unit * experts, m.slopes + unit * experts, warps);
  if (thread == 0) m.divergences[unit] = js;
  if (arrives_last(thread, m.arrivals + b.units(), static_cast<unsigned>(b.units()), &last) && thread < 32)
    write_loss(thread, m.divergences, b.units(), b.loss);
}

template <class T, exponential how>
__global__ void __launch_bounds__(threads, 3) gradient_sweep(const __grid_constant__ batch<T> b, const __grid_constant__ memory m) {
  const index_t block = static_cast<index_t>(gridDim.x) - 1 - static_cast<index_t>(blockIdx.x);
  const index_t unit = block / m.tiles, begin = block % m.tiles * tile_rows, first = unit * b.length + begin;
  const int count = static_cast<int>(b.length - begin < tile_rows ? b.length - begin : tile_rows);
  differentiate_rows<T, how>(static_cast<int>(threadIdx.x), count, m.slopes + unit * experts, 1 / static_cast<float>(b.rows()),
                             b.gradient + first * experts, [&](int row, int lane) {
                               part_of_row<T> part;
                               part.load(b.logits + (first + row) * experts, lane);
                               return part;
                             });
}

template <class T, exponential how> design two_sweeps_with(const batch<T>& b, const char* name) {
  return with_scratch<memory>(
      name,
      [=](sara::carver& c) {
        memory m;
        m.tiles = (b.length + tile_rows - 1) / tile_rows;
        m.counter_bytes = (b.units() + 1) * index_t{sizeof(unsigned)};
        m.arrivals = c.take<unsigned>(b.units() + 1);
        m.partials = c.take<float>(b.units() * m.tiles * experts);
        m.slopes = c.take<float>(b.units() * experts);
        m.divergences = c.take<double>(b.units());
        return m;
      },
      [=](cudaStream_t stream, const memory& m) {
        require(cudaMemsetAsync(m.arrivals, 0, static_cast<std::size_t>(m.counter_bytes), stream), "cudaMemsetAsync");
        launch(sum_sweep<T, how>, b.units() * m.tiles, threads, 0, 1, stream, b, m);
        launch(gradient_sweep<T, how>, b.units() * m.tiles, threads, 0, 1, stream, b, m);
      });
}

}   // namespace

template <class T> design two_sweeps(const batch<T>& b, bool by_instruction) {
  return by_instruction ? two_sweeps_with<T, exponential::library>(b, "two sweeps")
                        : two_sweeps_with<T, exponential::polynomial>(b, "two sweeps, exponentials by a polynomial");
}

template design two_sweeps(const batch<bf16>&, bool);
template design two_sweeps(const batch<float>&, bool);

}   // namespace benchmarks::laboratory
