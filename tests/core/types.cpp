// The 16-bit storage types: every pattern, and rounding to nearest even against arithmetic in double.
#include <sara/core/types.hpp>

#include <bit>
#include <cmath>
#include <random>

#include "catch.hpp"

namespace {

// A 16-bit type of some other library, which the storage trait knows by its std::numeric_limits.
struct foreign_half {
  std::uint16_t bits;
};
struct foreign_brain {
  std::uint16_t bits;
};

}   // namespace

template <> struct std::numeric_limits<foreign_half> {
  static constexpr bool is_specialized = true, is_integer = false;
  static constexpr int digits = 11;
};
template <> struct std::numeric_limits<foreign_brain> {
  static constexpr bool is_specialized = true, is_integer = false;
  static constexpr int digits = 8;
};

namespace {

using sara::storage_format;

static_assert(sara::storage_trait<float>::format == storage_format::native &&
              sara::storage_trait<std::int16_t>::format == storage_format::native);
static_assert(sara::storage_trait<long double>::format == storage_format::native &&
              sara::storage_trait<std::uint16_t>::format == storage_format::native);
static_assert(sara::storage_trait<sara::bf16>::format == storage_format::bf16 &&
              sara::storage_trait<sara::fp16>::format == storage_format::fp16);
static_assert(sara::storage_trait<foreign_brain>::format == storage_format::bf16 &&
              sara::storage_trait<foreign_half>::format == storage_format::fp16);
static_assert(sara::storage_trait<__nv_bfloat16>::format == storage_format::bf16 &&
              sara::storage_trait<__half>::format == storage_format::fp16);
static_assert(std::is_same_v<sara::arithmetic_t<double>, double> && std::is_same_v<sara::arithmetic_t<const float>, float>);
static_assert(std::is_same_v<sara::arithmetic_t<sara::bf16>, float> && std::is_same_v<sara::arithmetic_t<const foreign_half>, float>);
static_assert(std::is_same_v<sara::arithmetic_t<long double>, long double>);
static_assert(sara::is_kernel_storage<double> && sara::is_kernel_storage<float> && sara::is_kernel_storage<foreign_half>);
static_assert(!sara::is_kernel_storage<long double> && !sara::is_kernel_storage<std::int16_t>);
static_assert(std::is_trivially_copyable_v<sara::bf16> && sizeof(sara::bf16) == 2 && sizeof(sara::fp16) == 2);

struct format {
  int digits, least_exponent, largest_exponent;   // of normal numbers
};
constexpr format brain{8, -126, 127}, half{11, -14, 15};

// x rounded to nearest even, ties to even: a multiple of the last digit's unit, exact in double.
double rounded(float x, const format& f) {
  if (x == 0 || !std::isfinite(x)) return static_cast<double>(x);
  const double exact = static_cast<double>(x), unit = std::ldexp(1.0, std::max(std::ilogb(exact), f.least_exponent) - (f.digits - 1));
  const double y = std::nearbyint(exact / unit) * unit;
  return std::fabs(y) >= std::ldexp(1.0, f.largest_exponent + 1) ? std::copysign(HUGE_VAL, exact) : y;
}

template <class T> struct of_type;
template <> struct of_type<sara::bf16> {
  static constexpr format shape = brain;
  static std::uint16_t narrow(float x) { return sara::bf16_of_float(x); }
  static float widen(std::uint16_t h) { return sara::float_of_bf16(h); }
};
template <> struct of_type<sara::fp16> {
  static constexpr format shape = half;
  static std::uint16_t narrow(float x) { return sara::fp16_of_float(x); }
  static float widen(std::uint16_t h) { return sara::float_of_fp16(h); }
};

template <class T> bool rounds_right(float x) {
  const double want = rounded(x, of_type<T>::shape);
  const float got = of_type<T>::widen(of_type<T>::narrow(x));
  if (std::isnan(x)) return std::isnan(got);
  return static_cast<double>(got) == want && std::signbit(got) == std::signbit(x);
}

// The value of a pattern, from its fields.
double value_of(std::uint16_t h, const format& f) {
  const int mantissa_bits = f.digits - 1, exponent = (h & 0x7fff) >> mantissa_bits, mantissa = h & ((1 << mantissa_bits) - 1);
  const double sign = h & 0x8000 ? -1 : 1;
  if (exponent == f.largest_exponent - f.least_exponent + 2) return mantissa ? NAN : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, f.least_exponent - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - 1 + f.least_exponent - mantissa_bits);
}

}   // namespace

