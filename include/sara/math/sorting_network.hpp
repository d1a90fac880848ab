// Sorting networks: which pairs are compared, so that a few keys are sorted whatever they are, without a branch.
//
// A key K has `larger(a, b)` and `smaller(a, b)`, found by its namespace or, for integers, here. The largest comes first.
#pragma once

#include <concepts>

#include "../core/written_out.hpp"

namespace sara::math {
inline namespace SARA_ABI {

// Comparisons (first, second) that sort `size` keys, a power of two: Batcher's odd-even merge sort. And those that sort what falls and
// then rises: the second half of a bitonic sort.
template <int size> struct sorting_network {
  struct comparison {
    int first, second;
  };
  struct list {
    comparison all[size * size];
    int count;
  };
  static constexpr list sort = [] {
    list l{};
    for (int p = 1; p < size; p *= 2)
      for (int d = p; d >= 1; d /= 2)
        for (int j = d % p; j + d < size; j += 2 * d)
          for (int i = j; i < j + d && i < size - d; ++i)
            if (i / (2 * p) == (i + d) / (2 * p)) l.all[l.count++] = {i, i + d};
    return l;
  }();
  static constexpr list merge = [] {
    list l{};
    for (int d = size / 2; d >= 1; d /= 2)
      for (int i = 0; i < size; ++i)
        if ((i & d) == 0) l.all[l.count++] = {i, i + d};
    return l;
  }();
  static constexpr int sort_count = sort.count, merge_count = merge.count;
  // Numbers, which device code may read, not arrays.
  template <int c> static constexpr int sort_first = sort.all[c].first;
  template <int c> static constexpr int sort_second = sort.all[c].second;
  template <int c> static constexpr int merge_first = merge.all[c].first;
  template <int c> static constexpr int merge_second = merge.all[c].second;
};

template <std::integral K> SARA_INLINE K larger(const K& a, const K& b) { return a > b ? a : b; }
template <std::integral K> SARA_INLINE K smaller(const K& a, const K& b) { return a > b ? b : a; }

template <class K> SARA_INLINE void order_pair(K& a, K& b) {
  const K first = larger(a, b);
  b = smaller(a, b);
  a = first;
}

template <class K, int size> SARA_INLINE void sort(K (&list)[size]) {
  using network = sorting_network<size>;
  written_out<network::sort_count>([&](auto i) __attribute__((always_inline)) {
    constexpr int c = decltype(i)::value;
    order_pair(list[network::template sort_first<c>], list[network::template sort_second<c>]);
  });
}

// Sorts a list whose keys fall and then rise.
template <class K, int size> SARA_INLINE void sort_bitonic(K (&list)[size]) {
  using network = sorting_network<size>;
  written_out<network::merge_count>([&](auto i) __attribute__((always_inline)) {
    constexpr int c = decltype(i)::value;
    order_pair(list[network::template merge_first<c>], list[network::template merge_second<c>]);
  });
}

// The `size` largest keys of two sorted lists, sorted, in the first.
template <class K, int size> SARA_INLINE void keep_largest(K (&list)[size], const K (&other)[size]) {
  written_out<size>([&](auto i) __attribute__((always_inline)) { list[i] = larger(list[i], other[size - 1 - i]); });
  sort_bitonic(list);
}

// list[slot] of a list in registers, which have no address.
template <class K, int size> SARA_INLINE K entry_of(const K (&list)[size], int slot) {
  if constexpr (size == 1) {
    return list[0];
  } else {
    constexpr int half = size / 2;
    const bool upper = slot & half;
    K rest[half];
    written_out<half>([&](auto i) __attribute__((always_inline)) {
      const K low = list[i], high = list[i + half];
      rest[i] = upper ? high : low;
    });
    return entry_of(rest, slot);
  }
}

}   // namespace SARA_ABI
}   // namespace sara::math
