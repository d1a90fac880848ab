// cpu_executor: where and how the CPU's kernels run.
#pragma once

#include <algorithm>
#include <new>

#include "../core/workspace.hpp"
#include "instruction_set.hpp"
#include "threads.hpp"

namespace sara {

// A value; it owns nothing and touches no global setting. Calls on it have run when they return; results are the same bits on
// every run and for every number of threads. Calls may run at the same time on copies of it, if `pool` allows that and each has
// a scratch of its own.
struct cpu_executor {
  static constexpr bool runs_on_host = true;

  int threads = 0;          // at most so many, the caller's included; 0: as many as the process may run on (its affinity mask)
  parallel_for pool = {};   // who runs them: a sara::thread_pool, or any callable object (OpenMP, TBB, ...); absent: spawned in the call
  instruction_set isa = instruction_set::best;
  workspace scratch = {};   // of at least the `*_workspace_bytes` of the call; absent: one heap allocation in the call
};

inline namespace SARA_ABI {

inline int thread_limit(const cpu_executor& exec) { return exec.threads > 0 ? exec.threads : available_threads(); }

// The executor with its defaults filled in, once for a call: the affinity mask may change while it runs. Throws unless it can run here.
inline cpu_executor ready(const char* function, cpu_executor exec) {
  if (exec.threads < 0) fail(function, sentence("exec.threads must be at least 0, but is ") << exec.threads);
  if (!is_supported(exec.isa)) fail(function, sentence("exec.isa: this machine has no ") << name_of(exec.isa));
  exec.threads = thread_limit(exec);
  if (exec.isa == instruction_set::best) exec.isa = best_instruction_set();
  return exec;
}

// How many workers are worth their start for so many elements: a spawned thread costs some 20 us, one of a pool 5.
inline int worth_workers(const cpu_executor& exec, index_t elements) {
  const index_t worth = elements / (exec.pool ? 8192 : 32768) + 1;
  return static_cast<int>(std::min<index_t>(thread_limit(exec), worth));
}

// Calls work(worker) for each of `workers` workers, at the same time where the executor allows it.
template <class Work> void run_workers(const cpu_executor& exec, int workers, Work& work) {
  if (workers <= 1) return work(0);
  if (exec.pool) return exec.pool(workers, worker_task(work));
  spawn_threads(workers, worker_task(work));
}

// Calls work(block, worker) for every block, each by the first worker that is free.
template <class Work> void run_blocks(const cpu_executor& exec, int workers, index_t blocks, const Work& work) {
  std::atomic<index_t> next{0};
  auto take = [&](int worker) {
    for (index_t b; (b = next.fetch_add(1, std::memory_order_relaxed)) < blocks;) work(b, worker);
  };
  run_workers(exec, static_cast<int>(std::min<index_t>(workers, blocks)), take);
}

// Rows cut into blocks of some 16,000 values, for work in which no row depends on another.
struct row_blocks {
  index_t rows, length, count;

  row_blocks(index_t all_rows, index_t columns)
      : rows(all_rows), length(std::max<index_t>(16384 / columns, 4)), count((all_rows + length - 1) / length) {}
  index_t begin(index_t block) const { return block * length; }
  index_t end(index_t block) const { return std::min(rows, (block + 1) * length); }
};

// The scratch of each worker: an object whose take(memory, columns) carves it.
template <class Scratch> Scratch* take_scratch(carver& memory, int workers, index_t columns) {
  Scratch* const all = memory.take<Scratch>(workers);
  for (int w = 0; w < workers; ++w) {
    Scratch mine;
    mine.take(memory, columns);
    if (memory.carves()) all[w] = mine;
  }
  return all;
}

// The scratch of a call: the executor's, or the heap's until the call ends.
class scratch_memory {
 public:
  scratch_memory(const char* function, const cpu_executor& exec, std::size_t bytes) : memory_(exec.scratch) {
    if (memory_.data == nullptr) {
      memory_ = {::operator new(bytes), bytes};
      owned_ = memory_.data;
    } else if (memory_.bytes < bytes) {
      fail(function, sentence("exec.scratch must have at least ") << bytes << " bytes, but has " << memory_.bytes);
    }
  }
  ~scratch_memory() { ::operator delete(owned_); }
  scratch_memory(const scratch_memory&) = delete;
  scratch_memory& operator=(const scratch_memory&) = delete;

  carver carve() const { return carver(memory_); }

 private:
  workspace memory_;
  void* owned_ = nullptr;
};

}   // namespace SARA_ABI
}   // namespace sara
