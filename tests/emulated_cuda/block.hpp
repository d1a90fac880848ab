// One block: whose turn it is, the block's barrier, the warps' collectives, and the sentences for kernels that use them wrongly.
#pragma once

#include <bit>
#include <cstring>
#include <map>
#include <numeric>
#include <string>

#include "fibers.hpp"

// The kernels' static __shared__ memory, where it has a section of its own.
extern char shared_begin[] asm("__start_emulated_shared") __attribute__((weak, visibility("hidden")));
extern char shared_end[] asm("__stop_emulated_shared") __attribute__((weak, visibility("hidden")));

uint3 blockIdx;
dim3 blockDim, gridDim;

namespace emulated_cuda {
namespace {

constexpr int lanes = 32;
#define X(name) "__" #name,
constexpr const char* names[] = {EMULATED_CUDA_OPERATIONS(X)};
#undef X

// Where each thread was last seen at a barrier or collective.
struct place {
  operation kind;
  unsigned mask;
  const char* file;
  int line;
} places[most_threads];

struct group {   // lanes that wait for each other
  operation kind;
  unsigned mask, arrived;
};
struct warp {
  unsigned exist, returned, runnable, at_barrier;   // sets of lanes
  int groups;
  group group_of[lanes];
  std::uint64_t value[lanes], result[lanes];
  int operand[lanes], width[lanes];
  char order;   // of memory, by its __syncwarp
};
struct {
  int threads, live;
  unsigned runnable_warps;   // that have a runnable lane
  warp warps[most_threads / lanes];
  int waiting, first, count, result;   // at the block's barrier: how many, the first one, predicates that hold; what it returns
  unsigned phase;
  char order[2];   // of memory, by barriers of even and of odd phase
} block;
const std::function<void()>* thread_body = nullptr;
void* dynamic_memory = nullptr;

enum class order { unknown, forward, backward, random } schedule = order::unknown;   // unknown: as the environment says
std::uint64_t random_state = 0;
std::uint64_t random_number() {   // splitmix64
  std::uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
int choice(unsigned set) {
  if (schedule == order::forward) return std::countr_zero(set);
  if (schedule == order::backward) return 31 - std::countl_zero(set);
  const auto n = static_cast<std::uint64_t>(std::popcount(set));
  for (auto skipped = ((random_number() >> 32) * n) >> 32; skipped > 0; --skipped) set &= set - 1;
  return std::countr_zero(set);
}

std::string index_text(const uint3& i) { return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")"; }
std::string thread_text(int t) { return "thread " + index_text(fibers[t].index) + " of block " + index_text(blockIdx); }
std::string place_text(int t) {
  const place& p = places[t];
  char mask[32] = "";
  if (p.kind < operation::syncthreads) std::snprintf(mask, sizeof mask, " of mask %08x", p.mask);
  return std::string(names[static_cast<int>(p.kind)]) + mask + " (" + p.file + ":" + std::to_string(p.line) + ")";
}
[[noreturn]] void stop_here(const std::string& what) {
  stop("%s %s, at %s", thread_text(self).c_str(), what.c_str(), place_text(self).c_str());
}

[[noreturn]] void stop_deadlock() {
  std::map<std::string, std::string> waiting;   // where -> which threads
  for (int t = 0, last; t < block.threads; t = last + 1) {
    const auto returned = [](int i) { return (block.warps[i / lanes].returned >> (i % lanes) & 1u) != 0; };
    last = t;
    if (returned(t)) continue;
    while (last + 1 < block.threads && !returned(last + 1) && place_text(last + 1) == place_text(t)) ++last;
    waiting[place_text(t)] += " " + std::to_string(t) + (last > t ? "-" + std::to_string(last) : "");
  }
  std::string text;
  for (const auto& [where, threads] : waiting) text += "\n  threads" + threads + " wait at " + where;
  stop("deadlock in block %s: no thread can run; %d of %d have returned%s", index_text(blockIdx).c_str(), block.threads - block.live,
       block.threads, text.c_str());
}

void make_runnable(int w, unsigned set) {
  block.warps[w].runnable |= set;
  if (block.warps[w].runnable) block.runnable_warps |= 1u << w;
}

// Other threads run until it is this one's turn.
void take_turns() {
  if (block.runnable_warps == 0) {
    if (block.live > 0) stop_deadlock();
    return switch_to(host);
  }
  const int w = choice(block.runnable_warps), lane = choice(block.warps[w].runnable);
  block.warps[w].runnable &= ~(1u << lane);
  if (block.warps[w].runnable == 0) block.runnable_warps &= ~(1u << w);
  if (w * lanes + lane != self) switch_to(w * lanes + lane);
}

void open_barrier_if_complete() {
  if (block.waiting == 0 || block.waiting < block.live) return;
  const operation kind = places[block.first].kind;
  block.result = kind == operation::syncthreads_and  ? block.count == block.waiting
                 : kind == operation::syncthreads_or ? block.count > 0
                                                     : block.count;
  block.waiting = block.count = 0;
  ++block.phase;
  for (int w = 0; w * lanes < block.threads; ++w) make_runnable(w, std::exchange(block.warps[w].at_barrier, 0u));
}

char order_of_blocks;

void run_threads() {   // a fiber's whole life
  has_switched();
  for (;;) {
    acquire(order_of_blocks);
    (*thread_body)();
    warp& w = block.warps[self / lanes];
    const unsigned bit = 1u << (self % lanes);
    for (int i = 0; i < w.groups; ++i)
      if (w.group_of[i].mask & bit) {
        const int waits = self / lanes * lanes + std::countr_zero(w.group_of[i].arrived);
        stop("%s returned, but %s waits for it at %s", thread_text(self).c_str(), thread_text(waits).c_str(), place_text(waits).c_str());
      }
    w.returned |= bit;
    --block.live;
    open_barrier_if_complete();
    release(order_of_blocks);
    take_turns();   // until a block begins again
  }
}

void run_block(std::size_t dynamic_bytes) {
  if (shared_begin) std::memset(shared_begin, 0xff, static_cast<std::size_t>(shared_end - shared_begin));
  std::memset(dynamic_memory, 0xff, dynamic_bytes);
  block.live = block.threads;
  for (int w = 0; w * lanes < block.threads; ++w) {
    const int here = std::min(lanes, block.threads - w * lanes);
    block.warps[w].exist = ~0u >> (lanes - here);
    block.warps[w].returned = 0;
    make_runnable(w, block.warps[w].exist);
  }
  release(order_of_blocks);
  take_turns();
  acquire(order_of_blocks);
}

// Dynamic memory: `memory`, of that many bytes.
void run_grid(dim3 grid, dim3 threads, void* memory, std::size_t dynamic_bytes, const std::function<void()>& body) {
  if (const char* text = std::getenv("SARA_EMULATED_SCHEDULE"); schedule == order::unknown) set_schedule(text ? text : "forward");
  gridDim = grid;
  blockDim = threads;
  dynamic_memory = memory;
  thread_body = &body;
  block.threads = static_cast<int>(threads.x * threads.y * threads.z);
  for (int t = 0; t < block.threads; ++t) {
    const auto u = static_cast<unsigned>(t);
    fibers[t].index = {u % threads.x, u / threads.x % threads.y, u / threads.x / threads.y};
    ready(t, run_threads);
  }
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  // A random order of blocks: n -> step n + first, for a step that is prime to their number.
  std::uint64_t step = 1, first = 0;
  if (schedule == order::random) {
    first = random_number() % blocks;
    do step = random_number() >> 33;
    while (std::gcd(step, blocks) != 1);
  }
  for (std::uint64_t n = 0; n < blocks; ++n) {
    const std::uint64_t b = schedule == order::backward ? blocks - 1 - n : (n * (step % blocks) + first) % blocks;
    blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y), static_cast<unsigned>(b / grid.x / grid.y)};
    run_block(dynamic_bytes);
  }
}

// The lane that a lane reads in a shuffle, as PTX defines shfl.sync.
int source_lane(operation kind, int lane, int operand, int width) {
  const int segment = (lanes - width) & 31, first = lane & segment, last = first | (31 & ~segment), b = operand & 31;
  if (kind == operation::shfl_sync) return first | (b & ~segment);
  if (kind == operation::shfl_up_sync) return lane - b >= first ? lane - b : lane;
  const int j = kind == operation::shfl_down_sync ? lane + b : lane ^ b;
  return j <= last ? j : lane;
}

std::uint64_t combined(operation kind, std::uint64_t a, std::uint64_t b) {
  const auto less = [](std::uint64_t x, std::uint64_t y) { return static_cast<std::int64_t>(x) < static_cast<std::int64_t>(y); };
  switch (kind) {
    case operation::reduce_add_sync:
      return a + b;
    case operation::reduce_min_sync:
      return less(b, a) ? b : a;
    case operation::reduce_max_sync:
      return less(a, b) ? b : a;
    case operation::reduce_xor_sync:
      return a ^ b;
    case operation::reduce_and_sync:
    case operation::all_sync:
      return a & b;
    default:
      return a | b;   // ballot, whose values are single bits, any, reduce_or
  }
}

void finish(warp& w, const group& g) {
  std::uint64_t total = 0;
  for (unsigned rest = g.arrived; rest; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    if (g.kind > operation::shfl_xor_sync) {
      total = rest == g.arrived ? w.value[lane] : combined(g.kind, total, w.value[lane]);
      continue;
    }
    const int from = source_lane(g.kind, lane, w.operand[lane], w.width[lane]);
    if (!(g.arrived >> from & 1u)) {
      const int reader = static_cast<int>(&w - block.warps) * lanes + lane;
      stop("%s reads lane %d, which does not take part, at %s", thread_text(reader).c_str(), from, place_text(reader).c_str());
    }
    w.result[lane] = w.value[from];
  }
  for (unsigned rest = g.kind > operation::shfl_xor_sync ? g.arrived : 0; rest; rest &= rest - 1) w.result[std::countr_zero(rest)] = total;
}

void arrive(operation kind, unsigned mask, const char* file, int line) {
  if (self == host) stop("%s (%s:%d) was called outside of a kernel", names[static_cast<int>(kind)], file, line);
  places[self] = {kind, mask, file, line};
}

}   // namespace

