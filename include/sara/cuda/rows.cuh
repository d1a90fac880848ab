// Rows of logits in registers: how a group of lanes shares a row, reads and writes it, and takes its exponentials.
//
// A warp is cut into groups of 1, 2, 4, ... 32 lanes, each with a row of its own. A lane holds `per_lane` values of the row, in
// chunks of `width`, 16 bytes of storage: read and written as one where rows are aligned so, in two halves where they are to 8 bytes, else
// value by value. Who holds what does not depend on it, nor do the bits of a result.
//
//   value i of chunk c of lane j is that of expert  (c lanes + j) width + i
//
// All lanes of a warp come to every function here together; a group without a row brings zeros.
#pragma once

#include "../core/views.hpp"
#include "../core/written_out.hpp"
#include "lane.cuh"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

inline constexpr int warp_lanes = 32;
inline constexpr unsigned full_warp = 0xffffffffu;
inline constexpr int block_threads = 256, block_warps = block_threads / warp_lanes;   // of every kernel

// ---- the form of rows, chosen on the host

inline constexpr index_t most_columns_in_registers = 1024;

// `lanes` of a group: 0 where the kernel is told when it runs. `access`: bytes of storage read at once, 16 or 8, or 0 for one value.
template <int per_lane_, int lanes_, int access_> struct row_form {
  static constexpr int per_lane = per_lane_, lanes = lanes_, access = access_;
  template <class T> static constexpr int width = packet_width<T>;
  static constexpr int rows_in_flight = per_lane < 16 ? 16 / per_lane : 1;   // of a group, while as many others are computed with
  template <class T>
  static constexpr int rows_at_once = sizeof(T) == 2 ? rows_in_flight : 1;   // computed with side by side, as registers allow
};

// Lanes of a group for so many columns (at most 1024).
inline int lanes_for(index_t columns) {
  int lanes = 1;
  while (lanes < warp_lanes && lanes * 8 < columns) lanes *= 2;
  return lanes;
}

// Calls run(form) with the form for so many columns, of arrays with that common_alignment.
template <class T, class Run> void with_row_form(index_t columns, int alignment, const Run& run) {
  if (alignment >= 16 && columns % packet_width<T> == 0) {
    if (columns <= 64) return run(row_form<8, 0, 16>{});
    if (columns <= 128) return run(row_form<8, 16, 16>{});
    if (columns <= 256) return run(row_form<8, 32, 16>{});
    if (columns <= 512) return run(row_form<16, 32, 16>{});
    return run(row_form<32, 32, 16>{});
  }
  if constexpr (sizeof(T) == 2) {   // 60 experts
    if (alignment >= 8 && columns % (packet_width<T> / 2) == 0 && columns <= 256) return run(row_form<8, 0, 8>{});
  }
  if (columns <= 256) return run(row_form<8, 0, 0>{});
  if (columns <= 512) return run(row_form<16, 32, 0>{});
  run(row_form<32, 32, 0>{});
}

// Do all rows of a matrix begin at multiples of so many bytes?
template <class T> bool rows_are_aligned(const matrix_view<T>& m, std::uintptr_t bytes) {
  const auto stride_bytes = static_cast<std::uintptr_t>(m.row_stride()) * sizeof(T);
  return reinterpret_cast<std::uintptr_t>(m.data()) % bytes == 0 && (m.rows() <= 1 || stride_bytes % bytes == 0);
}
template <class T> bool rows_are_aligned(const layers_view<T>& v, std::uintptr_t bytes) {
  for (index_t l = 0; l < v.layers(); ++l)
    if (!rows_are_aligned(v[l], bytes)) return false;
  return true;
}

// The bytes of rows of T that may be read at once, as these arrays lie whose rows go with them: 16, 8, or 0 for one value. Of wider values at
// most 16 bytes are.
template <class T, class... Views> int common_alignment(const Views&... rows) {
  if ((rows_are_aligned(rows, 16) && ...)) return 16;
  const auto by_halves = []<template <class> class View, class G>(const View<G>& v) {
    return rows_are_aligned(v, std::min<std::size_t>(16, 8 / sizeof(T) * sizeof(G)));
  };
  return (by_halves(rows) && ...) ? 8 : 0;
}

// ---- a thread's place

// The larger; where one is NaN, the other.
template <class A> __device__ __forceinline__ A larger(A a, A b) { return lane<A>::larger(a, b); }

