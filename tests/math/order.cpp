// Integers in the order of numbers: every pair of 16-bit numbers, and the edges of the wider ones.
#include <sara/math/order.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "catch.hpp"

namespace {

using namespace sara::math;

// Higher first, NaN after -inf, equal ones (-0 and +0 too) by index.
template <class A> bool ranks_before(A a, std::int64_t index_a, A b, std::int64_t index_b) {
  if (std::isnan(a) != std::isnan(b)) return std::isnan(b);
  if (!std::isnan(a) && a != b) return a > b;
  return index_a < index_b;
}

template <class A> std::vector<A> numbers() {
  using limits = std::numeric_limits<A>;
  std::vector<A> all{0, 1, 2, limits::min(), limits::denorm_min(), limits::max(), limits::infinity(), limits::quiet_NaN(), A(3.5)};
  all.push_back(std::nextafter(A(1), A(2)));
  all.push_back(std::nextafter(A(1), A(0)));
  std::mt19937 bits(1);
  for (int i = 0; i < 100; ++i) all.push_back(std::ldexp(static_cast<A>(bits() % 1000), static_cast<int>(bits() % 60) - 30));
  const std::size_t count = all.size();
  for (std::size_t i = 0; i < count; ++i) all.push_back(std::copysign(all[i], A(-1)));
  return all;
}

// One of 16 bits as the number it is.
float number_of(std::uint16_t bits, std::uint32_t infinity) {
  return infinity == 0x7f80 ? sara::float_of_bf16(bits) : sara::float_of_fp16(bits);
}

}   // namespace

TEST_CASE("order: keys of float and double are in the order of choice", "[math]") {
  const auto narrow = numbers<float>();
  const auto wide = numbers<double>();
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < narrow.size(); ++i)
    for (std::size_t j = 0; j < narrow.size(); ++j) {
      if (i == j) continue;
      const std::uint32_t a = static_cast<std::uint32_t>(i * 7919 % narrow.size()),
                          b = static_cast<std::uint32_t>(j * 7919 % narrow.size());
      wrong += (narrow_key(narrow[i], a) > narrow_key(narrow[j], b)) != ranks_before(narrow[i], a, narrow[j], b);
      wrong += (wide_key{ordered_bits(wide[i]), a} > wide_key{ordered_bits(wide[j]), b}) != ranks_before(wide[i], a, wide[j], b);
    }
  CHECK(wrong == 0);
  for (const std::uint32_t e : {0u, 1u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
    CHECK(index_of(narrow_key(-3.0f, e)) == e);
    CHECK(narrow_key(-NAN, e) > no_narrow_key);
  }
  CHECK(wide_key{ordered_bits(-static_cast<double>(NAN)), std::numeric_limits<std::int64_t>::max() - 1} > wide_key::none());
  CHECK(!(wide_key::none() > wide_key::none()));
  const wide_key better{5, 2}, worse{5, 3};
  CHECK(larger(better, worse).index == 2);
  CHECK(smaller(better, worse).index == 3);
}

TEST_CASE("order: every 16-bit number, alone and two in a word", "[math]") {
  for (const std::uint32_t infinity : {0x7f80u, 0x7c00u}) {   // of bf16, of fp16
    std::vector<std::uint16_t> all(65536);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
    const auto value = [&](std::uint16_t bits) { return number_of(bits, infinity); };
    const auto is_nan = [&](std::uint16_t bits) { return (bits & 0x7fffu) > infinity; };
    std::stable_sort(all.begin(), all.end(),
                     [&](std::uint16_t a, std::uint16_t b) { return is_nan(a) != is_nan(b) ? is_nan(a) : value(a) < value(b); });
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::uint32_t bits = all[i], exact = ordered_half(bits, infinity);
      wrong += is_nan(all[i]) ? exact != 1 : exact <= 1;
      if (i > 0 && !is_nan(all[i - 1])) {
        const std::uint32_t before = ordered_half(all[i - 1], infinity);
        wrong += value(all[i - 1]) == value(all[i]) ? before != exact : before >= exact;
      }
      // In a word, whatever the other half: NaN lies outside of the infinities, all else is as it is alone.
      for (const std::uint32_t other : {0x0000u, 0x8000u, 0xffffu, 0x7fffu, 0xff80u, 0x1234u}) {
        const std::uint32_t low = ordered_halves(bits | other << 16) & 0xffffu, high = ordered_halves(other | bits << 16) >> 16;
        wrong += low != high || low == 0;
        if (!is_nan(all[i]))
          wrong += low != exact;
        else
          wrong += bits & 0x8000u ? low >= 0x8000u - infinity : low <= 0x8000u + infinity;
      }
    }
    CHECK(wrong == 0);
  }
}
