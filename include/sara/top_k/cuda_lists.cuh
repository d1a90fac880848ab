// The largest keys of rows that groups of lanes share: each lane keeps the best of its columns in a sorted list, by sorting networks, and
// the lists of the lanes are merged at last. Rows are read once; no memory but registers.
//
// Keys (math/order.hpp) are of 32 bits for 16-bit scores, of 64 for float, of 128 for double. Those of 16-bit scores are made two at a time
// without a look at NaN. Where one shows up at an end of the sorted keys, all rows of the warp are done again with a look.
#pragma once

#include "../cuda/rows.cuh"
#include "../math/order.hpp"
#include "../math/sorting_network.hpp"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// How many keys a list holds, and of how many experts keys tell.
template <class A> inline constexpr int most_in_list = std::is_same_v<A, double> ? 8 : 32;   // as registers allow
template <class T> inline constexpr index_t most_experts_in_list = sizeof(T) == 2 ? 65536 : 2147483647;

template <class T>
using list_key = std::conditional_t<sizeof(T) == 2, std::uint32_t, std::conditional_t<sizeof(T) == 4, std::int64_t, math::wide_key>>;

SARA_INLINE int expert_of(std::uint32_t key) { return 0xffff - static_cast<int>(key & 0xffffu); }
SARA_INLINE int expert_of(std::int64_t key) { return static_cast<int>(math::index_of(key)); }
SARA_INLINE int expert_of(const math::wide_key& key) { return static_cast<int>(key.index); }

SARA_INLINE std::int64_t key_of(float score, int e) { return math::narrow_key(score, static_cast<std::uint32_t>(e)); }
SARA_INLINE math::wide_key key_of(double score, int e) { return {math::ordered_bits(score), e}; }

// Of the lane that differs in `bit`.
__device__ __forceinline__ std::uint32_t exchanged(std::uint32_t key, int bit) { return __shfl_xor_sync(full_warp, key, bit); }
__device__ __forceinline__ std::int64_t exchanged(std::int64_t key, int bit) { return __shfl_xor_sync(full_warp, key, bit); }
__device__ __forceinline__ math::wide_key exchanged(const math::wide_key& key, int bit) {
  return {__shfl_xor_sync(full_warp, key.bits, bit), __shfl_xor_sync(full_warp, key.index, bit)};
}

// n scores of a row, as a lane reads them: in chunks of 16 bytes where rows are aligned, else one by one.
template <class T, int n, bool aligned> class lane_scores {
 public:
  using form = row_form<n, 0, aligned ? 16 : 0>;
  using group = row_group<0>;
  using key = list_key<T>;
  static constexpr bool may_doubt = false;   // whether keys are right

  __device__ __forceinline__ void load(const T* row, int columns, const group& g) { held_.load(row, columns, g, true); }
  template <bool> __device__ __forceinline__ static key none() {
    if constexpr (std::is_same_v<key, std::int64_t>)
      return math::no_narrow_key;
    else
      return math::wide_key::none();
  }
  // The first of the row's columns here is number `first`, `columns` are left from there. `nan`: is one of them NaN?
  template <bool> __device__ __forceinline__ void keys(int first, int columns, const group& g, key (&to)[n], bool& nan) const {
    arithmetic_t<T> z[n];
    held_.values(z);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const int e = column(g, i);
      to[i] = e < columns ? key_of(z[i], first + e) : none<true>();
      nan |= z[i] != z[i];
    }
  }
  __device__ __forceinline__ static bool in_doubt(const key&, const key&) { return false; }

 private:
  __device__ __forceinline__ static int column(const group& g, int i) {
    constexpr int width = form::template width<T>;
    return (i / width * g.lanes() + g.lane) * width + i % width;
  }

  row_storage<T, form> held_;
};

