// The kernels' log, log1p and atanh in double, over the ranges that the divergence needs, in every instruction set.
#include <sara/cpu/dispatch.hpp>
#include <sara/cpu/simd.hpp>

#include <cmath>
#include <random>
#include <vector>

#include "catch.hpp"

namespace {

enum class function { log, log1p, atanh };

struct log_kernel {
  using arithmetic = double;
  function f;
  const double* x;
  double* out;
  sara::index_t n;

  template <int bytes> SARA_INLINE void run() const {
    using V = sara::simd<double, bytes>;
    for (sara::index_t i = 0; i < n; i += V::lanes) {
      const V v = sara::load<V>(x + i);
      sara::store(out + i, f == function::log ? log(v) : f == function::log1p ? log1p(v) : atanh(v));
    }
  }
};

long double exact(function f, double x) {
  const long double wide = x;
  return f == function::log ? std::log(wide) : f == function::log1p ? std::log1p(wide) : std::atanh(wide);
}

double worst_ulp(sara::instruction_set isa, function f, std::vector<double> x) {
  x.resize((x.size() + 7) / 8 * 8, x.front());
  std::vector<double> got(x.size());
  sara::run_kernel(isa, 8, log_kernel{f, x.data(), got.data(), static_cast<sara::index_t>(x.size())});
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double want = exact(f, x[i]);
    if (want == 0 && got[i] == 0) continue;
    const long double unit = std::ldexp(1.0L, std::max(std::ilogb(want), -1022) - 52);
    const double error = static_cast<double>(std::abs(got[i] - want) / unit);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

std::vector<double> numbers(double low, double high, bool by_exponent) {
  std::mt19937_64 bits(9);
  std::uniform_real_distribution<double> u(by_exponent ? std::log(low) : low, by_exponent ? std::log(high) : high);
  std::vector<double> x(50000);
  for (double& v : x) v = by_exponent ? std::exp(u(bits)) : u(bits);
  x.push_back(low);
  x.push_back(high);
  return x;
}

template <class Visit> void for_each_isa(Visit&& visit) {
  for (const auto isa : {sara::instruction_set::vector128, sara::instruction_set::avx2, sara::instruction_set::avx512})
    if (sara::is_supported(isa)) {
      INFO(sara::name_of(isa));
      visit(isa);
    }
}

}   // namespace

TEST_CASE("log: at most 2 ulp over all normal numbers, also about 1", "[math][precision]") {
  for_each_isa([](sara::instruction_set isa) {
    CHECK(worst_ulp(isa, function::log, numbers(std::numeric_limits<double>::min(), 1e308, true)) <= 2);
    CHECK(worst_ulp(isa, function::log, numbers(0.5, 2, false)) <= 2);
    CHECK(worst_ulp(isa, function::log, numbers(1, 1 + 1e-9, false)) <= 2);
    CHECK(worst_ulp(isa, function::log, {1.0}) == 0);
  });
}

TEST_CASE("log1p and atanh: at most 2 ulp where the divergence's near form asks for them", "[math][precision]") {
  for_each_isa([](sara::instruction_set isa) {
    CHECK(worst_ulp(isa, function::log1p, numbers(-0.25, 0, false)) <= 2);
    CHECK(worst_ulp(isa, function::log1p, numbers(-1e-12, 0, false)) <= 2);
    CHECK(worst_ulp(isa, function::atanh, numbers(0, 0.5, false)) <= 2);
    CHECK(worst_ulp(isa, function::atanh, numbers(1e-12, 0.5, true)) <= 2);
  });
}

TEST_CASE("log: denormals are numbers like any other", "[math]") {
  for_each_isa([](sara::instruction_set isa) {
    CHECK(worst_ulp(isa, function::log, {5e-324, 1e-320, 3e-310, 2.2250738585072009e-308}) <= 2);
  });
}

TEST_CASE("log: NaN for NaN", "[math]") {
  for_each_isa([](sara::instruction_set isa) {
    for (const auto f : {function::log, function::log1p, function::atanh}) {
      std::vector<double> x(8, NAN), got(8);
      sara::run_kernel(isa, 8, log_kernel{f, x.data(), got.data(), 8});
      CHECK(std::isnan(got[0]));
      CHECK(std::isnan(got[7]));
    }
  });
}
