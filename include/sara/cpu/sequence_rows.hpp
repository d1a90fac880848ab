// The rows of a sequence that have weight: chunks of them through the kernels of cpu/rows.hpp, for their weighted sum and for the
// gradient through them. Rows of weight 0 are passed over without being read.
#pragma once

#include "../core/workspace.hpp"
#include "rows.hpp"

namespace sara {
inline namespace SARA_ABI {

// The rows of one sequence, by their place in it.
template <class T> struct sequence_rows {
  T* data = nullptr;
  index_t stride = 0;   // elements from one token of the sequence to its next
  T* operator[](index_t i) const { return data + i * stride; }
};

// Memory of one worker, for rows of `columns` values.
template <class T, class G> struct row_scratch {
  using A = arithmetic_t<T>;
  index_t stride = 0;
  A* exponentials = nullptr;   // a chunk of rows
  A* ones = nullptr;           // what fills up a group: exponentials to read,
  T* blank = nullptr;          // logits to read,
  G* nowhere = nullptr;        // a row to write

  sequence_rows<A> rows() const { return {exponentials, stride}; }   // the chunk's

  void take(carver& memory, index_t columns) {
    stride = (columns + 15) / 16 * 16;
    exponentials = memory.take<A>(chunk_rows(columns) * stride);
    ones = memory.take<A>(stride);
    blank = memory.take<T>(stride);
    nowhere = memory.take<G>(stride);
    for (index_t e = 0; memory.carves() && e < stride; ++e) {
      ones[e] = A(1);
      store_value(blank[e], A(0));
      store_value(nowhere[e], A(0));
    }
  }
};

// The addresses of the first n rows.
template <class T> void addresses(const sequence_rows<T>& rows, int n, T** to) {
  for (int r = 0; r < n; ++r) to[r] = rows[r];
}

// A chunk of a sequence's rows that have weight, in order; filled up to a group with rows that count for nothing.
template <class T> struct row_chunk {
  using A = arithmetic_t<T>;

  int count = 0, filled = 0;
  A weight[most_chunk_rows];   // 0 for those that fill up

  // Moves `next` past the rows taken; calls skip(row) for each row of weight 0, which nobody reads.
  template <class Skip> void gather(index_t& next, index_t end, index_t most, const A* weights, index_t weight_step, const Skip& skip) {
    if (weights) {
      for (count = 0; next < end && count < most; ++next) {
        const A w = weights[next * weight_step];
        if (w != 0) {
          row_[count] = next;
          weight[count++] = w;
        } else {
          skip(next);
        }
      }
      are_neighbours_ = count == 0 || row_[count - 1] - row_[0] < count;
    } else {
      row_[0] = next;
      count = static_cast<int>(std::min(end - next, most));
      next += count;
      are_neighbours_ = true;
      std::fill_n(weight, most_chunk_rows, A(1));
    }
    filled = (count + rows_at_once - 1) / rows_at_once * rows_at_once;
    for (int r = count; r < filled; ++r) weight[r] = 0;
  }

  // Where the chunk's rows are among `rows`; those that fill up are all `filler`.
  template <class X> void find(const sequence_rows<X>& rows, std::type_identity_t<X>* filler, X** to) const {
    if (are_neighbours_)
      addresses({rows[row_[0]], rows.stride}, count, to);
    else
      for (int r = 0; r < count; ++r) to[r] = rows[row_[r]];
    for (int r = count; r < filled; ++r) to[r] = filler;
  }

  // Exponentials of the chunk's rows, to their rows of `to`; their sums, and their peaks where wanted.
  template <class G>
  void exponentiate(instruction_set isa, index_t columns, const sequence_rows<const T>& logits, A** to, A* sums, math::exp_row<A>* peaks,
                    const row_scratch<T, G>& scratch) const {
    const T* from[most_chunk_rows];
    find(logits, scratch.blank, from);
    run_kernel(isa, columns, exponentials_kernel<T>{from, to, sums, peaks, filled, columns});
  }

 private:
  bool are_neighbours_ = true;
  index_t row_[most_chunk_rows];   // the first alone, of neighbours
};

// What both sweeps know of the rows [begin, end) of a sequence.
template <class T> struct row_block {
  instruction_set isa;
  sequence_rows<const T> logits;
  const arithmetic_t<T>* weights = nullptr;   // of the sequence's tokens; absent: 1
  index_t weight_step = 1;
  double weight_scale = 1;   // power of two by which weights are multiplied while they are summed in A
  index_t begin = 0, end = 0, columns = 0;
};

// The weighted sum of a block's softmax rows to `total` [columns]. Leaves the exponentials of each row in `parked` where that is given.
template <class T, class G>
void sum_softmax_rows(const row_block<T>& block, const sequence_rows<arithmetic_t<T>>& parked, double* total,
                      const row_scratch<T, G>& scratch) {
  using A = arithmetic_t<T>;
  std::memset(total, 0, static_cast<std::size_t>(block.columns) * sizeof(double));
  const index_t most = chunk_rows(block.columns);
  row_chunk<T> chunk;
  for (index_t next = block.begin;
       chunk.gather(next, block.end, most, block.weights, block.weight_step, [](index_t) {}), chunk.count > 0;) {
    A *exponentials[most_chunk_rows], sums[most_chunk_rows];
    if (parked.data)
      chunk.find(parked, scratch.exponentials, exponentials);
    else
      addresses(scratch.rows(), chunk.filled, exponentials);
    chunk.exponentiate(block.isa, block.columns, block.logits, exponentials, sums, nullptr, scratch);
    for (int r = 0; block.weight_scale != 1 && r < chunk.count; ++r)
      chunk.weight[r] = static_cast<A>(static_cast<double>(chunk.weight[r]) * block.weight_scale);
    run_kernel(block.isa, block.columns, weighted_sum_kernel<A>{exponentials, chunk.weight, sums, chunk.filled, block.columns, total});
  }
  for (index_t e = 0; block.weight_scale != 1 && e < block.columns; ++e) total[e] /= block.weight_scale;
}

// The gradient of a block's rows: coefficient * weight * p (slope - sum of p slope). Takes the exponentials from `parked`, or
// computes them again from the logits.
template <class T, class G>
void differentiate_softmax_rows(const row_block<T>& block, const sequence_rows<const arithmetic_t<T>>& parked,
                                const arithmetic_t<T>* slopes, double coefficient, row_write how, const sequence_rows<G>& gradient,
                                const row_scratch<T, G>& scratch) {
  using A = arithmetic_t<T>;
  const A no_slope = 0;
  if (block.columns == 1) slopes = &no_slope;   // one expert has probability 1, and a gradient of exactly 0
  A large_mean = 0;                             // one and a half times what slopes differ by on the average, some 16 of them
  const index_t apart = (block.columns + 15) / 16;
  for (index_t e = apart; e < block.columns; e += apart) large_mean += std::abs(slopes[e] - slopes[e - apart]);
  large_mean *= A(1.5) / static_cast<A>(std::max<index_t>((block.columns - 1) / apart, 1));
  const index_t most = chunk_rows(block.columns, parked.data ? summed_at_once : written_at_once);
  const auto clear = [&](index_t row) {
    if (how != row_write::accumulate) clear_row(gradient[row], block.columns);
  };
  row_chunk<T> chunk;
  for (index_t next = block.begin; chunk.gather(next, block.end, most, block.weights, block.weight_step, clear), chunk.count > 0;) {
    const A* exponentials[most_chunk_rows];
    A factors[most_chunk_rows];
    G* to[most_chunk_rows];
    if (parked.data) {
      chunk.find(parked, scratch.ones, exponentials);
    } else {
      A *own[most_chunk_rows], ignored[most_chunk_rows];
      addresses(scratch.rows(), chunk.filled, own);
      chunk.exponentiate(block.isa, block.columns, block.logits, own, ignored, nullptr, scratch);
      std::copy_n(own, chunk.filled, exponentials);
    }
    chunk.find(gradient, scratch.nowhere, to);
    for (int r = 0; r < chunk.filled; ++r) factors[r] = static_cast<A>(coefficient * static_cast<double>(chunk.weight[r]));
    run_kernel(block.isa, block.columns,
               softmax_gradient_kernel<A, G>{exponentials, to, factors, chunk.filled, block.columns, slopes, large_mean, how});
  }
}

}   // namespace SARA_ABI
}   // namespace sara