template <int fixed> class row_group {
 public:
  int lane;            // this thread's, in its group
  int group, groups;   // its group, of the block

  __device__ __forceinline__ explicit row_group(int lanes_of_group) : lanes_(lanes_of_group) {
    const int thread = static_cast<int>(threadIdx.x),
              shift = __popc(static_cast<unsigned>(lanes() - 1));   // a division takes 50 instructions
    lane = thread & (lanes() - 1);
    group = thread >> shift;
    groups = block_threads >> shift;
  }
  __device__ __forceinline__ int lanes() const { return fixed ? fixed : lanes_; }

  // Over the lanes of each group, the same bits in all of them.
  template <class A> __device__ __forceinline__ A sum(A x) const {
#pragma unroll
    for (int o = 1; o < lanes(); o *= 2) x += __shfl_xor_sync(full_warp, x, o);
    return x;
  }
  template <class A> __device__ __forceinline__ A max(A x) const {
#pragma unroll
    for (int o = 1; o < lanes(); o *= 2) x = larger(x, __shfl_xor_sync(full_warp, x, o));
    return x;
  }
  // Over the groups of each warp: the lanes that hold the same columns.
  template <class A> __device__ __forceinline__ A sum_of_groups(A x) const {
#pragma unroll
    for (int o = lanes(); o < warp_lanes; o *= 2) x += __shfl_xor_sync(full_warp, x, o);
    return x;
  }

 private:
  int lanes_;
};

// ---- rows

// One value from storage to arithmetic and back: load_value and store_value, which copy bytes, in one access each. Of a std::memcpy of 2
// bytes nvcc makes 2.
template <class T> __device__ __forceinline__ arithmetic_t<T> widen_one(const T& x) {
#if defined(__CUDA_ARCH__)
  if constexpr (storage_trait<T>::format != storage_format::native) {
    std::uint16_t bits = __builtin_bit_cast(std::uint16_t, x);   // not const: nvcc 13 then fails
    return storage_trait<T>::format == storage_format::bf16 ? float_of_bf16(bits) : widen_fp16(bits);
  }
#endif
  return load_value(x);
}
template <class T> __device__ __forceinline__ void narrow_one(T& to, arithmetic_t<T> x) {
#if defined(__CUDA_ARCH__)
  if constexpr (storage_trait<T>::format != storage_format::native) {
    std::uint16_t bits = storage_trait<T>::format == storage_format::bf16 ? bf16_of_float(x) : narrow_fp16(x);
    to = __builtin_bit_cast(T, bits);
    return;
  }
#endif
  store_value(to, x);
}

// What a lane holds of a row of logits, as it was read.
template <class T, class Form> class row_storage {
 public:
  using A = arithmetic_t<T>;
  using group = row_group<Form::lanes>;
  static constexpr int width = Form::template width<T>, chunks = Form::per_lane / width;

  __device__ __forceinline__ static int column(const group& g, int c) { return (c * g.lanes() + g.lane) * width; }

  // Reads a row, with -inf behind its last column; or, if it is not to be read, holds zeros.
  __device__ __forceinline__ void load(const T* row, index_t columns, const group& g, bool is_read) {
    const chunk beyond = is_read ? repeated(-static_cast<A>(INFINITY)) : repeated(A(0));
#pragma unroll
    for (int c = 0; c < chunks; ++c) {
      const int e = column(g, c);
      held_[c] = beyond;
      if (!is_read || e >= static_cast<int>(columns)) continue;
      if constexpr (Form::access == 16) {
        held_[c] = load_packet(row + e);
      } else if constexpr (Form::access == 8) {
        load_half(held_[c], 0, row + e);
        if (e + width / 2 < static_cast<int>(columns)) load_half(held_[c], 1, row + e + width / 2);
      } else {
#pragma unroll
        for (int i = 0; i < width; ++i)
          if (e + i < static_cast<int>(columns)) held_[c].value[i] = row[e + i];
      }
    }
  }
  __device__ __forceinline__ void values(A (&to)[Form::per_lane]) const {
#pragma unroll
    for (int c = 0; c < chunks; ++c) {
      if constexpr (Form::access != 0) {
        A these[width];
        widen<T>(held_[c], these);
#pragma unroll
        for (int i = 0; i < width; ++i) to[c * width + i] = these[i];
      } else {
#pragma unroll
        for (int i = 0; i < width; ++i) to[c * width + i] = widen_one(held_[c].value[i]);
      }
    }
  }

 private:
  struct separate {
    T value[width];
  };
  using chunk = std::conditional_t<Form::access != 0, packet, separate>;

  // A constant, by the host's conversion, which the compiler computes; the device's is an instruction.
  __device__ __forceinline__ static chunk repeated(A x) {
    chunk all;
    if constexpr (Form::access == 0) {
#pragma unroll
      for (int i = 0; i < width; ++i) store_value(all.value[i], x);
    } else if constexpr (storage_trait<T>::format == storage_format::native) {
      A values[width];
#pragma unroll
      for (int i = 0; i < width; ++i) values[i] = x;
      all = narrow<T>(values);
    } else {
      const std::uint32_t bits = storage_trait<T>::format == storage_format::bf16 ? bf16_of_float(x) : fp16_of_float(x);
      for (int i = 0; i < 4; ++i) all.word[i] = bits << 16 | bits;
    }
    return all;
  }

  chunk held_[chunks];
};

