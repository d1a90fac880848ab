// One kernel, a cluster of thread blocks a sequence: its logits are read once, stay in the blocks' shared memory while the blocks add up
// each other's sums through it, and are differentiated from there. 4 B an element of bf16, for sequences that 16 blocks can hold.
#include "rows.cuh"

namespace benchmarks::laboratory {
namespace {

// A block's shared memory; the rows it holds lie behind.
struct alignas(16) block_memory {
  float of_groups[groups][experts];
  float sums[experts];   // of the block's rows: what the others read
  float slopes[experts];
  double warps[threads / 32];
  bool last;
};

// A block's place in its cluster. Where there are no clusters (older devices, for which `clusters` below is unfit, and a device emulated in
// software) the blocks of one are parts of a larger block, so that the kernel means the same.
struct place {
  int thread, rank, size;
  index_t cluster;
  char* shared;
  std::size_t shared_bytes;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  __device__ __forceinline__ explicit place(std::size_t bytes) : shared_bytes(bytes) {
    extern __shared__ __align__(16) char memory[];
    thread = static_cast<int>(threadIdx.x);
    rank = static_cast<int>(__clusterRelativeBlockRank());
    size = static_cast<int>(__clusterSizeInBlocks());
    cluster = static_cast<index_t>(blockIdx.x) / size;
    shared = memory;
  }
  __device__ __forceinline__ static void arrive() { __cluster_barrier_arrive(); }
  __device__ __forceinline__ static void wait() { __cluster_barrier_wait(); }
  template <class X> __device__ __forceinline__ const X* at(const X* mine, int other) const {
    return static_cast<const X*>(__cluster_map_shared_rank(mine, static_cast<unsigned>(other)));
  }
#else
  __device__ explicit place(std::size_t bytes) : shared_bytes(bytes) {
#if defined(SARA_DYNAMIC_SHARED)
    SARA_DYNAMIC_SHARED(char, memory);
#else
    extern __shared__ __align__(16) char memory[];
#endif
    thread = static_cast<int>(threadIdx.x) % threads;
    rank = static_cast<int>(threadIdx.x) / threads;
    size = static_cast<int>(blockDim.x) / threads;
    cluster = static_cast<index_t>(blockIdx.x);
    shared = memory + static_cast<std::size_t>(rank) * bytes;
  }
  __device__ static void arrive() {}
  __device__ static void wait() { __syncthreads(); }
  template <class X> __device__ const X* at(const X* mine, int other) const {
    return reinterpret_cast<const X*>(reinterpret_cast<const char*>(mine) + (other - rank) * static_cast<std::ptrdiff_t>(shared_bytes));
  }
#endif
};

struct memory {
  double* divergences;   // [units]
  unsigned* arrivals;    // of all blocks
};

template <class T>
__global__ void __launch_bounds__(threads, 3)
    solve(const __grid_constant__ batch<T> b, const __grid_constant__ memory m, int rows_of_block, std::size_t bytes) {
  const place here(bytes);
  block_memory& mine = *reinterpret_cast<block_memory*>(here.shared);
  T* const held = reinterpret_cast<T*>(here.shared + sizeof(block_memory));
  const index_t unit = here.cluster, begin = static_cast<index_t>(here.rank) * rows_of_block, first = unit * b.length + begin;
  const index_t left = b.length - begin;
  const int count = static_cast<int>(left < 0 ? 0 : left < rows_of_block ? left : rows_of_block);

  sum_rows<T, exponential::library>(
      here.thread, count, mine.of_groups,
      [&](int row, int lane) {
        part_of_row<T> part;
        part.load(b.logits + (first + row) * experts, lane);
        return part;
      },
      [&](int row, int lane, const part_of_row<T>& part) { part.store(held + row * experts, lane); });
  if (here.thread < experts) mine.sums[here.thread] = sum_over_groups(mine.of_groups, here.thread);
  place::arrive();
  place::wait();

  // Each block takes the whole step: all in the same order, so with the same bits.
  const auto sum_of = [&](int e) {
    double sum = 0;
    for (int r = 0; r < here.size; ++r) sum += static_cast<double>(here.at(mine.sums, r)[e]);
    return sum;
  };
  const double js = settle(here.thread, sum_of, b.length, b.anchors + unit * experts, mine.slopes, mine.warps);
  place::arrive();   // has read the others' sums
  if (here.rank == 0 && here.thread == 0) m.divergences[unit] = js;
  const unsigned blocks = static_cast<unsigned>(b.units()) * static_cast<unsigned>(here.size);
  if (arrives_last(here.thread, m.arrivals, blocks, &mine.last) && here.thread < 32)
    write_loss(here.thread, m.divergences, b.units(), b.loss);

  differentiate_rows<T, exponential::library>(here.thread, count, mine.slopes, 1 / static_cast<float>(b.rows()),
                                              b.gradient + first * experts, [&](int row, int lane) {
                                                part_of_row<T> part;
                                                part.load(held + row * experts, lane);
                                                return part;
                                              });
  place::wait();   // until no other reads this block's sums
}

template <class T>
void launch_clusters(const batch<T>& b, const memory& m, int size, int rows_of_block, std::size_t bytes, cudaStream_t stream) {
#if defined(__NVCC__)
  launch(solve<T>, b.units() * size, threads, bytes, size, stream, b, m, rows_of_block, bytes);
#else
  launch(solve<T>, b.units(), threads * size, bytes * static_cast<std::size_t>(size), 1, stream, b, m, rows_of_block, bytes);
#endif
}

// Clusters of so many blocks that the device can hold at once, each of that much shared memory; 0: none.
template <class T> int clusters_at_once([[maybe_unused]] int size, [[maybe_unused]] std::size_t bytes) {
#if defined(__NVCC__)
  if (device_attribute(cudaDevAttrComputeCapabilityMajor) < 9) return 0;
  require(cudaFuncSetAttribute(solve<T>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), "allowing clusters of 16 blocks");
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(size);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(size));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int count = 0;
  if (cudaOccupancyMaxActiveClusters(&count, solve<T>, &config) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());   // an answer, not a failure
    return 0;
  }
  return count;
#else
  return size <= 4;
#endif
}

}   // namespace

