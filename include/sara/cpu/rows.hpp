// The SIMD rows of softmaxes: their exponentials, weighted sums of them, and the gradient through them. They know no loss.
//
// Rows are handled in chunks that stay in the first-level cache: a kernel leaves a chunk's exponentials in memory, another takes them
// from there. A kernel is run by run_kernel, so a row is never shorter than a vector: the last, partial vector of a row overlaps the
// one before it. Chunks are filled up to groups of four rows, whose arithmetic is interleaved.
#pragma once

#include "dispatch.hpp"
#include "row_writer.hpp"

namespace sara {
inline namespace SARA_ABI {

inline constexpr int rows_at_once = 4, most_chunk_rows = 64;

// Values in a chunk of rows that are summed; and of rows that are written back: fewer, so that memory reads and writes at once.
inline constexpr index_t summed_at_once = 4096, written_at_once = 1024;

// Rows of `columns` values in a chunk of some `values`.
inline index_t chunk_rows(index_t columns, index_t values = summed_at_once) {
  return std::clamp<index_t>(values / std::max<index_t>(columns, 1) / rows_at_once * rows_at_once, rows_at_once, most_chunk_rows);
}

// Asks for what lies so many bytes on, where rows mostly go on, into the cache of that level (3: the first, 2: the second). A hint, which
// may name memory that is not ours. How far, and into which: as it was quickest on Zen 5.
template <int bytes, int level> SARA_INLINE void prefetch_ahead(const void* from) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(from) + bytes), 0, level);
}

template <class F> SARA_INLINE void each_row(const F& f) { written_out<rows_at_once>(f); }   // of a group

// A sum of non-negative vectors: some at a time, those added with what each addition lost. One long chain of additions would drift.
template <class S> struct blocked_sum {
  static constexpr index_t block = 8 * S::lanes;   // columns added up plainly

  S whole{}, lost{};

  SARA_INLINE void add(const S& part) {
    const S next = keep(whole + part);
    lost.v += (part - keep(next - whole)).v;
    whole.v = next.v;   // a vector: of a struct GCC would copy some through general registers
  }
  SARA_INLINE S total() const { return whole + lost; }   // to be added over the lanes
  SARA_INLINE blocked_sum only_fresh(const row_cut<S>& cut) const { return {cut.only_fresh(whole), cut.only_fresh(lost)}; }
};

// Adds the full columns of n rows to `sum`, by add(begin, end, sum): plainly if they fit one block, else block by block.
template <int n, class S, class Add> SARA_INLINE void add_in_blocks(const row_cut<S>& cut, const Add& add, S (&sum)[n]) {
  constexpr index_t block = blocked_sum<S>::block;
  if (cut.full <= block) return add(0, cut.full, sum);
  blocked_sum<S> whole[n];
  written_out<n>([&](auto r) __attribute__((always_inline)) { whole[r].whole = sum[r]; });
  for (index_t begin = 0; begin < cut.full; begin += block) {
    S part[n] = {};
    add(begin, std::min(cut.full, begin + block), part);
    written_out<n>([&](auto r) __attribute__((always_inline)) { whole[r].add(part[r]); });
  }
  written_out<n>([&](auto r) __attribute__((always_inline)) { sum[r] = whole[r].total(); });
}

// A lane for each row of a group.
template <class A> using lane_a_row = simd<A, rows_at_once* static_cast<int>(sizeof(A))>;

