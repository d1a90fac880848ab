// Independent pieces of work on a pool's threads.
#pragma once

#include <sara/cpu/threads.hpp>

#include <atomic>
#include <exception>
#include <vector>

#include "../model/shape.hpp"

namespace sara_finetune {

// Calls work(i, worker) once for each i below count, in any order; worker < pool.size() tells the threads apart. If some throw, the one of
// the lowest i is thrown again when all have ended.
template <class Work> void for_each(sara::thread_pool& pool, index_t count, const Work& work) {
  std::atomic<index_t> next = 0;
  std::vector<std::exception_ptr> thrown(static_cast<std::size_t>(count));
  auto take = [&](int worker) {
    for (index_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      try {
        work(i, worker);
      } catch (...) {
        thrown[static_cast<std::size_t>(i)] = std::current_exception();
      }
    }
  };
  pool(pool.size(), sara::worker_task(take));
  for (const std::exception_ptr& each : thrown)
    if (each) std::rethrow_exception(each);
}

}   // namespace sara_finetune
