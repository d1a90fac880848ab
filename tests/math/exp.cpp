// The kernels' exponential, in units in the last place, in every instruction set.
#include <sara/cpu/dispatch.hpp>
#include <sara/cpu/simd.hpp>
#include <sara/math/exp.hpp>

#include <bit>
#include <cmath>
#include <vector>

#include "catch.hpp"

namespace {

template <class A> struct exp_kernel {
  using arithmetic = A;
  const A* z;
  A* out;
  sara::index_t n;
  A max;

  template <int bytes> SARA_INLINE void run() const {
    using V = sara::simd<A, bytes>;
    const sara::math::exp_row<A> row(max);
    for (sara::index_t i = 0; i < n; i += V::lanes) sara::store(out + i, sara::math::exp_scaled<V::looks_up_16>(sara::load<V>(z + i), row));
  }
};

// What rows of usual logits take instead.
template <class A> struct usual_kernel {
  using arithmetic = A;
  const A* z;
  A* out;
  sara::index_t n;
  sara::math::usual_exp_row<A> row = {};

  template <int bytes> SARA_INLINE void run() const {
    using V = sara::simd<A, bytes>;
    for (sara::index_t i = 0; i < n; i += 2 * V::lanes) {
      V x[2] = {sara::load<V>(z + i), sara::load<V>(z + i + V::lanes)};
      sara::math::exp_usual(x, row);
      sara::store(out + i, x[0]);
      sara::store(out + i + V::lanes, x[1]);
    }
  }
};

template <class A> using wide = std::conditional_t<std::is_same_v<A, float>, double, long double>;

// The largest error in ulp of exp(z) / exp-scale over the zs, whose largest possible is `max`.
template <class A> double worst_ulp(sara::instruction_set isa, std::vector<A> zs, A max) {
  if (zs.empty()) return 0;
  zs.resize((zs.size() + 63) / 64 * 64, max);
  std::vector<A> got(zs.size());
  sara::run_kernel(isa, 64, exp_kernel<A>{zs.data(), got.data(), static_cast<sara::index_t>(zs.size()), max});
  const sara::math::exp_row<A> row(max);
  const int scale = static_cast<int>(row.rounder - sara::math::exp_constants<A>::magic) - sara::math::exp_constants<A>::exponent_bias;
  double worst = 0;
  for (std::size_t i = 0; i < zs.size(); ++i) {
    const wide<A> want = std::ldexp(std::exp(static_cast<wide<A>>(zs[i])), scale);
    const wide<A> unit = std::ldexp(wide<A>(1), std::ilogb(want) - (std::numeric_limits<A>::digits - 1));
    const double error = static_cast<double>(std::abs(static_cast<wide<A>>(got[i]) - want) / unit);
    if (!(error <= worst)) worst = error;   // a NaN stays
  }
  return worst;
}

template <class A> double worst_ulp_as_usual(sara::instruction_set isa, std::vector<A> zs) {
  if (zs.empty()) return 0;
  zs.resize((zs.size() + 63) / 64 * 64, A(0));
  std::vector<A> got(zs.size());
  sara::run_kernel(isa, 64, usual_kernel<A>{zs.data(), got.data(), static_cast<sara::index_t>(zs.size())});
  double worst = 0;
  for (std::size_t i = 0; i < zs.size(); ++i) {
    const wide<A> want = std::ldexp(std::exp(static_cast<wide<A>>(zs[i])), sara::math::exp_constants<A>::usual_bias);
    const wide<A> unit = std::ldexp(wide<A>(1), std::ilogb(want) - (std::numeric_limits<A>::digits - 1));
    const double error = static_cast<double>(std::abs(static_cast<wide<A>>(got[i]) - want) / unit);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

// `steps` evenly spaced numbers of the binade [2^e, 2^(e+1)), none beyond `limit`, of either sign.
template <class A> std::vector<A> binade(int e, int steps, A limit, int sign) {
  std::vector<A> v;
  for (int i = 0; i < steps; ++i) {
    const A x = std::ldexp(A(1) + static_cast<A>(i + 0.37) / static_cast<A>(steps), e);
    if (x <= limit) v.push_back(sign < 0 ? -x : x);
  }
  return v;
}

// The same over ascending zs, each few of them a row of its own.
template <class A> double worst_ulp_in_rows(sara::instruction_set isa, const std::vector<A>& zs) {
  double worst = 0;
  for (std::size_t i = 0; i < zs.size(); i += 64) {
    const std::vector<A> row(zs.begin() + static_cast<std::ptrdiff_t>(i),
                             zs.begin() + static_cast<std::ptrdiff_t>(std::min(i + 64, zs.size())));
    worst = std::max(worst, worst_ulp(isa, row, row.back()));
  }
  return worst;
}

template <class Visit> void for_each_isa(Visit&& visit) {
  for (const auto isa : {sara::instruction_set::vector128, sara::instruction_set::avx2, sara::instruction_set::avx512})
    if (sara::is_supported(isa)) {
      INFO(sara::name_of(isa));
      visit(isa);
    }
}

}   // namespace

TEST_CASE("exp: at most 2 ulp in every binade below the row's largest", "[math][precision]") {
  for_each_isa([](sara::instruction_set isa) {
    double worst = 0;
    for (int e = -126; e <= 6; ++e) worst = std::max(worst, worst_ulp(isa, binade(e, 4096, 103.9f, -1), 0.0f));
    INFO("worst " << worst);
    CHECK(worst <= 2);
  });
}

TEST_CASE("exp: at most 2 ulp in every binade of positive logits", "[math][precision]") {
  for_each_isa([](sara::instruction_set isa) {
    double worst = 0;
    for (int e = -126; e <= 7; ++e) worst = std::max(worst, worst_ulp_in_rows(isa, binade(e, 4096, 255.f, 1)));
    INFO("worst " << worst);
    CHECK(worst <= 2);
  });
}

TEST_CASE("exp: at most 2 ulp down to the least probability, wherever the largest logit lies between powers of two", "[math][precision]") {
  for_each_isa([](sara::instruction_set isa) {
    double worst = 0;
    for (int i = -200; i <= 200; ++i) {
      const float max = static_cast<float>(i) * 1.27f;
      std::vector<float> z;
      for (int j = 0; j < 4096; ++j) z.push_back(max - 103.95f * static_cast<float>(j) / 4095.f);
      worst = std::max(worst, worst_ulp(isa, z, max));
    }
    INFO("worst " << worst);
    CHECK(worst <= 2);
  });
}

TEST_CASE("exp: at most 2 ulp in double too", "[math][precision]") {
  for_each_isa([](sara::instruction_set isa) {
    double worst = 0;
    for (int e = -60; e <= 9; ++e) worst = std::max(worst, worst_ulp(isa, binade(e, 1000, 744.0, -1), 0.0));
    for (int e = -60; e <= 10; ++e) worst = std::max(worst, worst_ulp_in_rows(isa, binade(e, 1024, 2000.0, 1)));
    INFO("worst " << worst);
    CHECK(worst <= 2);
  });
}

TEST_CASE("exp: 0 for what is too small and for -inf, NaN for NaN, also beside huge logits", "[math]") {
  constexpr float inf = std::numeric_limits<float>::infinity();
  for_each_isa([&](sara::instruction_set isa) {
    for (const float max : {0.0f, 90.0f, -90.0f, 255.0f, 300.0f, -1e30f, 1e30f, 3e38f}) {
      std::vector<float> z(16, max), got(16);
      z[1] = -inf;
      z[2] = NAN;
      z[3] = -3.4e38f;
      z[4] = max - 1000;
      sara::run_kernel(isa, 16, exp_kernel<float>{z.data(), got.data(), 16, max});
      INFO(max);
      CHECK(got[0] > 0);
      CHECK(got[0] < inf);
      CHECK(got[1] == 0);
      CHECK(std::isnan(got[2]));
      CHECK(got[3] == 0);
      CHECK((got[4] == 0 || max - 1000 == max));
    }
  });
}

TEST_CASE("exp: at most 2 ulp in rows of usual logits, at most 3/4 where powers are looked up", "[math][precision]") {
  for_each_isa([](sara::instruction_set isa) {
    double worst = 0;
    for (int e = -126; e <= 6; ++e) worst = std::max(worst, worst_ulp_as_usual(isa, binade(e, 4096, 109.f, -1)));
    for (int e = -126; e <= 4; ++e) worst = std::max(worst, worst_ulp_as_usual(isa, binade(e, 4096, 16.f, 1)));
    INFO("worst of fp32 " << worst);
    CHECK(worst <= (isa == sara::instruction_set::avx512 && sara::simd<float, 64>::looks_up_16 ? 0.75 : 2));
    worst = 0;
    for (int e = -60; e <= 9; ++e) worst = std::max(worst, worst_ulp_as_usual(isa, binade(e, 1000, 751.0, -1)));
    for (int e = -60; e <= 4; ++e) worst = std::max(worst, worst_ulp_as_usual(isa, binade(e, 1000, 16.0, 1)));
    INFO("worst " << worst);
    CHECK(worst <= 2);
  });
}

TEMPLATE_TEST_CASE("exp: what is not usual shows in the sum", "[math]", float, double) {
  using A = TestType;
  using row = sara::math::usual_exp_row<A>;
  constexpr A inf = std::numeric_limits<A>::infinity();
  for_each_isa([&](sara::instruction_set isa) {
    const auto sum_with = [&](A rest, A one) {
      std::vector<A> z(64, rest), got(64);
      z[17] = one;
      sara::run_kernel(isa, 64, usual_kernel<A>{z.data(), got.data(), 64});
      CHECK((rest != -inf || got[0] == 0));
      A sum = 0;
      for (const A x : got) sum += x;
      return sum;
    };
    for (const A one : {A(-0.8), A(0), A(1), A(10), A(15.9)}) {
      INFO(one);
      CHECK(row::was_usual(sum_with(-inf, one), 64));
      CHECK(row::was_usual(sum_with(-std::numeric_limits<A>::max(), one), 64));
      CHECK(row::was_usual(sum_with(one - 1000, one), 64));
    }
    for (const A one :
         {A(-5.1), A(-40), A(-1000), A(16.1), A(17), A(18), A(30), A(70), A(100), A(200), A(1e4), A(1e30), std::numeric_limits<A>::max(),
          inf, -inf, std::numeric_limits<A>::quiet_NaN(), -std::numeric_limits<A>::quiet_NaN()})
      for (const A rest : {-inf, A(-200), A(-7)}) {
        INFO(one << " among " << rest);
        CHECK(!row::was_usual(sum_with(rest, one), 64));
      }
  });
}

TEST_CASE("exp: the comparator sees three ulp", "[math][precision]") {
  const float z = -1.0f;
  const double want = std::exp(-1.0), unit = std::ldexp(1.0, std::ilogb(want) - 23);
  CHECK(std::abs(static_cast<double>(std::exp(z)) + 3 * unit - want) / unit > 2);
  CHECK(worst_ulp(sara::instruction_set::vector128, std::vector<float>{z}, 0.0f) > 0);   // it compares at all
}

TEST_CASE("exp: at most 2 ulp for every float", "[.][long][math]") {
  for_each_isa([](sara::instruction_set isa) {
    double worst = 0;
    const auto run = [&](float limit, std::uint32_t sign, float max) {
      std::vector<float> zs;
      for (std::uint32_t u = 0; u <= std::bit_cast<std::uint32_t>(limit); ++u) {
        zs.push_back(std::bit_cast<float>(u | sign));
        if (zs.size() == 1u << 16) {
          worst = std::max(worst, worst_ulp(isa, zs, sign ? max : zs.back()));
          zs.clear();
        }
      }
      if (!zs.empty()) worst = std::max(worst, worst_ulp(isa, zs, sign ? max : zs.back()));
    };
    run(103.9f, 0x80000000u, 0.0f);
    run(255.9f, 0, 0.0f);
    const auto run_as_usual = [&](float limit, std::uint32_t sign) {
      std::vector<float> zs;
      for (std::uint32_t u = 0; u <= std::bit_cast<std::uint32_t>(limit); ++u) {
        zs.push_back(std::bit_cast<float>(u | sign));
        if (zs.size() == 1u << 16 || u == std::bit_cast<std::uint32_t>(limit)) {
          worst = std::max(worst, worst_ulp_as_usual(isa, zs));
          zs.clear();
        }
      }
    };
    run_as_usual(109.f, 0x80000000u);
    run_as_usual(16.f, 0);
    INFO("worst " << worst);
    CHECK(worst <= 2);
  });
}
