// Threads for one call: of its own, of a pool that the user owns, or of the user's own parallel-for.
#pragma once

// Version 14 of clang-format does not know requires-clauses.
// clang-format off

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <type_traits>

#include "../core/errors.hpp"

namespace sara {

class worker_task;
class thread_pool;

inline namespace SARA_ABI {

template <class F> void call_with_worker(void* object, int worker) { (*static_cast<F*>(object))(worker); }
template <class F> void call_with_task(void* object, int workers, const worker_task& task) { (*static_cast<F*>(object))(workers, task); }

}  // inline namespace SARA_ABI

// What a worker runs: called with its number. Non-owning. It must not throw.
class worker_task {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, worker_task> && std::is_invocable_v<F&, int>)
  SARA_HOST_INLINE explicit worker_task(F& f) : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))), call_(call_with_worker<F>) {}

  SARA_HOST_INLINE void operator()(int worker) const noexcept { call_(object_, worker); }

 private:
  void* object_;
  void (*call_)(void*, int);
};

// Runs task(0) .. task(workers - 1), each once, and returns when all have returned. Non-owning: made from a callable object
// f(int workers, sara::worker_task task), or from a sara::thread_pool, which must outlive it. The calls may run one after the
// other and in any order: the library's tasks never wait for one that has not begun.
class parallel_for {
 public:
  parallel_for() = default;
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, parallel_for> && std::is_object_v<F> && std::is_invocable_v<F&, int, worker_task>)
  SARA_HOST_INLINE parallel_for(F& f) : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))), call_(call_with_task<F>) {}

  SARA_HOST_INLINE explicit operator bool() const { return call_ != nullptr; }
  SARA_HOST_INLINE void operator()(int workers, worker_task task) const { call_(object_, workers, task); }

 private:
  void* object_ = nullptr;
  void (*call_)(void*, int, const worker_task&) = nullptr;
};

inline namespace SARA_ABI {

// As many threads as this process may run on.
inline int available_threads() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n ? static_cast<int>(n) : 1;
}

// What a spawned thread does. A type of this namespace, so that what std::thread makes of it is of these flags too.
struct spawned_worker {
  worker_task task;
  int number;
  void operator()() const { task(number); }
};

// The default: a thread for each worker but the caller's own, who does the work of those that cannot be made. Not a pool, whose waiting
// would leave code of the standard library, made with the object's flags, in every object.
inline void spawn_threads(int workers, worker_task task) {
  std::thread* const threads = new std::thread[static_cast<std::size_t>(workers)];
  int made = 1;
#if defined(__cpp_exceptions)
  try {
#endif
    for (; made < workers; ++made) threads[made] = std::thread(spawned_worker{task, made});
#if defined(__cpp_exceptions)
  } catch (...) {
  }
#endif
  task(0);
  for (int w = 1; w < workers; ++w) w < made ? threads[w].join() : task(w);
  delete[] threads;
}

// What each of a pool's threads does until the pool goes.
struct pool_worker {
  thread_pool* pool;
  int number;
  void operator()() const;
};

// A thread of a pool, woken by itself: a call that needs few of many leaves the others asleep. Its share is run by who claims it first, it
// or the caller: no call on a pool waits for a thread that has not got to run.
struct alignas(64) pool_thread {
  std::atomic<unsigned> offers{0};   // odd while a share waits to be claimed
  std::thread thread;

  // The offer that was seen, and no later one.
  bool claim(unsigned offer) { return offer % 2 == 1 && offers.compare_exchange_strong(offer, offer + 1, std::memory_order_acq_rel); }
};

// Waits until `value` is no longer `old`: a short spin, then the kernel.
template <class A, class V> void wait_while(A& value, V old) {
  // Some 30 to 100 us on recent x86: what threads may end apart in a call, and a wake-up costs on a virtual machine.
  for (int spins = 0; spins < 2000; ++spins) {
    if (value.load(std::memory_order_acquire) != old) return;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // inline namespace SARA_ABI

// Threads that stay between calls. A call wakes as many as it has workers; they spin for some tens of microseconds after it before they
// sleep. The user owns the pool, which must outlive the executors made from it. One call at a time: a second one waits for the first.
class thread_pool {
 public:
  // `threads` workers, the caller's thread being one of them; 0: as many as this process may run on. The caller does the work of threads
  // that cannot be made.
  SARA_HOST_INLINE explicit thread_pool(int threads = 0) : size_(threads > 0 ? threads : available_threads()) {
    if (threads < 0) fail("thread_pool", sentence("threads must be at least 0, but is ") << threads);
    threads_ = new pool_thread[static_cast<std::size_t>(size_)];
#if defined(__cpp_exceptions)
    try {
#endif
      for (int w = 1; w < size_; ++w) threads_[w].thread = std::thread(pool_worker{this, w});
#if defined(__cpp_exceptions)
    } catch (...) {
    }
#endif
  }
  SARA_HOST_INLINE ~thread_pool() {
    stop_.store(true, std::memory_order_relaxed);
    offer_shares(size_);
    for (int w = 1; w < size_; ++w)
      if (threads_[w].thread.joinable()) threads_[w].thread.join();
    delete[] threads_;
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  SARA_HOST_INLINE int size() const { return size_; }

  SARA_HOST_INLINE void operator()(int workers, worker_task task) {
    while (busy_.exchange(true, std::memory_order_acquire)) busy_.wait(true, std::memory_order_relaxed);
    task_ = &task;
    workers_ = workers;
    const int used = std::clamp(workers, 1, size_);
    pending_.store(used, std::memory_order_relaxed);
    offer_shares(used);
    run_share(0);
    for (int w = 1; w < used; ++w)
      if (threads_[w].claim(threads_[w].offers.load(std::memory_order_acquire))) run_share(w);
    for (int left; (left = pending_.load(std::memory_order_acquire)) != 0;) wait_while(pending_, left);
    busy_.store(false, std::memory_order_release);
    busy_.notify_one();
  }

 private:
  friend struct SARA_ABI::pool_worker;

  SARA_HOST_INLINE void offer_shares(int threads) {
    for (int w = 1; w < threads; ++w) {
      threads_[w].offers.fetch_add(1, std::memory_order_release);
      threads_[w].offers.notify_one();
    }
  }
  SARA_HOST_INLINE void run_share(int w) {
    for (int i = w; i < workers_; i += size_) (*task_)(i);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }

  int size_, workers_ = 0;
  pool_thread* threads_ = nullptr;
  const worker_task* task_ = nullptr;
  std::atomic<int> pending_{0};
  std::atomic<bool> stop_{false}, busy_{false};
};

inline namespace SARA_ABI {

inline void pool_worker::operator()() const {
  for (pool_thread& self = pool->threads_[number];;) {
    const unsigned offer = self.offers.load(std::memory_order_acquire);
    if (offer % 2 == 0) wait_while(self.offers, offer);
    else if (pool->stop_.load(std::memory_order_relaxed)) return;
    else if (self.claim(offer)) pool->run_share(number);
  }
}

}  // inline namespace SARA_ABI
}  // namespace sara
