// Rows of logits in registers: how a group of lanes shares a row, reads it and writes it.
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
      if constexpr (Form::access != 0) {
        load_packet<Form::access>(held_[c], row + e, static_cast<int>(columns) - e);
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

// Calls move(column, first of `width` values, columns from there) for each chunk of a lane's row that is there.
template <class T, class Form, class Move>
__device__ __forceinline__ void for_each_chunk(index_t columns, const row_group<Form::lanes>& g, const Move& move) {
  using storage = row_storage<T, Form>;
#pragma unroll
  for (int c = 0; c < storage::chunks; ++c)
    if (const int e = storage::column(g, c), left = static_cast<int>(columns) - e; left > 0) move(e, c * storage::width, left);
}

// A lane's values of a row in storage G, in the chunks of a row of T; `beyond` behind the last column. G may be wider than T: a chunk
// is then several packets.
template <class T, class Form, class G>
__device__ __forceinline__ void load_row(arithmetic_t<G> (&to)[Form::per_lane], const G* row, index_t columns,
                                         const row_group<Form::lanes>& g, arithmetic_t<G> beyond) {
  constexpr int width = Form::template width<T>, step = packet_width<G>;
#pragma unroll
  for (int i = 0; i < Form::per_lane; ++i) to[i] = beyond;
  for_each_chunk<T, Form>(columns, g, [&](int e, int at, int left) {
    if constexpr (Form::access != 0 && step <= width) {
#pragma unroll
      for (int i = 0; i < width; i += step) {
        if (Form::access == 8 && i >= left) break;
        arithmetic_t<G> these[step];
        packet p{};
        load_packet<step == width ? Form::access : 16>(p, row + e + i, left);
        widen<G>(p, these);
#pragma unroll
        for (int j = 0; j < step; ++j) to[at + i + j] = these[j];
      }
    } else {
#pragma unroll
      for (int i = 0; i < width; ++i)
        if (i < left) to[at + i] = widen_one(row[e + i]);
    }
  });
}

// Writes a lane's values of a row in the same chunks.
template <class T, class Form, class G>
__device__ __forceinline__ void store_row(const arithmetic_t<G> (&values)[Form::per_lane], G* row, index_t columns,
                                          const row_group<Form::lanes>& g) {
  constexpr int width = Form::template width<T>, step = packet_width<G>;
  for_each_chunk<T, Form>(columns, g, [&](int e, int at, int left) {
    if constexpr (Form::access != 0 && step <= width) {
#pragma unroll
      for (int i = 0; i < width; i += step) {
        if (Form::access == 8 && i >= left) break;
        arithmetic_t<G> these[step];
#pragma unroll
        for (int j = 0; j < step; ++j) these[j] = values[at + i + j];
        store_packet<step == width ? Form::access : 16>(row + e + i, narrow<G>(these), left);
      }
    } else {
#pragma unroll
      for (int i = 0; i < width; ++i)
        if (i < left) narrow_one(row[e + i], values[at + i]);
    }
  });
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
