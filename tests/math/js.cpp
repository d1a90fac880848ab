// The one place of the divergence's formula: value and slopes of one expert against the definition in long double.
#include <sara/math/js.hpp>

#include <cmath>
#include <random>

#include "catch.hpp"
#include "oracle/oracle.hpp"

namespace {

struct worst_errors {
  double value = 0, slope = 0;
};

// Relative errors of value and slopes for q = p (1 + d), with |d| from 1e-9 to 1e9.
template <class R> worst_errors sweep() {
  std::mt19937_64 bits(5);
  std::uniform_real_distribution<double> magnitude(-9, 9), exponent(-8, 0);
  worst_errors worst;
  for (int i = 0; i < 200000; ++i) {
    const R p = static_cast<R>(std::pow(10.0, exponent(bits)));
    const double d = std::pow(10.0, magnitude(bits));
    const R q = static_cast<R>(static_cast<double>(p) * (bits() % 2 ? 1 + d : 1 / (1 + d)));
    if (q == p) continue;
    const auto got = sara::math::js(p, q);
    const long double lp = p, lq = q, m = (lp + lq) / 2;
    const long double want = oracle::js(&lp, &lq, 1), want_p = oracle::js_slope_p(&lp, &lq, 1)[0],
                      want_q = oracle::js_slope_q(&lp, &lq, 1)[0];
    worst.value = std::max(worst.value, static_cast<double>(std::abs(static_cast<long double>(got.value) - want) / want));
    worst.slope = std::max(worst.slope, static_cast<double>(std::abs(static_cast<long double>(got.slope_p) - want_p) / std::abs(want_p)));
    worst.slope = std::max(worst.slope, static_cast<double>(std::abs(static_cast<long double>(got.slope_q) - want_q) / std::abs(want_q)));
    // never negative, never above m ln 2 by more than a unit
    REQUIRE(got.value >= 0);
    REQUIRE(static_cast<long double>(got.value) <= m * 0.693147180559945309417232121458L * (1 + 4 * std::numeric_limits<R>::epsilon()));
  }
  return worst;
}

}   // namespace

TEST_CASE("js: value and slopes to a few roundings, from 1e-9 apart to 1e9 apart", "[math][precision]") {
  const worst_errors d = sweep<double>();
  INFO("double " << d.value << " " << d.slope);
  CHECK(d.value <= 2e-15);
  CHECK(d.slope <= 2e-15);
}

TEMPLATE_TEST_CASE("js: symmetric bit by bit, also in its slopes", "[math][precision]", double) {
  std::mt19937_64 bits(6);
  std::uniform_real_distribution<double> exponent(-12, 0);
  for (int i = 0; i < 100000; ++i) {
    const auto p = static_cast<TestType>(std::pow(10.0, exponent(bits)));
    const auto q = i % 2 ? static_cast<TestType>(std::pow(10.0, exponent(bits))) : std::nextafter(p, TestType(2));
    const auto pq = sara::math::js(p, q), qp = sara::math::js(q, p);
    REQUIRE(pq.value == qp.value);
    REQUIRE(pq.slope_p == qp.slope_q);
    REQUIRE(pq.slope_q == qp.slope_p);
  }
}

TEMPLATE_TEST_CASE("js: equal sides are 0 with slopes exactly 0; a side of 0 gives m ln 2 and finite slopes", "[math][precision]", double) {
  using R = TestType;
  for (const R p : {R(1), R(0.3), R(1e-30), std::numeric_limits<R>::min()}) {
    const auto equal = sara::math::js(p, p);
    CHECK(equal.value == 0);
    CHECK(equal.slope_p == 0);
    CHECK(equal.slope_q == 0);
    const R ln2 = static_cast<R>(0.69314718055994530942);
    for (const auto& disjoint : {sara::math::js(p, R(0)), sara::math::js(R(0), p)}) {
      CHECK(std::abs(disjoint.value - p / 2 * ln2) <= 2 * (std::nextafter(p / 2 * ln2, R(2)) - p / 2 * ln2));
      CHECK(std::min(disjoint.slope_p, disjoint.slope_q) == 0);
      CHECK(std::abs(std::max(disjoint.slope_p, disjoint.slope_q) - ln2 / 2) <= std::numeric_limits<R>::epsilon());
    }
  }
  const auto empty = sara::math::js(R(0), R(0));
  CHECK(empty.value == 0);
  CHECK(empty.slope_p == 0);
  CHECK(empty.slope_q == 0);
}

// -ffast-math links code that flushes denormals.
TEST_CASE("js: the least denormal is a number like any other, and NaN stays NaN", "[math]") {
  const double least = std::numeric_limits<double>::denorm_min();
  const auto equal = sara::math::js(least, least);
  CHECK(equal.value == 0);
  CHECK(equal.slope_p == 0);
  CHECK(equal.slope_q == 0);
  CHECK(std::isfinite(sara::math::js(least, 0.0).slope_p));
  CHECK(std::isnan(sara::math::js(double(NAN), 0.5).value));
  CHECK(std::isnan(sara::math::js(0.5, double(NAN)).value));
}

TEMPLATE_TEST_CASE("js: slopes are finite where one side is all but 0", "[math][precision]", double) {
  using R = TestType;
  for (const R tiny : {std::numeric_limits<R>::min(), static_cast<R>(1e-20), static_cast<R>(1e-8)}) {
    const auto t = sara::math::js(tiny, R(0.5));
    CHECK(std::isfinite(t.slope_p));
    CHECK(std::abs(t.slope_p - std::log(4 * tiny) / 2) <= 4 * std::numeric_limits<R>::epsilon() * std::abs(t.slope_p) + tiny * 4);
  }
}