// Calls move(column, first of `width` values) for each chunk of a lane's row that is there.
template <class T, class Form, class Move>
__device__ __forceinline__ void for_each_chunk(index_t columns, const row_group<Form::lanes>& g, const Move& move) {
  using storage = row_storage<T, Form>;
#pragma unroll
  for (int c = 0; c < storage::chunks; ++c)
    if (storage::column(g, c) < static_cast<int>(columns)) move(storage::column(g, c), c * storage::width);
}

// A lane's values of a row in storage G, in the chunks of a row of T; `beyond` behind the last column. G may be wider than T: a chunk
// is then several loads.
template <class T, class Form, class G>
__device__ __forceinline__ void load_row(arithmetic_t<G> (&to)[Form::per_lane], const G* row, index_t columns,
                                         const row_group<Form::lanes>& g, arithmetic_t<G> beyond) {
  constexpr int width = Form::template width<T>, step = packet_width<G>;
#pragma unroll
  for (int i = 0; i < Form::per_lane; ++i) to[i] = beyond;
  for_each_chunk<T, Form>(columns, g, [&](int e, int at) {
    if constexpr (Form::access != 0 && step <= width) {
      constexpr bool halves = Form::access == 8 && step == width;
#pragma unroll
      for (int i = 0; i < width; i += step) {
        if (Form::access == 8 && e + i >= static_cast<int>(columns)) break;
        arithmetic_t<G> these[step];
        packet p{};
        if constexpr (halves) {
          load_half(p, 0, row + e);
          if (e + step / 2 < static_cast<int>(columns)) load_half(p, 1, row + e + step / 2);
        } else {
          p = load_packet(row + e + i);
        }
        widen<G>(p, these);
#pragma unroll
        for (int j = 0; j < step; ++j) to[at + i + j] = these[j];
      }
    } else {
#pragma unroll
      for (int i = 0; i < width; ++i)
        if (e + i < static_cast<int>(columns)) to[at + i] = widen_one(row[e + i]);
    }
  });
}