template <class T> design clusters(const batch<T>& b, int blocks_a_multiprocessor) {
  std::string name = "clusters, logits in shared memory, " + std::to_string(blocks_a_multiprocessor) + " block" +
                     (blocks_a_multiprocessor == 1 ? "" : "s") + " a multiprocessor";
  // The smallest cluster whose blocks fit: 1 KiB of each is the system's.
  const index_t most = std::min(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
                                device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / blocks_a_multiprocessor - 1024);
  for (int size = 1; size <= 16; size *= 2) {
    const int rows = static_cast<int>((b.length + size - 1) / size);
    const std::size_t bytes = sizeof(block_memory) + static_cast<std::size_t>(rows) * experts * sizeof(T);
    if (static_cast<index_t>(bytes) > most) continue;
    const auto all = static_cast<int>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
    require(cudaFuncSetAttribute(solve<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, all), "asking for shared memory");
    require(cudaFuncSetAttribute(solve<T>, cudaFuncAttributePreferredSharedMemoryCarveout, 100), "asking for shared memory");
    const int at_once = clusters_at_once<T>(size, bytes);
    if (at_once == 0) return {.name = name, .unfit = "this device holds no cluster of " + std::to_string(size) + " such blocks"};
    name += " (" + std::to_string(size) + " a cluster, " + std::to_string(at_once) + " clusters at once)";
    return with_scratch<memory>(
        name,
        [=](sara::carver& c) {
          memory m;
          m.arrivals = c.take<unsigned>(1);
          m.divergences = c.take<double>(b.units());
          return m;
        },
        [=](cudaStream_t stream, const memory& m) {
          require(cudaMemsetAsync(m.arrivals, 0, sizeof(unsigned), stream), "cudaMemsetAsync");
          launch_clusters(b, m, size, rows, bytes, stream);
        });
  }
  return {.name = name, .unfit = "does not fit: 16 blocks cannot hold a sequence"};
}

template design clusters(const batch<bf16>&, int);
template design clusters(const batch<float>&, int);

}   // namespace benchmarks::laboratory
