// The SIMD rows of softmaxes: their exponentials, weighted sums of them, and the gradient through them. They know no loss.
//
// Rows are handled in chunks that stay in the first-level cache: a kernel leaves a chunk's exponentials in memory, another takes them
// from there. A kernel is run by run_kernel, so a row is never shorter than a vector: the last, partial vector of a row overlaps the
// one before it. Chunks are filled up to groups of four rows, whose arithmetic is interleaved.
#pragma once

#include <algorithm>
#include <utility>

#include "dispatch.hpp"
#include "simd.hpp"

namespace sara {
inline namespace SARA_ABI {

inline constexpr int rows_at_once = 4;
inline constexpr int most_chunk_rows = 64;

// Rows of `columns` values in a chunk: some 4,096 values.
inline index_t chunk_rows(index_t columns) {
  return std::clamp<index_t>(4096 / std::max<index_t>(columns, 1) / rows_at_once * rows_at_once, rows_at_once, most_chunk_rows);
}

// How a row of `columns` values is cut into vectors: full ones, and a tail that overlaps the last of them.
template <class S> struct row_cut {
  index_t full, tail_at;   // columns in full vectors; first column of the tail's vector
  bool tail;
  typename S::mask fresh;   // the tail's lanes that no full vector has

  SARA_INLINE explicit row_cut(index_t columns) : full(columns / S::lanes * S::lanes), tail_at(columns - S::lanes), tail(full < columns) {
    const auto repeated = static_cast<typename S::scalar>(full - tail_at);
    fresh = S::broadcast(repeated - typename S::scalar(0.5)) < lane_numbers<S>();
  }
  SARA_INLINE S only_fresh(const S& x) const { return select(fresh, x, S::broadcast(0)); }
};

// f(0), f(1), ... for the rows of a group, written out: their vectors then live in registers, whatever the optimisation level.
template <class F, int... r> SARA_INLINE void written_out(const F& f, std::integer_sequence<int, r...>) {
  (f(std::integral_constant<int, r>{}), ...);
}
template <class F> SARA_INLINE void each_row(const F& f) { written_out(f, std::make_integer_sequence<int, rows_at_once>{}); }

// What a softmax needs besides a row's exponentials.
template <class A> struct row_sum {
  math::exp_row<A> peak;
  A sum;
};

// A sum of non-negative vectors: some at a time, those added with what each addition lost. One long chain of additions would drift.
template <class S> struct blocked_sum {
  static constexpr index_t block = 8 * S::lanes;   // columns added up plainly

  S whole{}, lost{};

  SARA_INLINE void add(const S& part) {
    const S next = keep(whole + part);
    lost = lost + (part - keep(next - whole));
    whole = next;
  }
  SARA_INLINE typename S::scalar total() const { return sum_of_lanes(whole + lost); }
};

// Exponentials of four rows to four rows (which may be the same), and their sums.
template <class S, class T, class A>
SARA_INLINE void exponentiate(const T* const (&rows)[rows_at_once], const row_cut<S>& cut, A* const (&to)[rows_at_once],
                              row_sum<A> (&sums)[rows_at_once]) {
  S tail[rows_at_once], top[rows_at_once];
  each_row([&](auto r)
               __attribute__((always_inline)) { top[r] = tail[r] = load<S>(rows[r] + cut.tail_at); });   // before `to` overwrites it
  for (index_t e = 0; e < cut.full; e += S::lanes)
    each_row([&](auto r) __attribute__((always_inline)) { top[r] = max(load<S>(rows[r] + e), top[r]); });
  each_row([&](auto r) __attribute__((always_inline)) {
    const math::exp_row<A> peak(max_of_lanes(top[r]));
    blocked_sum<S> sum;
    if (cut.tail) {
      tail[r] = math::exp_scaled(tail[r], peak);
      sum.whole = cut.only_fresh(tail[r]);
    }
    for (index_t block = 0; block < cut.full; block += blocked_sum<S>::block) {
      S part = S::broadcast(0);
      for (index_t e = block; e < std::min(cut.full, block + blocked_sum<S>::block); e += S::lanes) {
        const S x = math::exp_scaled(load<S>(rows[r] + e), peak);
        part = part + x;
        store(to[r] + e, x);
      }
      sum.add(part);
    }
    if (cut.tail) store(to[r] + cut.tail_at, tail[r]);
    sums[r] = {peak, sum.total()};
  });
}

// Exponentials of `rows` rows, a multiple of rows_at_once.
template <class T> struct exponentials_kernel {
  using arithmetic = arithmetic_t<T>;

  const T* const* from;
  arithmetic* const* to;   // may be the same rows
  row_sum<arithmetic>* sums;
  int rows;
  index_t columns;

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<arithmetic, bytes>;
    const row_cut<S> cut(columns);
    for (int r = 0; r < rows; r += rows_at_once) {
      const T* const group[] = {from[r], from[r + 1], from[r + 2], from[r + 3]};
      arithmetic* const results[] = {to[r], to[r + 1], to[r + 2], to[r + 3]};
      row_sum<arithmetic> found[rows_at_once];
      exponentiate<S>(group, cut, results, found);
      for (int i = 0; i < rows_at_once; ++i) sums[r + i] = found[i];
    }
  }
};

// Adds the sum of factor times row to `total`, in double: a chunk is added up in arithmetic precision, chunks in double.
template <class A> struct weighted_sum_kernel {
  using arithmetic = A;

  A* const* from;
  const A* factors;
  int rows;   // a multiple of rows_at_once
  index_t columns;
  double* total;   // [columns]

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<A, bytes>;
    const row_cut<S> cut(columns);
    for (index_t e = 0; e < cut.full; e += S::lanes) add(total + e, sum_at<S>(e));
    if (cut.tail) add(total + cut.tail_at, cut.only_fresh(sum_at<S>(cut.tail_at)));
  }

