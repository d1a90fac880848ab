// Work cut into blocks of which none depends on another.
#pragma once

#include "executor.hpp"
#include "simd.hpp"

namespace sara {
inline namespace SARA_ABI {

// Calls work(block, worker) for every block, in shares. What was written past the caches is there for all when it returns.
template <class Work> void run_blocks(const cpu_executor& exec, int workers, index_t blocks, const Work& work) {
  block_shares shares(blocks, workers);
  const auto take = [&](int worker) {
    shares.take(worker, [&](index_t block) { work(block, worker); });
    finish_past_caches();
  };
  run_workers(exec, static_cast<int>(std::min<index_t>(workers, blocks)), take);
}

// Rows cut into blocks of some 16,000 values.
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

}   // namespace SARA_ABI
}   // namespace sara