std::uint64_t warp_collective(operation kind, unsigned mask, std::uint64_t value, int operand, int width, const char* file, int line) {
  arrive(kind, mask, file, line);
  const int number = self / lanes, lane = self % lanes;
  const unsigned bit = 1u << lane;
  warp& w = block.warps[number];
  if (!(mask & bit)) stop_here("is not in its own mask");
  if (mask & w.returned) stop_here("waits for lane " + std::to_string(std::countr_zero(mask & w.returned)) + ", which has returned");
  if (width < 1 || width > lanes || !std::has_single_bit(static_cast<unsigned>(width)))
    stop_here("gives a width of " + std::to_string(width) + ", which is no power of 2 up to 32");
  w.value[lane] = kind == operation::ballot_sync ? value << lane : value;
  w.operand[lane] = operand;
  w.width[lane] = width;

  group* mine = nullptr;
  for (int i = 0; i < w.groups; ++i) {
    group& other = w.group_of[i];
    if (other.kind == kind && other.mask == mask) {
      mine = &other;
    } else if ((other.mask & bit) && (other.arrived & mask)) {
      const int waits = number * lanes + std::countr_zero(other.arrived & mask);
      stop("collectives diverge: %s waits at %s, %s comes to %s", thread_text(waits).c_str(), place_text(waits).c_str(),
           thread_text(self).c_str(), place_text(self).c_str());
    }
  }
  if (!mine) {
    mine = &w.group_of[w.groups++];
    *mine = {kind, mask, 0};
  }
  mine->arrived |= bit;
  if (kind == operation::syncwarp) release(w.order);   // the others promise nothing about memory
  if (mine->arrived == (mask & w.exist)) {
    finish(w, *mine);
    make_runnable(number, mine->arrived);
    *mine = w.group_of[--w.groups];
  }
  take_turns();
  if (kind == operation::syncwarp) acquire(w.order);
  return w.result[lane];
}