// Exponentials of `rows` rows, a multiple of rows_at_once, and their sums.
template <class T> struct exponentials_kernel {
  using arithmetic = arithmetic_t<T>;
  using A = arithmetic;

  const T* const* from;
  A* const* to;   // may be the same rows
  A* sums;
  math::exp_row<A>* peaks;   // what each row's are relative to, where that is wanted
  int rows;
  index_t columns;
  math::usual_exp_row<A> usual = {};

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<A, bytes>;
    const row_cut<S> cut(columns);
    // As if every row were usual; but what is overwritten could not be read again.
    const math::usual_exp_row<A> row = usual;
    const auto exp_usual = [&](auto& z) __attribute__((always_inline)) { math::exp_usual(z, row); };
    const bool side_by_side = columns * static_cast<index_t>(sizeof(A)) <= most_side_by_side;
    for (int first = 0; first < rows; first += rows_at_once) {
      bool is_in_place = false;
      each_row([&](auto r) __attribute__((always_inline)) { is_in_place |= static_cast<const void*>(from[first + r]) == to[first + r]; });
      lane_a_row<A> total{};
      if (!is_in_place) {
        S sum[rows_at_once];
        if (side_by_side)
          exponentiate<rows_at_once, 1>(from + first, to + first, cut, exp_usual, sum);
        else
          for (int r = 0; r < rows_at_once; ++r) exponentiate<1, 4>(from + first + r, to + first + r, cut, exp_usual, sum + r);
        total = sums_of_lanes(sum);
      }
      store(sums + first, total);
      for (int r = first; peaks && r < first + rows_at_once; ++r) peaks[r] = math::exp_row<A>::usual();
      const auto usual_rows = row.was_usual(total, static_cast<A>(columns));
      for (int r = 0; any(!usual_rows) && r < rows_at_once; ++r)
        if (!usual_rows.v[r]) exponentiate_by_peak(first + r, cut);
    }
  }

 private:
  // A group of rows of at most so many bytes is gone through side by side, as one such row is too short to keep the machine busy. Longer
  // ones are enough by themselves, and four of them lie too far apart for the caches' own prefetchers.
  static constexpr index_t most_side_by_side = 1280;

  template <class S> SARA_INLINE void exponentiate_by_peak(int r, const row_cut<S>& cut) const {
    S top = load<S>(from[r] + cut.tail_at), sum;
    for (index_t e = 0; e < cut.full; e += S::lanes) top = max(load<S>(from[r] + e), top);
    const math::exp_row<A> peak(max_of_lanes(top).v[0]);
    const auto exp_scaled = [&](auto& z) __attribute__((always_inline)) { z[0] = math::exp_scaled<S::looks_up_16>(z[0], peak); };
    exponentiate<1, 1>(from + r, to + r, cut, exp_scaled, &sum);
    sums[r] = sum_of_lanes(sum);
    if (peaks) peaks[r] = peak;
  }

  // Exponentials of n rows side by side, so many vectors of each at a time, and the rows' sums over the vectors. The tails' vectors come
  // first: `to`, which may be the same rows, would overwrite what they are of.
  template <int n, int vectors, class S, class Exp>
  SARA_INLINE static void exponentiate(const T* const* from, A* const* to, const row_cut<S>& cut, const Exp& exp, S* total) {
    const T* row[n];
    A* out[n];
    S tail[n] = {}, sum[n] = {};
    written_out<n>([&](auto r) __attribute__((always_inline)) {
      row[r] = from[r];
      out[r] = to[r];
    });
    if (cut.tail) {
      written_out<n>([&](auto r) __attribute__((always_inline)) { tail[r] = load<S>(row[r] + cut.tail_at); });
      exp(tail);
      written_out<n>([&](auto r) __attribute__((always_inline)) { sum[r] = cut.only_fresh(tail[r]); });
    }
    const auto add = [&](index_t begin, index_t end, S(&part)[n]) __attribute__((always_inline)) {
      exponentiate_columns<n, vectors>(row, out, begin, end, exp, part);
    };
    add_in_blocks(cut, add, sum);
    written_out<n>([&](auto r) __attribute__((always_inline)) {
      if (cut.tail) store(out[r] + cut.tail_at, tail[r]);
      total[r] = sum[r];
    });
  }
  template <int n, int vectors, class S, class Exp>
  SARA_INLINE static void exponentiate_columns(const T* const (&row)[n], A* const (&out)[n], index_t begin, index_t end, const Exp& exp,
                                               S (&sum)[n]) {
    index_t e = begin;
    for (; e + vectors * S::lanes <= end; e += vectors * S::lanes) {
      S x[n * vectors];
      written_out<n * vectors>([&](auto i) __attribute__((always_inline)) {
        const T* const here = row[i / vectors] + e + i % vectors * S::lanes;
        prefetch_ahead<8192, 3>(here);
        prefetch_ahead<2048, 3>(out[i / vectors] + e + i % vectors * S::lanes);
        x[i] = load<S>(here);
      });
      exp(x);
      written_out<n * vectors>([&](auto i) __attribute__((always_inline)) {
        sum[i / vectors] = sum[i / vectors] + x[i];
        store(out[i / vectors] + e + i % vectors * S::lanes, x[i]);
      });
    }
    if constexpr (vectors > 1) exponentiate_columns<n, 1>(row, out, e, end, exp, sum);
  }
};

