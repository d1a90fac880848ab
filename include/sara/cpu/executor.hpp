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

// Blocks of work in contiguous shares. A worker takes those of its own share in order, and then what others have left of theirs: so it
// mostly goes on where it is in memory, as the caches' prefetchers can follow, and finds with it what the phase or call before left there.
// Blocks may be taken in any order; cpu/blocks.hpp has what runs them where none depends on another.
class block_shares {
 public:
  block_shares(index_t blocks, int workers) : blocks_(blocks), shares_(std::clamp<index_t>(std::min<index_t>(workers, blocks), 1, most)) {
    for (index_t share = 0; share < shares_; ++share) next_[share][0] = blocks_ * share / shares_;
  }

  // Calls work(block) for each block that worker number `worker` comes to before the others; from_end: each share's last block first.
  template <bool from_end = false, class Work> void take(int worker, const Work& work) {
    for (index_t i = 0; i < shares_; ++i) {
      const index_t share = (worker + i) % shares_, begin = blocks_ * share / shares_, end = blocks_ * (share + 1) / shares_;
      index_t* const next = next_[share];   // which is written only where there is something to be had
      for (index_t b; __atomic_load_n(next, __ATOMIC_RELAXED) < end && (b = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < end;)
        work(from_end ? begin + end - 1 - b : b);
    }
  }

 private:
  static constexpr index_t most = 32;

  index_t blocks_, shares_;
  alignas(64) index_t next_[most][8];   // of each share the first, alone on a line
};

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
