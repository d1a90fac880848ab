// Threads, barriers and collectives of the emulated device.
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <numeric>
#include <random>
#include <set>

#include "on_device.hpp"

namespace {

constexpr unsigned all_lanes = 0xffffffffu;

template <class T> __global__ void block_sum(const T* x, T* sum) {
  __shared__ T partial[32];
  const unsigned me = threadIdx.x, threads = blockDim.x;
  T mine = x[blockIdx.x * threads + me];
  for (int o = 16; o > 0; o /= 2) mine += __shfl_xor_sync(all_lanes, mine, o);
  if (me % 32 == 0) partial[me / 32] = mine;
  __syncthreads();
  if (me < 32) {
    mine = me < threads / 32 ? partial[me] : T{};
    for (unsigned o = 16; o > 0; o /= 2) mine += __shfl_down_sync(all_lanes, mine, o);
    if (me == 0) sum[blockIdx.x] = mine;
  }
}

// Thread i hands its number to thread i + distance, in shared memory.
template <bool synchronises> __global__ void neighbour(int* to, unsigned distance) {
  __shared__ int number[1024];
  number[threadIdx.x] = -1;
  __syncthreads();
  number[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (synchronises) __syncthreads();
  to[threadIdx.x] = number[(threadIdx.x + blockDim.x - distance) % blockDim.x];
}

template <bool synchronises> __global__ void neighbour_lane(int* to) {
  SARA_DYNAMIC_SHARED(int, number);
  number[threadIdx.x] = -1;
  __syncwarp();
  number[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (synchronises) __syncwarp();
  to[threadIdx.x] = number[threadIdx.x ^ 1u];
}

__global__ void indices(uint3* thread, uint3* block, dim3* shapes) {
  const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned i = b * blockDim.x * blockDim.y * blockDim.z + t;
  __syncthreads();
  thread[i] = threadIdx;
  block[i] = blockIdx;
  if (i == 0) shapes[0] = gridDim, shapes[1] = blockDim;
}

__global__ void ticket(unsigned* next, unsigned* block_of) { block_of[atomicAdd(next, 1u)] = blockIdx.x; }

}   // namespace

TEST_CASE("a block's sum, by shuffles and shared memory") {
  constexpr std::size_t blocks = 3;
  for (unsigned threads : {32u, 64u, 256u, 1024u}) {
    std::vector<double> x(blocks * threads);
    std::vector<unsigned long long> n(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) n[i] = (i * 7919 % 1000) << 33, x[i] = static_cast<double>(n[i]);
    const device_array<double> on_x(x);
    const device_array<unsigned long long> on_n(n);
    for_each_schedule([&] {
      const device_array<double> sum_x(blocks);
      const device_array<unsigned long long> sum_n(blocks);
      launch({blocks, threads}, block_sum<double>, on_x.data(), sum_x.data());
      launch({blocks, threads}, block_sum<unsigned long long>, on_n.data(), sum_n.data());
      for (std::size_t b = 0; b < blocks; ++b) {
        const auto begin = static_cast<std::ptrdiff_t>(b * threads), end = begin + static_cast<std::ptrdiff_t>(threads);
        CHECK(sum_x.read()[b] == std::accumulate(x.begin() + begin, x.begin() + end, 0.0));
        CHECK(sum_n.read()[b] == std::accumulate(n.begin() + begin, n.begin() + end, 0ull));
      }
    });
  }
}

TEST_CASE("a missing barrier shows as results that differ between schedules") {
  const auto results = [](const char* schedule, auto kernel, unsigned threads, auto... arguments) {
    emulated_cuda::set_schedule(schedule);
    const device_array<int> to(threads);
    launch({1, threads, threads * sizeof(int)}, kernel, to.data(), arguments...);
    emulated_cuda::set_schedule("forward");
    return to.read();
  };
  const auto differ = [&](auto... launched) {
    const std::vector<int> forward = results("forward", launched...), backward = results("backward", launched...);
    const bool at_random = results("1", launched...) != forward;
    CHECK(at_random == (forward != backward));
    return at_random;
  };
  for (unsigned distance : {1u, 32u, 63u}) CHECK(!differ(neighbour<true>, 96u, distance));
  CHECK(!differ(neighbour_lane<true>, 32u));
  if (under_tsan) {   // which sees it in any schedule
    CHECK(last_words([&] { results("forward", neighbour<false>, 96u, 1u); }).find("data race") != std::string::npos);
    CHECK(last_words([&] { results("forward", neighbour_lane<false>, 32u); }).find("data race") != std::string::npos);
    CHECK(last_words([&] { results("forward", neighbour<true>, 96u, 1u); }).empty());
  } else {
    for (unsigned distance : {1u, 32u, 63u}) CHECK(differ(neighbour<false>, 96u, distance));
    CHECK(differ(neighbour_lane<false>, 32u));
  }
}

TEST_CASE("the same schedule is the same run; blocks run in its order") {
  constexpr unsigned blocks = 100;
  const auto order = [](const char* schedule) {
    emulated_cuda::set_schedule(schedule);
    const device_array<unsigned> next(std::vector<unsigned>{0}), block_of(blocks);
    launch({blocks, 1}, ticket, next.data(), block_of.data());
    emulated_cuda::set_schedule("forward");
    return block_of.read();
  };
  std::vector<unsigned> expected(blocks), sorted;
  std::iota(expected.begin(), expected.end(), 0u);
  CHECK(order("forward") == expected);
  CHECK(order("5") == order("5"));
  CHECK(order("5") != order("6"));
  CHECK(order("5") != expected);
  sorted = order("5");
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == expected);
  std::reverse(expected.begin(), expected.end());
  CHECK(order("backward") == expected);
}

TEST_CASE("grids and blocks of three dimensions") {
  const dim3 grid(3, 2, 2), threads(5, 4, 3);
  const std::size_t n = 12 * 60;
  const device_array<uint3> thread(n), block(n);
  const device_array<dim3> shapes(2);
  launch({grid, threads}, indices, thread.data(), block.data(), shapes.data());
  const std::vector<uint3> t = thread.read(), b = block.read();
  for (unsigned i = 0; i < n; ++i) {
    CHECK(std::tie(t[i].x, t[i].y, t[i].z) == std::make_tuple(i % 5, i / 5 % 4, i / 20 % 3));
    CHECK(std::tie(b[i].x, b[i].y, b[i].z) == std::make_tuple(i / 60 % 3, i / 180 % 2, i / 360));
  }
  CHECK(shapes.read()[0].y == 2);
  CHECK(shapes.read()[1].x == 5);
}

namespace {

enum kind { idx, up, down, across };
template <class T> __global__ void shuffle(kind how, const T* value, const int* operand, int width, unsigned mask, T* result) {
  const unsigned me = threadIdx.x;
  if (!(mask >> me & 1u)) return;
  const T x = value[me];
  const int o = operand[me];
  if (how == idx) result[me] = __shfl_sync(mask, x, o, width);
  if (how == up) result[me] = __shfl_up_sync(mask, x, static_cast<unsigned>(o), width);
  if (how == down) result[me] = __shfl_down_sync(mask, x, static_cast<unsigned>(o), width);
  if (how == across) result[me] = __shfl_xor_sync(mask, x, o, width);
}

struct votes {
  unsigned ballot, add, least, greatest, bits_and, bits_or, bits_xor;
  int any, all, least_signed, greatest_signed, sum_signed;
};
// The even lanes and the odd lanes of every warp, each on their own.
__global__ void vote(const unsigned* x, votes* result) {
  const unsigned me = threadIdx.x, lane = me % 32, mask = lane % 2 ? 0xaaaaaaaau : 0x55555555u, mine = x[me];
  const int as_signed = static_cast<int>(mine);
  votes v{};
  if (lane % 2) __syncwarp(mask);   // here, the others elsewhere
  v.ballot = __ballot_sync(mask, mine % 3 == 0);
  v.any = __any_sync(mask, mine % 31 == 0);
  v.all = __all_sync(mask, mine % 31 != 0);
  v.add = __reduce_add_sync(mask, mine);
  v.least = __reduce_min_sync(mask, mine);
  v.greatest = __reduce_max_sync(mask, mine);
  v.bits_and = __reduce_and_sync(mask, mine | 0xffffff00u);
  v.bits_or = __reduce_or_sync(mask, mine & 0xffu);
  v.bits_xor = __reduce_xor_sync(mask, mine);
  v.least_signed = __reduce_min_sync(mask, as_signed);
  v.greatest_signed = __reduce_max_sync(mask, as_signed);
  v.sum_signed = __reduce_add_sync(mask, as_signed);
  result[me] = v;
}

}   // namespace

TEST_CASE("shuffles, of every width, as CUDA's manual has them") {
  std::mt19937 random(1);
  std::vector<double> value(32);
  std::iota(value.begin(), value.end(), 100.0);
  const device_array<double> values(value);
  for_each_schedule([&] {
    for (int width = 1; width <= 32; width *= 2)
      for (kind how : {idx, up, down, across}) {
        std::vector<int> operand(32, static_cast<int>(random() % 32));
        if (how == idx)
          for (int& o : operand) o = static_cast<int>(random() % 64) - 16;
        const device_array<int> operands(operand);
        const device_array<double> result(32);
        launch({1, 32}, shuffle<double>, how, values.data(), operands.data(), width, all_lanes, result.data());
        std::vector<double> expected(32);
        for (int lane = 0; lane < 32; ++lane) {
          const int o = operand[static_cast<std::size_t>(lane)], first = lane / width * width;
          int from = how == idx ? first + ((o % width) + width) % width : how == up ? lane - o : how == down ? lane + o : lane ^ o;
          if (how == up && from < first) from = lane;
          if (how != idx && how != up && from >= first + width) from = lane;   // of an earlier segment xor may read
          expected[static_cast<std::size_t>(lane)] = value[static_cast<std::size_t>(from)];
        }
        INFO("width " << width << ", kind " << how);
        CHECK(result.read() == expected);
      }
  });
}

TEST_CASE("votes and reductions, of several masks at once") {
  std::vector<unsigned> x(64);
  std::mt19937 random(2);
  for (unsigned& n : x) n = static_cast<unsigned>(random());
  const device_array<unsigned> on_x(x);
  for_each_schedule([&] {
    const device_array<votes> result(64);
    launch({1, 64}, vote, on_x.data(), result.data());
    const std::vector<votes> got = result.read();
    for (std::size_t t = 0; t < 64; ++t) {
      votes v{0, 0, ~0u, 0, ~0u, 0, 0, 0, 1, 2147483647, -2147483647 - 1, 0};
      for (std::size_t i = t / 32 * 32 + t % 2; i < t / 32 * 32 + 32; i += 2) {
        const int as_signed = static_cast<int>(x[i]);
        v.ballot |= (x[i] % 3 == 0 ? 1u : 0u) << (i % 32);
        v.any |= x[i] % 31 == 0;
        v.all &= x[i] % 31 != 0;
        v.add += x[i];
        v.least = std::min(v.least, x[i]);
        v.greatest = std::max(v.greatest, x[i]);
        v.bits_and &= x[i] | 0xffffff00u;
        v.bits_or |= x[i] & 0xffu;
        v.bits_xor ^= x[i];
        v.least_signed = std::min(v.least_signed, as_signed);
        v.greatest_signed = std::max(v.greatest_signed, as_signed);
      }
      v.sum_signed = static_cast<int>(v.add);
      CHECK(std::memcmp(&got[t], &v, sizeof v) == 0);
    }
  });
}

namespace {

__global__ void leave_early(int* count) {
  if (threadIdx.x % 3 == 0) return;
  const int here = __syncthreads_count(threadIdx.x % 2);
  const int any = __syncthreads_or(threadIdx.x == 4), all = __syncthreads_and(threadIdx.x != 4);
  if (threadIdx.x == 1) *count = any && !all ? here : -1;
}

template <int threads> __global__ void cub_calls(const int* x, int* exclusive, int* greatest_so_far, int* sums) {
  using scan = cub::BlockScan<int, threads>;
  using reduce = cub::BlockReduce<int, threads>;
  __shared__ typename scan::TempStorage for_scan;
  __shared__ typename reduce::TempStorage for_reduce;
  const auto greater = [](int a, int b) { return a < b ? b : a; };
  const int me = static_cast<int>(threadIdx.x);
  int out = 0, total = 0;
  scan(for_scan).ExclusiveSum(x[me], out, total);
  exclusive[me] = out;
  __syncthreads();
  scan(for_scan).InclusiveScan(x[me], out, greater);
  greatest_so_far[me] = out;
  __syncthreads();
  int greatest_before = 0, greatest = 0;
  scan(for_scan).ExclusiveScan(x[me], greatest_before, 1000, greater, greatest);
  const int sum = reduce(for_reduce).Sum(x[me]);
  __syncthreads();
  const int first_five = reduce(for_reduce).Sum(x[me], 5);
  __syncthreads();
  const int least = reduce(for_reduce).Reduce(x[me], [](int a, int b) { return a < b ? a : b; });
  if (me == 0) sums[0] = sum, sums[1] = first_five, sums[2] = least, sums[3] = total, sums[4] = greatest;
  if (me == threads - 1) sums[5] = greatest_before;
}

__global__ void read_unwritten(unsigned* shared_bits, unsigned* dynamic_bits) {
  __shared__ unsigned memory[4];
  SARA_DYNAMIC_SHARED(unsigned, dynamic);
  shared_bits[blockIdx.x] = memory[1];
  dynamic_bits[blockIdx.x] = dynamic[1];
  memory[1] = dynamic[1] = 7;
}

}   // namespace

TEST_CASE("threads that have returned are no longer waited for at the block's barrier") {
  for_each_schedule([] {
    const device_array<int> count(1);
    launch({1, 100}, leave_early, count.data());
    CHECK(count.read()[0] == 33);   // odd numbers below 100 that 3 does not divide
  });
}

TEST_CASE("CUB's scans and reductions") {
  constexpr int threads = 70;
  std::vector<int> x(threads), exclusive(threads), greatest_so_far(threads);
  for (int i = 0; i < threads; ++i) x[static_cast<std::size_t>(i)] = (i * 37 + 11) % 101 - 50;
  std::exclusive_scan(x.begin(), x.end(), exclusive.begin(), 0);
  std::inclusive_scan(x.begin(), x.end(), greatest_so_far.begin(), [](int a, int b) { return std::max(a, b); });
  const int sum = std::accumulate(x.begin(), x.end(), 0), first_five = std::accumulate(x.begin(), x.begin() + 5, 0);
  const int least = *std::min_element(x.begin(), x.end()), greatest = *std::max_element(x.begin(), x.end());
  const device_array<int> on_x(x);
  for_each_schedule([&] {
    const device_array<int> e(threads), g(threads), s(6);
    launch({1, threads}, cub_calls<threads>, on_x.data(), e.data(), g.data(), s.data());
    CHECK(e.read() == exclusive);
    CHECK(g.read() == greatest_so_far);
    CHECK(s.read() == std::vector<int>{sum, first_five, least, sum, greatest, 1000});
  });
}

TEST_CASE("shared memory that no thread of the block wrote is 0xff") {
  const device_array<unsigned> in_static(3), in_dynamic(3);
  launch({3, 1, 16}, read_unwritten, in_static.data(), in_dynamic.data());
  CHECK(in_dynamic.read() == std::vector<unsigned>(3, 0xffffffffu));
#if defined(__clang__)
  if (!under_asan) CHECK(in_static.read() == std::vector<unsigned>(3, 0xffffffffu));
#endif
}

namespace {

__global__ void half_a_barrier() {
  if (threadIdx.x < 32 || threadIdx.x == 63) __syncthreads();
  if (threadIdx.x == 62) __ballot_sync(3u << 30, 1);
}
__global__ void two_barriers() { threadIdx.x == 5 ? __syncthreads_or(1) : __syncthreads_and(1); }   // of one line
__global__ void barriers_of_two_branches() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void two_collectives() {
  if (threadIdx.x == 5)
    __any_sync(all_lanes, 1);
  else
    __all_sync(all_lanes, 1);
}
__global__ void two_masks() { __syncwarp(threadIdx.x < 16 ? all_lanes : 0xfffffff0u); }
__global__ void waits_for_who_returned(unsigned who) {
  if (threadIdx.x != who) __syncwarp();
}
__global__ void outside_of_its_mask() { __ballot_sync(0xffu, 1); }
__global__ void reads_who_does_not_take_part(unsigned mask) {
  if (mask >> threadIdx.x & 1u) __shfl_xor_sync(mask, 1, 8);
}
__global__ void reads_past_the_last_lane() { __shfl_down_sync(all_lanes, 1, 1); }
__global__ void bad_width() { __shfl_sync(all_lanes, 1, 0, 12); }
__global__ void calls_the_host() { cudaDeviceSynchronize(); }
__global__ void past_the_end(int* x, int n) { x[n] = 1; }
__global__ void traps() { __trap(); }

}   // namespace

TEST_CASE("what would hang or be undefined on a GPU stops the program with a sentence") {
  for_each_schedule([] {
    for (const char* words : {"deadlock in block (0,0,0): no thread can run; 30 of 64 have returned\n",
                              "\n  threads 0-31 63 wait at __syncthreads (", "\n  threads 62 wait at __ballot_sync of mask c0000000 ("})
      check_stops(words, {1, 64}, half_a_barrier);
    check_stops("barriers diverge: thread (", {1, 32}, two_barriers);
    check_stops("barriers diverge: thread (", {1, 64}, barriers_of_two_branches);
    check_stops("collectives diverge: thread (", {1, 32}, two_collectives);
    check_stops("collectives diverge: thread (", {1, 32}, two_masks);
    check_stops("thread (0,0,0) of block (0,0,0) reads lane 8, which does not take part, at __shfl_xor_sync of mask 000000ff (", {1, 32},
                reads_who_does_not_take_part, 0xffu);
    check_stops("thread (0,0,0) of block (0,0,0) gives a width of 12", {1, 1}, bad_width);
    check_stops("is not in its own mask, at __ballot_sync of mask 000000ff (", {1, 32}, outside_of_its_mask);
    check_stops("calls cudaDeviceSynchronize", {1, 1}, calls_the_host);
    check_stops("traps", {1, 1}, traps);
  });
  check_stops("waits for lane 0, which has returned, at __syncwarp of mask ffffffff (", {1, 32}, waits_for_who_returned, 0u);
  check_stops("thread (3,0,0) of block (0,0,0) returned, but thread (0,0,0) of block (0,0,0) waits for it at __syncwarp", {1, 32},
              waits_for_who_returned, 3u);
  check_stops("reads lane 20, which does not take part", {1, 20}, reads_past_the_last_lane);
  CHECK(last_words([] { __syncthreads(); }).find("was called outside of a kernel") != std::string::npos);
}

TEST_CASE("a write past the end of an allocation is found") {
  for (int i : {5, 5 + 63, -1}) {
    const std::string said = last_words([&] {
      const device_array<int> x(5);
      launch({1, 1}, past_the_end, x.data(), i);
      cudaDeviceSynchronize();
    });
    INFO(said);
    const std::string byte = i < 0 ? "byte -1 of" : "byte " + std::to_string(i * 4) + " of";
    CHECK(said.find(under_asan ? "AddressSanitizer" : byte + " an allocation of 20 bytes was written to") != std::string::npos);
  }
  CHECK(last_words([&] {
          const device_array<int> x(5);
          launch({1, 1}, past_the_end, x.data(), 4);
          cudaDeviceSynchronize();
        }).empty());
}