// The same of 16-bit scores, two in a word.
template <class T, int n, bool aligned>
requires(sizeof(T) == 2) class lane_scores<T, n, aligned> {
 public:
  using group = row_group<0>;
  using key = std::uint32_t;
  static constexpr bool may_doubt = true;

  // Behind the last column comes -inf: never better than another score, NaN apart.
  __device__ __forceinline__ void load(const T* row, int columns, const group& g) {
#pragma unroll
    for (int i = 0; i < n; i += width) {
      const int e = column(g, i);
#pragma unroll
      for (int w = i / 2; w < (i + width) / 2; ++w) word_[w] = (0x8000u | infinity) * 0x10001u;
      if constexpr (aligned) {
        if (e >= columns) continue;
        const packet p = load_packet(row + e);
        std::memcpy(word_ + i / 2, &p, sizeof p);
      } else {
        const int next = column(g, i + 1);
        if (e < columns) word_[i / 2] = (word_[i / 2] & 0xffff0000u) | bits_of(row[e]);
        if (next < columns) word_[i / 2] = (word_[i / 2] & 0xffffu) | bits_of(row[next]) << 16;
      }
    }
  }
  template <bool exact> __device__ __forceinline__ static key none() { return exact ? 0 : (0x8000u - infinity) << 16; }
  template <bool exact> __device__ __forceinline__ void keys(int first, int columns, const group& g, key (&to)[n], bool& nan) const {
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const int e = column(g, i);
      const std::uint32_t inverted = 0xffffu - static_cast<std::uint32_t>(first + e);
      if constexpr (exact) {
        const std::uint32_t bits = (i % 2 ? word_[i / 2] >> 16 : word_[i / 2]) & 0xffffu;
        to[i] = e < columns ? math::ordered_half(bits, infinity) << 16 | inverted : none<true>();
        nan |= (bits & 0x7fffu) > infinity;
      } else {
        const std::uint32_t ordered = opaque(math::ordered_halves(word_[i / 2]));
        to[i] = i % 2 ? (ordered & 0xffff0000u) | inverted : (ordered << 16) + inverted;
      }
    }
  }
  // NaN lies beyond the infinities.
  __device__ __forceinline__ static bool in_doubt(key largest, key least) {
    return largest >= (0x8001u + infinity) << 16 || least < none<false>();
  }

 private:
  static constexpr int width = aligned ? 8 : 2;
  static constexpr std::uint32_t infinity = storage_trait<T>::format == storage_format::bf16 ? 0x7f80 : 0x7c00;

  __device__ __forceinline__ static int column(const group& g, int i) {
    return aligned ? (i / 8 * g.lanes() + g.lane) * 8 + i % 8 : i * g.lanes() + g.lane;
  }
  // nvcc would compute each half of a word by itself.
  __device__ __forceinline__ static std::uint32_t opaque(std::uint32_t x) {
#if defined(__CUDA_ARCH__)
    asm("" : "+r"(x));
#endif
    return x;
  }
  __device__ __forceinline__ static std::uint32_t bits_of(T x) {   // a copy: nvcc makes a std::memcpy from memory into 2 loads
    std::uint16_t bits;
    std::memcpy(&bits, static_cast<const void*>(&x), sizeof bits);
    return bits;
  }

  std::uint32_t word_[n / 2];
};

// The `best` largest keys of a row, in order, in every lane of its group; where it has fewer columns, followed by what is no key.
template <class T, int best, bool aligned> class best_of_row {
 public:
  // All lanes of a warp come here together; a group without a row brings no columns.
  __device__ __forceinline__ void take(const T* row, int columns, const row_group<0>& g) {
    const bool doubt = take_columns<!scores::may_doubt>(row, columns, g);
    if constexpr (scores::may_doubt)
      if (__any_sync(full_warp, doubt)) take_columns<true>(row, columns, g);
    for (int bit = 1; bit < g.lanes(); bit *= 2) {
      key other[best];
#pragma unroll
      for (int i = 0; i < best; ++i) other[i] = exchanged(list_[i], bit);
      math::keep_largest(list_, other);
    }
  }
  // That of a slot which only the lane knows.
  __device__ __forceinline__ int expert_at(int slot) const { return expert_of(math::entry_of(list_, slot)); }
  __device__ __forceinline__ int best_expert() const { return expert_of(list_[0]); }
  // Is one of the scores that the lane has read NaN?
  __device__ __forceinline__ bool nan() const { return nan_; }

 private:
  static constexpr int n = best > 2 * packet_width<T> ? best : 2 * packet_width<T>;   // values at a time
  using scores = lane_scores<T, n, aligned>;
  using key = list_key<T>;

  // The lane's own columns. Is there doubt?
  template <bool exact> __device__ __forceinline__ bool take_columns(const T* row, int columns, const row_group<0>& g) {
    const int step = n * g.lanes();
    nan_ = false;
    scores ahead;
    ahead.load(row, columns, g);
    key least = take_some<exact, true>(ahead, 0, columns, g);
    for (int first = step; first < columns; first += step) {
      row += step;
      ahead.load(row, columns - first, g);
      const key least_here = take_some<exact, false>(ahead, first, columns - first, g);
      if constexpr (!exact) least = math::smaller(least, least_here);
    }
    return scores::in_doubt(list_[0], least);
  }

  // From some more columns; their least key.
  template <bool exact, bool are_first>
  __device__ __forceinline__ key take_some(const scores& some, int first, int columns, const row_group<0>& g) {
    key all[n], least = scores::template none<exact>();
    some.template keys<exact>(first, columns, g, all, nan_);
#pragma unroll
    for (int from = 0; from < n; from += best) {
      key part[best];
#pragma unroll
      for (int i = 0; i < best; ++i) part[i] = all[from + i];
      math::sort(part);
      if constexpr (!exact) least = math::smaller(least, part[best - 1]);
      if (are_first && from == 0) {
#pragma unroll
        for (int i = 0; i < best; ++i) list_[i] = part[i];
      } else {
        math::keep_largest(list_, part);
      }
    }
    return least;
  }

  key list_[best];
  bool nan_;
};

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