// Writes a lane's values of a row in the same chunks.
template <class T, class Form, class G>
__device__ __forceinline__ void store_row(const arithmetic_t<G> (&values)[Form::per_lane], G* row, index_t columns,
                                          const row_group<Form::lanes>& g) {
  constexpr int width = Form::template width<T>, step = packet_width<G>;
  for_each_chunk<T, Form>(columns, g, [&](int e, int at) {
    if constexpr (Form::access != 0 && step <= width) {
#pragma unroll
      for (int i = 0; i < width; i += step) {
        if (Form::access == 8 && e + i >= static_cast<int>(columns)) break;
        arithmetic_t<G> these[step];
#pragma unroll
        for (int j = 0; j < step; ++j) these[j] = values[at + i + j];
        const packet p = narrow<G>(these);
        if constexpr (Form::access == 8 && step == width) {
          store_half(row + e, p, 0);
          if (e + step / 2 < static_cast<int>(columns)) store_half(row + e + step / 2, p, 1);
        } else {
          store_packet(row + e + i, p);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < width; ++i)
        if (e + i < static_cast<int>(columns)) narrow_one(row[e + i], values[at + i]);
    }
  });
}

// ---- exponentials

// A row's sum of exponentials, and what they are relative to.
template <class A> struct exp_sum {
  A sum;
  math::exp_row<A> peak;
};

// A lane's part of a sum: each term passes log2(n) additions, not n.
template <class A, int n> __device__ __forceinline__ A sum_by_halves(const A (&x)[n]) {
  if constexpr (n == 1) {
    return x[0];
  } else {
    A halves[n / 2];
#pragma unroll
    for (int i = 0; i < n / 2; ++i) halves[i] = x[2 * i] + x[2 * i + 1];
    return sum_by_halves(halves);
  }
}

// A lane's exponentials of a row, up to the row's factor: the softmax is z / sum.
template <class A, int per_lane> struct row_exponentials {
  A z[per_lane];
  exp_sum<A> row;
};

// With the row's largest logit. NaN, +inf, and a row of nothing but -inf make the row NaN. Not inlined: seldom called, and long.
template <class T, class Form>
__device__ __noinline__ row_exponentials<arithmetic_t<T>, Form::per_lane> exponentiate_by_largest(const row_storage<T, Form> row,
                                                                                                  const row_group<Form::lanes> g) {
  using A = arithmetic_t<T>;
  row_exponentials<A, Form::per_lane> to;
  row.values(to.z);
  A largest = to.z[0], nan = 0;   // a maximum passes NaN over
#pragma unroll
  for (int i = 0; i < Form::per_lane; ++i) {
    largest = larger(largest, to.z[i]);
    nan += to.z[i] != to.z[i] ? to.z[i] : A(0);
  }
  const math::exp_row<A> peak(g.max(largest) + g.sum(nan));
#pragma unroll
  for (int i = 0; i < Form::per_lane; ++i) to.z[i] = math::exp_scaled(lane<A>{to.z[i]}, peak).v;
  to.row = {g.sum(sum_by_halves(to.z)), peak};
  return to;
}

// The exponentials of n rows of each group: first without the rows' largest logits, and again with them where a sum tells that it was
// needed.
template <class T, class Form, int n>
__device__ __forceinline__ void exponentiate(const row_storage<T, Form> (&rows)[n], index_t columns, const row_group<Form::lanes>& g,
                                             arithmetic_t<T> (&z)[n][Form::per_lane], exp_sum<arithmetic_t<T>> (&sums)[n]) {
  using A = arithmetic_t<T>;
  const usual_exp<A> exp;
  bool all_usual = true;
#pragma unroll
  for (int r = 0; r < n; ++r) {
    rows[r].values(z[r]);
#pragma unroll
    for (int i = 0; i < Form::per_lane; ++i) z[r][i] = exp(z[r][i]);
    sums[r] = {sum_by_halves(z[r]), math::exp_row<A>::usual()};
  }
#pragma unroll
  for (int r = 0; r < n; ++r) {
    sums[r].sum = g.sum(sums[r].sum);
    all_usual = all_usual && math::usual_exp_row<A>::was_usual(sums[r].sum, static_cast<A>(columns));
  }
  if (__all_sync(full_warp, all_usual)) return;
#pragma unroll
  for (int r = 0; r < n; ++r) {
    const row_exponentials<A, Form::per_lane> found = exponentiate_by_largest<T, Form>(rows[r], g);
    if (math::usual_exp_row<A>::was_usual(sums[r].sum, static_cast<A>(columns))) continue;
    sums[r] = found.row;
#pragma unroll
    for (int i = 0; i < Form::per_lane; ++i) z[r][i] = found.z[i];
  }
}

// The same of a row in memory that a warp shares, by reading it twice; its exponentials are exp_scaled of its values by `peak`.
template <class T> __device__ exp_sum<arithmetic_t<T>> sum_row(const T* row, index_t columns) {
  using A = arithmetic_t<T>;
  const row_group<warp_lanes> g(warp_lanes);
  A largest = -static_cast<A>(INFINITY), nan = 0;
  for (index_t e = g.lane; e < columns; e += warp_lanes) {
    const A z = widen_one(row[e]);
    largest = larger(largest, z);
    nan += z != z ? z : A(0);
  }
  const math::exp_row<A> peak(g.max(largest) + g.sum(nan));
  constexpr int parts = 8;   // of a lane's sum
  double sums[parts] = {};   // of any number of terms
  for (index_t first = g.lane; first < columns; first += parts * warp_lanes) {
#pragma unroll
    for (int i = 0; i < parts; ++i) {
      const index_t e = first + i * warp_lanes;
      if (e < columns) sums[i] += static_cast<double>(math::exp_scaled(lane<A>{widen_one(row[e])}, peak).v);
    }
  }
  return {static_cast<A>(g.sum(sum_by_halves(sums))), peak};
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