int block_barrier(operation kind, int predicate, const char* file, int line) {
  arrive(kind, 0, file, line);
  if (block.waiting == 0) block.first = self;
  const place& first = places[block.first];
  if (first.kind != kind || first.line != line || (first.file != file && std::strcmp(first.file, file) != 0))
    stop("barriers diverge: %s waits at %s, %s comes to %s", thread_text(block.first).c_str(), place_text(block.first).c_str(),
         thread_text(self).c_str(), place_text(self).c_str());
  ++block.waiting;
  block.count += predicate != 0;
  block.warps[self / lanes].at_barrier |= 1u << (self % lanes);
  char& memory_order = block.order[block.phase & 1u];
  release(memory_order);
  open_barrier_if_complete();
  take_turns();
  acquire(memory_order);
  return block.result;
}

void* dynamic_shared() { return dynamic_memory; }

void trap(const char* file, int line) { stop("%s traps (%s:%d)", thread_text(self).c_str(), file, line); }

void set_schedule(const char* text) {
  char* end = nullptr;
  random_state = std::strtoull(text, &end, 10);
  if (!std::strcmp(text, "forward"))
    schedule = order::forward;
  else if (!std::strcmp(text, "backward"))
    schedule = order::backward;
  else if (*text && !*end)
    schedule = order::random;
  else
    stop("a schedule is 'forward', 'backward' or a number, not '%s'", text);
}

}   // namespace emulated_cuda