TEMPLATE_TEST_CASE("16-bit: every pattern has its value and comes back", "[core]", sara::bf16, sara::fp16) {
  int wrong = 0;
  for (std::uint32_t p = 0; p < 65536; ++p) {
    const auto h = static_cast<std::uint16_t>(p);
    const double want = value_of(h, of_type<TestType>::shape);
    const float got = of_type<TestType>::widen(h);
    TestType stored;
    stored.bits = h;
    const float loaded = sara::load_value(stored), cast = static_cast<float>(stored);
    TestType back;
    sara::store_value(back, loaded);
    if (std::isnan(want)) {
      wrong += !(std::isnan(got) && std::isnan(loaded) && std::isnan(cast) && std::isnan(of_type<TestType>::widen(back.bits)) &&
                 (back.bits >> 15) == (h >> 15));
    } else {
      wrong += !(static_cast<double>(got) == want && std::signbit(got) == std::signbit(want) && back.bits == h && loaded == got &&
                 cast == got && TestType(got).bits == h);
    }
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("16-bit: halfway points and their neighbours round to nearest even", "[core]", sara::bf16, sara::fp16) {
  int wrong = 0;
  for (std::uint32_t p = 0; p < 65536; ++p) {
    const auto h = static_cast<std::uint16_t>(p), next = static_cast<std::uint16_t>(p + 1);
    const double here = value_of(h, of_type<TestType>::shape);
    if (!std::isfinite(here)) continue;
    const double there = value_of(next, of_type<TestType>::shape);
    const double top = std::ldexp(1.0, of_type<TestType>::shape.largest_exponent + 1);
    const float middle = static_cast<float>((here + (std::isfinite(there) ? there : std::copysign(top, here))) / 2);
    for (float x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, middle * 2)}) wrong += !rounds_right<TestType>(x);
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("16-bit: random floats round to nearest even", "[core]", sara::bf16, sara::fp16) {
  std::mt19937 bits(7);
  int wrong = 0;
  for (int i = 0; i < 1000000; ++i) {
    wrong += !rounds_right<TestType>(std::bit_cast<float>(static_cast<std::uint32_t>(bits())));
    // the binades that a half can hold, where random patterns are rare
    wrong += !rounds_right<TestType>(std::bit_cast<float>((static_cast<std::uint32_t>(bits()) & 0x807fffffu) |
                                                          ((101u + static_cast<std::uint32_t>(bits()) % 44u) << 23)));
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("16-bit: every float rounds to nearest even", "[.][long][core]", sara::bf16, sara::fp16) {
  std::int64_t wrong = 0;
  for (std::uint64_t u = 0; u < (std::uint64_t{1} << 32); ++u)
    wrong += !rounds_right<TestType>(std::bit_cast<float>(static_cast<std::uint32_t>(u)));
  CHECK(wrong == 0);
}

TEST_CASE("16-bit: another library's types are read and written by their bytes", "[core]") {
  foreign_half h{};
  foreign_brain b{};
  sara::store_value(h, 1.5f);
  sara::store_value(b, -2.0f);
  CHECK(h.bits == 0x3e00);
  CHECK(b.bits == 0xc000);
  CHECK(sara::load_value(h) == 1.5f);
  CHECK(sara::load_value(b) == -2.0f);
  double d = 0;
  sara::store_value(d, 0.1);
  CHECK(sara::load_value(d) == 0.1);
}

TEST_CASE("16-bit: the comparator refuses truncation", "[core]") {
  const float above = std::bit_cast<float>(0x3f80c000u);   // 1 + 1.5 units in the last place of bf16
  CHECK(rounds_right<sara::bf16>(above));
  CHECK(static_cast<double>(sara::float_of_bf16(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(above) >> 16))) !=
        rounded(above, brain));
}