// Adds the sum of weight times row over the row's sum to `total` in double: of a chunk in arithmetic precision, and what that lost.
template <class A> struct weighted_sum_kernel {
  using arithmetic = A;

  A* const* from;
  const A *weights, *sums;
  int rows;   // a multiple of rows_at_once
  index_t columns;
  double* total;   // [columns]

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<A, bytes>;
    const row_cut<S> cut(columns);
    A factors[most_chunk_rows];
    for (int r = 0; r < rows; r += rows_at_once) store(factors + r, load<lane_a_row<A>>(weights + r) / load<lane_a_row<A>>(sums + r));
    for (index_t e = 0; e < cut.full; e += S::lanes) add(total + e, sum_at<S>(e, factors));
    if (cut.tail) add(total + cut.tail_at, sum_at<S>(cut.tail_at, factors).only_fresh(cut));
  }

 private:
  template <class S> SARA_INLINE blocked_sum<S> sum_at(index_t e, const A* factors) const {
    blocked_sum<S> sum;
    for (int r = 0; r < rows; r += rows_at_once) {
      const S first = mul_add(load<S>(from[r] + e), S::broadcast(factors[r]), load<S>(from[r + 1] + e) * factors[r + 1]);
      const S second = mul_add(load<S>(from[r + 2] + e), S::broadcast(factors[r + 2]), load<S>(from[r + 3] + e) * factors[r + 3]);
      sum.add(first + second);
    }
    return sum;
  }
  template <int bytes> SARA_INLINE static void add(double* to, const blocked_sum<simd<A, bytes>>& x) {
    if constexpr (std::is_same_v<A, double>) {
      store(to, load<simd<double, bytes>>(to) + x.total());
    } else if constexpr (bytes == sizeof(A)) {
      *to += static_cast<double>(x.whole.v[0]) + static_cast<double>(x.lost.v[0]);
    } else {
      using wide = simd<double, bytes>;
      simd<A, bytes / 2> whole[2], lost[2];
      split(x.whole, whole[0], whole[1]);
      split(x.lost, lost[0], lost[1]);
      for (int h = 0; h < 2; ++h, to += wide::lanes)
        store(to, load<wide>(to) + wide{__builtin_convertvector(whole[h].v, typename wide::vector) +
                                        __builtin_convertvector(lost[h].v, typename wide::vector)});
    }
  }
};

