// Sorting networks: all lists of zeros and ones, by which a network that sorts them sorts everything.
#include <sara/math/order.hpp>
#include <sara/math/sorting_network.hpp>

#include <algorithm>
#include <functional>
#include <random>

#include "catch.hpp"

namespace {

using namespace sara::math;

template <int size> bool sorts(std::uint32_t bits) {
  int list[size];
  for (int i = 0; i < size; ++i) list[i] = static_cast<int>(bits >> i & 1u);
  sara::math::sort(list);
  return std::is_sorted(list, list + size, std::greater<>());
}

// The largest of two sorted lists, of which one has `a` ones and the other `b`.
template <int size> bool keeps(int a, int b) {
  int list[size], other[size];
  for (int i = 0; i < size; ++i) {
    list[i] = i < a;
    other[i] = i < b;
  }
  keep_largest(list, other);
  return std::is_sorted(list, list + size, std::greater<>()) && std::count(list, list + size, 1) == std::min(a + b, size);
}

template <int size> void check_size() {
  std::mt19937 bits(size);
  std::size_t wrong = 0;
  const std::uint32_t all = 1u << std::min(size, 20);
  for (std::uint32_t i = 0; i < all; ++i) wrong += !sorts<size>(size <= 20 ? i : static_cast<std::uint32_t>(bits()));
  for (int a = 0; a <= size; ++a)
    for (int b = 0; b <= size; ++b) wrong += !keeps<size>(a, b);
  int list[size];
  for (int i = 0; i < size; ++i) list[i] = 100 + i;
  for (int i = 0; i < size; ++i) wrong += entry_of(list, i) != 100 + i;
  INFO("size " << size);
  CHECK(wrong == 0);
}

}   // namespace

TEST_CASE("sorting networks: sort, keep the largest of two lists, and find an entry", "[math]") {
  check_size<1>();
  check_size<2>();
  check_size<4>();
  check_size<8>();
  check_size<16>();
  check_size<32>();
}

TEST_CASE("sorting networks: keys of two words", "[math]") {
  std::mt19937 bits(1);
  wide_key list[8], sorted[8];
  for (int i = 0; i < 8; ++i) sorted[i] = list[i] = {static_cast<std::int64_t>(bits() % 3), i};
  sara::math::sort(list);
  std::sort(sorted, sorted + 8, [](const wide_key& a, const wide_key& b) { return a > b; });
  for (int i = 0; i < 8; ++i) CHECK((list[i].bits == sorted[i].bits && list[i].index == sorted[i].index));
}