 private:
  template <class S> SARA_INLINE S sum_at(index_t e) const {
    S sum = S::broadcast(0);
    for (int r = 0; r < rows; r += rows_at_once) {
      const S first = mul_add(load<S>(from[r] + e), S::broadcast(factors[r]), load<S>(from[r + 1] + e) * factors[r + 1]);
      const S second = mul_add(load<S>(from[r + 2] + e), S::broadcast(factors[r + 2]), load<S>(from[r + 3] + e) * factors[r + 3]);
      sum = sum + (first + second);
    }
    return sum;
  }
  template <int bytes> SARA_INLINE static void add(double* to, const simd<A, bytes>& x) {
    if constexpr (std::is_same_v<A, double>) {
      store(to, load<simd<double, bytes>>(to) + x);
    } else if constexpr (bytes == sizeof(A)) {
      *to += static_cast<double>(x.v[0]);
    } else {
      simd<A, bytes / 2> half[2];
      split(x, half[0], half[1]);
      for (int h = 0; h < 2; ++h) {
        using wide = simd<double, bytes>;
        double* const at = to + h * wide::lanes;
        store(at, load<wide>(at) + wide{__builtin_convertvector(half[h].v, typename wide::vector)});
      }
    }
  }
};

// factor p (slope - sum of p slope), p being the rows of exponentials over their sums.
template <class A, class G> struct softmax_gradient_kernel {
  using arithmetic = A;

  const A* const* from;
  G* const* to;   // may be the same rows
  const A* factors;
  int rows;   // a multiple of rows_at_once
  index_t columns;
  const A* slopes;   // [columns]
  gradient_mode mode;

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<A, bytes>;
    const row_cut<S> cut(columns);
    const S tail_slope = load<S>(slopes + cut.tail_at);
    for (int first = 0; first < rows; first += rows_at_once) {
      blocked_sum<S> sum[rows_at_once];
      S dot[rows_at_once], tail[rows_at_once];
      each_row([&](auto r) __attribute__((always_inline)) {
        tail[r] = load<S>(from[first + r] + cut.tail_at);   // before `to`, which may be the same row, overwrites it
        if (cut.tail) sum[r].whole = cut.only_fresh(tail[r]);
        dot[r] = sum[r].whole * tail_slope;
      });
      for (index_t block = 0; block < cut.full; block += blocked_sum<S>::block) {
        S part[rows_at_once], part_dot[rows_at_once];
        each_row([&](auto r) __attribute__((always_inline)) { part[r] = part_dot[r] = S::broadcast(0); });
        for (index_t e = block; e < std::min(cut.full, block + blocked_sum<S>::block); e += S::lanes) {
          const S slope = load<S>(slopes + e);
          each_row([&](auto r) __attribute__((always_inline)) {
            const S x = load<S>(from[first + r] + e);
            part[r] = part[r] + x;
            part_dot[r] = mul_add(x, slope, part_dot[r]);
          });
        }
        each_row([&](auto r) __attribute__((always_inline)) {
          sum[r].add(part[r]);
          dot[r] = dot[r] + part_dot[r];
        });
      }
      A times[rows_at_once], less[rows_at_once];
      each_row([&](auto r) __attribute__((always_inline)) {
        const A whole = sum[r].total();
        times[r] = factors[first + r] / whole;
        less[r] = -times[r] * (sum_of_lanes(dot[r]) / whole);
      });
      for (int r = 0; r < rows_at_once; ++r) {
        const A* const row = from[first + r];
        G* const out = to[first + r];
        const S t = S::broadcast(times[r]), l = S::broadcast(less[r]), last = cut.tail ? load<S>(row + cut.tail_at) : S::broadcast(0);
        if (mode == gradient_mode::overwrite) {
          for (index_t e = 0; e < cut.full; e += S::lanes) store(out + e, load<S>(row + e) * mul_add(load<S>(slopes + e), t, l));
          if (cut.tail) store(out + cut.tail_at, last * mul_add(tail_slope, t, l));
        } else {
          const S before = load<S>(out + cut.tail_at);
          for (index_t e = 0; e < cut.full; e += S::lanes)
            store(out + e, load<S>(out + e) + load<S>(row + e) * mul_add(load<S>(slopes + e), t, l));
          if (cut.tail) store(out + cut.tail_at, before + last * mul_add(tail_slope, t, l));
        }
      }
    }
  }
};

// Zeros to one row of any storage.
template <class G> void clear_row(G* row, index_t columns) {
  std::memset(static_cast<void*>(row), 0, static_cast<std::size_t>(columns) * sizeof(G));
}

}   // namespace SARA_ABI
}   // namespace sara