// factor p (slope - mean), mean being the sum of p slope, and p the rows of exponentials over their sums.
//
// Where one expert takes nearly all of a row, or the mean is larger than slopes differ (`large_mean`), slopes and mean cancel, and what the
// mean's sum has rounded would stay: there the rest of the mean, the mean of the slopes less it, is subtracted too.
template <class A, class G> struct softmax_gradient_kernel {
  using arithmetic = A;

  const A* const* from;
  G* const* to;   // may be the same rows, unless past the caches
  const A* factors;
  int rows;   // a multiple of rows_at_once
  index_t columns;
  const A* slopes;   // [columns]
  A large_mean;
  row_write how;

  template <int bytes> SARA_INLINE void run() const {
    using S = simd<A, bytes>;
    const row_cut<S> cut(columns);
    const bool is_past_caches = how == row_write::past_caches;   // then what is asked for ahead is what is read
    const index_t step = is_past_caches ? sizeof(A) : sizeof(G);
    const A* const slope_of = slopes;   // a copy, which no store can change
    row_writer<G> writer(how);
    for (int first = 0; first < rows; first += rows_at_once) {
      const A* row[rows_at_once];
      G* out[rows_at_once];
      const char* next[rows_at_once];
      S whole[rows_at_once], dot[rows_at_once];
      each_row([&](auto r) __attribute__((always_inline)) {
        row[r] = from[first + r];
        out[r] = to[first + r];
        next[r] = reinterpret_cast<const char*>(is_past_caches ? static_cast<const void*>(row[r]) : out[r]);
        whole[r] = cut.tail ? cut.only_fresh(load<S>(row[r] + cut.tail_at)) : S::broadcast(0);
        dot[r] = whole[r] * load<S>(slopes + cut.tail_at);
      });
      const auto add = [&](index_t begin, index_t end, S(&sum)[rows_at_once]) __attribute__((always_inline)) {
        S part_dot[rows_at_once] = {};
        for (index_t e = begin; e < end; e += S::lanes) {
          const S slope = load<S>(slopes + e);
          each_row([&](auto r) __attribute__((always_inline)) {
            prefetch_ahead<4096, 2>(next[r] + e * step);
            const S x = load_once<S>(row[r] + e);
            sum[r] = sum[r] + x;
            part_dot[r] = mul_add(x, slope, part_dot[r]);
          });
        }
        each_row([&](auto r) __attribute__((always_inline)) { dot[r] = dot[r] + part_dot[r]; });
      };
      add_in_blocks(cut, add, whole);
      lane_a_row<A> largest;   // sums of two lanes: no row of a large expert is missed, some of several are taken along
      const lane_a_row<A> sums = sums_of_lanes(whole, largest), times = load<lane_a_row<A>>(factors + first) / sums;
      const lane_a_row<A> mean = sums_of_lanes(dot) / sums;
      S t[rows_at_once], m[rows_at_once], l[rows_at_once] = {};
      each_row([&](auto r) __attribute__((always_inline)) {
        t[r] = S::broadcast(times.v[decltype(r)::value]);
        m[r] = S::broadcast(mean.v[decltype(r)::value]);
      });
      if (any((sums * A(0.875) < largest) | (mean > large_mean) | (-mean > large_mean))) {
        const lane_a_row<A> rest = -times * (mean_beyond(mean, row, cut) / sums);
        each_row([&](auto r) __attribute__((always_inline)) { l[r] = S::broadcast(rest.v[decltype(r)::value]); });
      }
      writer.write(
          out, cut, [=](auto r, index_t e) __attribute__((always_inline)) {
            return load<S>(row[r] + e) * mul_add(load<S>(slope_of + e) - m[r], t[r], l[r]);
          });
    }
  }

 private:
  // The sum of exponential times slope less `mean`, of each row.
  template <class S>
  SARA_INLINE lane_a_row<A> mean_beyond(const lane_a_row<A>& mean, const A* const (&row)[rows_at_once], const row_cut<S>& cut) const {
    const auto term = [&](auto r, index_t e) __attribute__((always_inline)) {
      return load<S>(row[r] + e) * (load<S>(slopes + e) - S::broadcast(mean.v[decltype(r)::value]));
    };
    S sum[rows_at_once] = {};
    for (index_t e = 0; e < cut.full; e += S::lanes) each_row([&](auto r) __attribute__((always_inline)) { sum[r] = sum[r] + term(r, e); });
    if (cut.tail) each_row([&](auto r) __attribute__((always_inline)) { sum[r] = sum[r] + cut.only_fresh(term(r, cut.tail_at)); });
    return sums_of_lanes(sum);
  }
};

// Zeros to one row of any storage.
template <class G> void clear_row(G* row, index_t columns) {
  std::memset(static_cast<void*>(row), 0, static_cast<std::size_t>(columns) * sizeof(G));
}

}   // namespace SARA_ABI
}   // namespace sara
