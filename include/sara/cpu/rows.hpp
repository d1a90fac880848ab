// The SIMD rows of softmaxes: exponentials, weighted sums of softmax rows, and the gradient through them. They know no loss.
//
// A kernel works on the rows of a block of one sequence, four at a time, and passes over rows of weight 0 without reading them.
// It is run by run_kernel, so a row is never shorter than a vector: the last, partial vector of a row overlaps the one before it.
#pragma once

#include <utility>

#include "dispatch.hpp"
#include "simd.hpp"

namespace sara {
inline namespace SARA_ABI {

inline constexpr int rows_at_once = 4;
inline constexpr index_t rows_per_flush = 64;   // rows added up in arithmetic precision before they go to double

// How a row of `columns` values is cut into vectors: full ones, and a tail that overlaps the last of them.
template <class S>
struct row_cut {
  index_t full, tail_at;     // columns in full vectors; first column of the tail's vector
  bool tail;
  typename S::mask fresh;    // the tail's lanes that no full vector has

  SARA_INLINE explicit row_cut(index_t columns) : full(columns / S::lanes * S::lanes), tail_at(columns - S::lanes), tail(full < columns) {
    const auto repeated = static_cast<typename S::scalar>(full - tail_at);
    fresh = S::broadcast(repeated - typename S::scalar(0.5)) < lane_numbers<S>();
  }
  SARA_INLINE S only_fresh(const S& x) const { return select(fresh, x, S::broadcast(0)); }
};

// The rows of one sequence, by their place in it.
template <class T>
struct sequence_rows {
  T* data = nullptr;
  index_t stride = 0;        // elements from one token of the sequence to its next
  SARA_INLINE T* operator[](index_t i) const { return data + i * stride; }
};

// Memory of one worker, for rows of `columns` values.
template <class T, class G>
struct row_scratch {
  using A = arithmetic_t<T>;
  index_t stride = 0;
  A* exponentials = nullptr;   // rows_at_once rows
  A* sums = nullptr;           // one row, in vectors
  A* ones = nullptr;           // stands in for the missing rows of a group
  T* blank = nullptr;          // likewise: a row of zeros,
  G* nowhere = nullptr;        // and a row to write to

  template <class Carver>
  void take(Carver& carver, index_t columns) {
    stride = (columns + 31) / 16 * 16;   // a vector more than the row
    exponentials = carver.template take<A>(rows_at_once * stride);
    sums = carver.template take<A>(stride);
    ones = carver.template take<A>(stride);
    blank = carver.template take<T>(stride);
    nowhere = carver.template take<G>(stride);
    for (index_t i = 0; carver.carves() && i < stride; ++i) {
      ones[i] = A(1);
      store_value(blank[i], A(0));
    }
  }
};

// f(0), f(1), ... for the rows of a group, written out: their vectors then live in registers, whatever the optimisation level.
template <class F, int... r>
SARA_INLINE void written_out(const F& f, std::integer_sequence<int, r...>) {
  (f(std::integral_constant<int, r>{}), ...);
}
template <class F>
SARA_INLINE void each_row(const F& f) {
  written_out(f, std::make_integer_sequence<int, rows_at_once>{});
}

// What a softmax needs besides a row's exponentials.
template <class A>
struct row_sum {
  math::exp_row<A> peak;
  A sum;
};

// Exponentials of four rows to four rows (which may be the same), and their sums.
template <class S, class T, class A>
SARA_INLINE void exponentiate(const T* const (&rows)[rows_at_once], const row_cut<S>& cut, A* const (&to)[rows_at_once], row_sum<A> (&sums)[rows_at_once]) {
  S tail[rows_at_once], top[rows_at_once], sum[rows_at_once];
  each_row([&](auto r) __attribute__((always_inline)) {
    top[r] = tail[r] = load<S>(rows[r] + cut.tail_at);   // before `to` overwrites it
    sum[r] = S::broadcast(0);
  });
  for (index_t e = 0; e < cut.full; e += S::lanes)
    each_row([&](auto r) __attribute__((always_inline)) { top[r] = max(load<S>(rows[r] + e), top[r]); });
  each_row([&](auto r) __attribute__((always_inline)) { sums[r].peak = math::exp_row<A>(max_of_lanes(top[r])); });
  if (cut.tail)
    each_row([&](auto r) __attribute__((always_inline)) {
      tail[r] = math::exp_scaled(tail[r], sums[r].peak);
      sum[r] = cut.only_fresh(tail[r]);
    });
  each_row([&](auto r) __attribute__((always_inline)) {
    for (index_t e = 0; e < cut.full; e += S::lanes) {
      const S x = math::exp_scaled(load<S>(rows[r] + e), sums[r].peak);
      sum[r] = sum[r] + x;
      store(to[r] + e, x);
    }
  });
  each_row([&](auto r) __attribute__((always_inline)) {
    if (cut.tail) store(to[r] + cut.tail_at, tail[r]);
    sums[r].sum = sum_of_lanes(sum[r]);
  });
}

// The rows of a block that have weight, in order, up to four at a time.
template <class A>
struct row_group {
  index_t row[rows_at_once];
  A weight[rows_at_once];
  int count = 0;

  // Moves `next` past the rows taken; calls skip(row) for each row of weight 0.
  template <class Skip>
  SARA_INLINE void gather(index_t& next, index_t end, const A* weights, index_t weight_step, const Skip& skip) {
    count = 0;
    for (; next < end && count < rows_at_once; ++next) {
      const A w = weights ? weights[next * weight_step] : A(1);
      if (w != 0) {
        row[count] = next;
        weight[count++] = w;
      } else {
        skip(next);
      }
    }
  }
};

// Sum over a block's rows of weight times softmax, in double. Leaves the exponentials of each row in `parked` where that is
// given, for row_gradients.
template <class T, class G>
struct row_sums {
  using arithmetic = arithmetic_t<T>;

  sequence_rows<const T> logits;
  sequence_rows<arithmetic> parked;
  const arithmetic* weights = nullptr;   // of the sequence's tokens; absent: 1
  index_t weight_step = 1;
  index_t begin = 0, end = 0, columns = 0;
  double* partial = nullptr;             // [columns], written
  double* total = nullptr;               // [columns], `partial` is added to it where it is given
  row_scratch<T, G> scratch;

  template <int bytes>
  SARA_INLINE void run() const {
    using A = arithmetic;
    using S = simd<A, bytes>;
    const row_cut<S> cut(columns);
    const index_t width = cut.full + (cut.tail ? S::lanes : 0);
    std::memset(partial, 0, static_cast<std::size_t>(columns) * sizeof(double));
    for (index_t e = 0; e < width; e += S::lanes) store(scratch.sums + e, S::broadcast(0));

    index_t next = begin, rows = 0;
    row_group<A> group;
    for (;;) {
      group.gather(next, end, weights, weight_step, [](index_t) __attribute__((always_inline)) {});
      if (!group.count) break;
      const T* from[rows_at_once];
      A *to[rows_at_once], factor[rows_at_once];
      row_sum<A> sum[rows_at_once];
      each_row([&](auto r) __attribute__((always_inline)) {
        const bool there = r < group.count;
        from[r] = there ? logits[group.row[r]] : scratch.blank;
        to[r] = there && parked.data ? parked[group.row[r]] : scratch.exponentials + r * scratch.stride;
      });
      exponentiate<S>(from, cut, to, sum);
      each_row([&](auto r) __attribute__((always_inline)) { factor[r] = r < group.count ? group.weight[r] / sum[r].sum : A(0); });

      const auto add_rows = [&](index_t from_column, A* sums) __attribute__((always_inline)) {
        S x = load<S>(to[0] + from_column) * factor[0];
        x = mul_add(load<S>(to[1] + from_column), S::broadcast(factor[1]), x);
        x = mul_add(load<S>(to[2] + from_column), S::broadcast(factor[2]), x);
        x = mul_add(load<S>(to[3] + from_column), S::broadcast(factor[3]), x);
        store(sums, load<S>(sums) + x);
      };
      for (index_t e = 0; e < cut.full; e += S::lanes) add_rows(e, scratch.sums + e);
      if (cut.tail) add_rows(cut.tail_at, scratch.sums + cut.full);
      rows += rows_at_once;
      if (rows % rows_per_flush == 0) flush(cut);
    }
    if (rows % rows_per_flush != 0) flush(cut);
    if (total) add<bytes>(total, partial);
  }

 private:
  // Moves the sums from arithmetic precision to double.
  template <class S>
  SARA_INLINE void flush(const row_cut<S>& cut) const {
    using D = simd<double, S::lanes * 8 <= 64 ? S::lanes * 8 : 64>;
    const index_t repeated = cut.full - cut.tail_at;
    for (index_t e = 0; e < cut.full; e += D::lanes) store(partial + e, load<D>(partial + e) + load<D>(scratch.sums + e));
    if (cut.tail)
      for (index_t i = repeated; i < S::lanes; ++i) partial[cut.tail_at + i] += static_cast<double>(scratch.sums[cut.full + i]);
    for (index_t e = 0; e < cut.full + (cut.tail ? S::lanes : 0); e += S::lanes) store(scratch.sums + e, S::broadcast(0));
  }
  template <int bytes>
  SARA_INLINE void add(double* to, const double* from) const {
    using D = simd<double, bytes < 8 ? 8 : bytes>;
    index_t e = 0;
    for (; e + D::lanes <= columns; e += D::lanes) store(to + e, load<D>(to + e) + load<D>(from + e));
    for (; e < columns; ++e) to[e] += from[e];
  }
};

// Zeros to one row of any storage.
template <class G>
SARA_INLINE void clear_row(G* row, index_t columns) { std::memset(static_cast<void*>(row), 0, static_cast<std::size_t>(columns) * sizeof(G)); }

// The gradient through the softmax of a block's rows: coefficient * weight * p (slope - sum of p slope). Takes the exponentials from
// `parked`, or computes them again from the logits.
template <class T, class G>
struct row_gradients {
  using arithmetic = arithmetic_t<T>;

  sequence_rows<const T> logits;
  sequence_rows<const arithmetic> parked;
  sequence_rows<G> gradient;
  const arithmetic* slopes = nullptr;    // [columns]
  double coefficient = 0;
  const arithmetic* weights = nullptr;
  index_t weight_step = 1;
  index_t begin = 0, end = 0, columns = 0;
  gradient_mode mode = gradient_mode::overwrite;
  row_scratch<T, G> scratch;

  template <int bytes>
  SARA_INLINE void run() const {
    using A = arithmetic;
    using S = simd<A, bytes>;
    const row_cut<S> cut(columns);
    const auto clear = [this](index_t row) __attribute__((always_inline)) {
      if (mode == gradient_mode::overwrite) clear_row(gradient[row], columns);
    };
    index_t next = begin;
    row_group<A> group;
    for (;;) {
      group.gather(next, end, weights, weight_step, clear);
      if (!group.count) break;
      const A* from[rows_at_once];
      G* to[rows_at_once];
      A factor[rows_at_once];
      each_row([&](auto r) __attribute__((always_inline)) {
        const bool there = r < group.count;
        from[r] = there ? parked[group.row[r]] : scratch.ones;
        to[r] = there ? gradient[group.row[r]] : scratch.nowhere;
        factor[r] = there ? static_cast<A>(coefficient * static_cast<double>(group.weight[r])) : A(0);
      });
      if (!parked.data) {
        const T* rows[rows_at_once];
        A* own[rows_at_once];
        row_sum<A> ignored[rows_at_once];
        each_row([&](auto r) __attribute__((always_inline)) {
          rows[r] = r < group.count ? logits[group.row[r]] : scratch.blank;
          from[r] = own[r] = scratch.exponentials + r * scratch.stride;
        });
        exponentiate<S>(rows, cut, own, ignored);
      }
      differentiate<S>(from, cut, factor, to);
    }
  }

 private:
  template <class S>
  SARA_INLINE void differentiate(const arithmetic* const (&from)[rows_at_once], const row_cut<S>& cut, const arithmetic (&factor)[rows_at_once],
                                 G* const (&to)[rows_at_once]) const {
    using A = arithmetic;
    S sum[rows_at_once], dot[rows_at_once], tail[rows_at_once];
    const S tail_slope = load<S>(slopes + cut.tail_at);
    each_row([&](auto r) __attribute__((always_inline)) {
      tail[r] = load<S>(from[r] + cut.tail_at);   // before `to`, which may be the same row, overwrites it
      sum[r] = cut.tail ? cut.only_fresh(tail[r]) : S::broadcast(0);
      dot[r] = sum[r] * tail_slope;
    });
    for (index_t e = 0; e < cut.full; e += S::lanes) {
      const S slope = load<S>(slopes + e);
      each_row([&](auto r) __attribute__((always_inline)) {
        const S x = load<S>(from[r] + e);
        sum[r] = sum[r] + x;
        dot[r] = mul_add(x, slope, dot[r]);
      });
    }
    each_row([&](auto r) __attribute__((always_inline)) {
      const A whole = sum_of_lanes(sum[r]), mean = sum_of_lanes(dot[r]) / whole, f = factor[r] / whole;
      const S times = S::broadcast(f), less = S::broadcast(-f * mean);
      if (mode == gradient_mode::overwrite) {
        for (index_t e = 0; e < cut.full; e += S::lanes) store(to[r] + e, load<S>(from[r] + e) * mul_add(load<S>(slopes + e), times, less));
        if (cut.tail) store(to[r] + cut.tail_at, tail[r] * mul_add(tail_slope, times, less));
      } else {
        const S before = load<S>(to[r] + cut.tail_at);
        for (index_t e = 0; e < cut.full; e += S::lanes)
          store(to[r] + e, load<S>(to[r] + e) + load<S>(from[r] + e) * mul_add(load<S>(slopes + e), times, less));
        if (cut.tail) store(to[r] + cut.tail_at, before + tail[r] * mul_add(tail_slope, times, less));
      }
    });
  }
};

}  // inline namespace SARA_ABI
}  // namespace sara
