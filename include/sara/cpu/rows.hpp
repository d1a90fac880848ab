// The SIMD rows of softmaxes: their exponentials, weighted sums of them, and the gradient through them. They know no loss.
//
// Rows are handled in chunks that stay in the first-level cache: a kernel leaves a chunk's exponentials in memory, another takes them
// from there. A kernel is run by run_kernel, so a row is never shorter than a vector: the last, partial vector of a row overlaps the
// one before it. Chunks are filled up to groups of four rows, whose arithmetic is interleaved.
#pragma once

#include <algorithm>

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

// Asks for the cache line some way on, of what is read or (also) written from here on: rows mostly lie one after another. A hint, which
// may name memory that is not ours.
template <int bytes, bool written> SARA_INLINE void prefetch_ahead(const void* from) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(from) + bytes), written);
}

template <class F> SARA_INLINE void each_row(const F& f) { written_out<rows_at_once>(f); }   // of a group

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
  SARA_INLINE S total() const { return whole + lost; }   // to be added over the lanes
};

// Exponentials of `rows` rows, a multiple of rows_at_once, and their sums.
template <class T> struct exponentials_kernel {
  using arithmetic = arithmetic_t<T>;
  using A = arithmetic;

  const T* const* from;
  A* const* to;   // may be the same rows
  row_sum<A>* sums;
  int rows;
  index_t columns;
  math::usual_exp_row<A> usual = {};

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<A, bytes>;
    const row_cut<S> cut(columns);
    // As if every row were usual; but what is overwritten could not be read again.
    const math::usual_exp_row<A> row = usual;
    const auto exp_usual = [&](auto& z) __attribute__((always_inline)) { math::exp_usual(z, row); };
    for (int first = 0; first < rows; first += rows_at_once) {
      S total[rows_at_once], tail[rows_at_once] = {};
      if (cut.tail) {
        each_row([&](auto r) __attribute__((always_inline)) { tail[r] = load<S>(from[first + r] + cut.tail_at); });
        exp_usual(tail);
      }
      for (int r = 0; r < rows_at_once; ++r)
        total[r] = is_in_place(first + r) ? S::broadcast(0) : exponentiate<4>(from[first + r], cut, tail[r], to[first + r], exp_usual);
      const auto group = sums_of_lanes(total);
      for (int r = 0; r < rows_at_once; ++r) sums[first + r] = {math::exp_row<A>::usual(), group.v[r]};
    }
    for (int r = 0; r < rows; ++r) {
      if (row.was_usual(sums[r].sum, static_cast<A>(columns))) continue;
      S tail = load<S>(from[r] + cut.tail_at), top = tail;
      for (index_t e = 0; e < cut.full; e += S::lanes) top = max(load<S>(from[r] + e), top);
      const math::exp_row<A> peak(max_of_lanes(top));
      const auto exp_scaled = [&](auto& z) __attribute__((always_inline)) { z[0] = math::exp_scaled(z[0], peak); };
      tail = math::exp_scaled(tail, peak);
      sums[r] = {peak, sum_of_lanes(exponentiate<1>(from[r], cut, tail, to[r], exp_scaled))};
    }
  }

 private:
  SARA_INLINE bool is_in_place(int r) const { return static_cast<const void*>(from[r]) == to[r]; }

  // Exponentials of one row, n vectors at a time, and their sum over the vectors. Those of the tail's vector are given: `out`, which may
  // be the same row, would have overwritten what they are of.
  template <int n, class S, class Exp>
  SARA_INLINE static S exponentiate(const T* row, const row_cut<S>& cut, const S& tail, A* out, const Exp& exp) {
    blocked_sum<S> sum;
    if (cut.tail) sum.whole = cut.only_fresh(tail);
    for (index_t block = 0; block < cut.full; block += blocked_sum<S>::block) {
      const index_t end = std::min(cut.full, block + blocked_sum<S>::block);
      S part = S::broadcast(0);
      index_t e = block;
      for (; e + n * S::lanes <= end; e += n * S::lanes) exponentiate_some<n>(row + e, out + e, exp, part);
      for (; e < end; e += S::lanes) exponentiate_some<1>(row + e, out + e, exp, part);
      sum.add(part);
    }
    if (cut.tail) store(out + cut.tail_at, tail);
    return sum.total();
  }
  template <int n, class S, class Exp> SARA_INLINE static void exponentiate_some(const T* row, A* out, const Exp& exp, S& part) {
    S x[n];
    written_out<n>([&](auto i) __attribute__((always_inline)) {
      prefetch_ahead<2048, false>(row + i * S::lanes);
      prefetch_ahead<2048, true>(out + i * S::lanes);
      x[i] = load<S>(row + i * S::lanes);
    });
    exp(x);
    written_out<n>([&](auto i) __attribute__((always_inline)) {
      part = part + x[i];
      store(out + i * S::lanes, x[i]);
    });
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
            prefetch_ahead<8192, true>(to[first + r] + e);
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
      S whole[rows_at_once];
      each_row([&](auto r) __attribute__((always_inline)) { whole[r] = sum[r].total(); });
      using group = simd<A, rows_at_once* static_cast<int>(sizeof(A))>;   // a lane for each row
      const group sums = sums_of_lanes(whole), times = load<group>(factors + first) / sums, less = -times * (sums_of_lanes(dot) / sums);
      S t[rows_at_once], l[rows_at_once];
      const A* row[rows_at_once];
      G* out[rows_at_once];
      each_row([&](auto r) __attribute__((always_inline)) {
        t[r] = S::broadcast(times.v[decltype(r)::value]);
        l[r] = S::broadcast(less.v[decltype(r)::value]);
        row[r] = from[first + r];
        out[r] = to[first + r];
      });
      if (mode == gradient_mode::overwrite) {
        for (index_t e = 0; e < cut.full; e += S::lanes) {
          const S slope = load<S>(slopes + e);
          each_row([&](auto r) __attribute__((always_inline)) { store(out[r] + e, load<S>(row[r] + e) * mul_add(slope, t[r], l[r])); });
        }
        if (cut.tail)
          each_row([&](auto r) __attribute__((always_inline)) { store(out[r] + cut.tail_at, tail[r] * mul_add(tail_slope, t[r], l[r])); });
      } else {
        S before[rows_at_once];
        each_row([&](auto r) __attribute__((always_inline)) { before[r] = load<S>(out[r] + cut.tail_at); });
        for (index_t e = 0; e < cut.full; e += S::lanes) {
          const S slope = load<S>(slopes + e);
          each_row([&](auto r) __attribute__((always_inline)) {
            store(out[r] + e, load<S>(out[r] + e) + load<S>(row[r] + e) * mul_add(slope, t[r], l[r]));
          });
        }
        if (cut.tail)
          each_row([&](auto r) __attribute__((always_inline)) {
            store(out[r] + cut.tail_at, before[r] + tail[r] * mul_add(tail_slope, t[r], l[r]));
          });
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
