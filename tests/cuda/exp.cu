// The device's exponential of usual logits, against exp in double.
#include <sara/gate_softmax.hpp>

#include <cmath>
#include <limits>

#include "catch.hpp"
#include "device_vector.cuh"

using namespace device_tests;

namespace {

template <class A> __global__ void exponentials(const A* x, A* to, sara::index_t count) {
  const sara::usual_exp<A> exp;
  const sara::index_t i = static_cast<sara::index_t>(blockIdx.x) * sara::block_threads + static_cast<int>(threadIdx.x);
  if (i < count) to[i] = exp(x[i]);
}

std::vector<float> exponentials_of(const std::vector<float>& x) {
  const stream on;
  const device_vector<float> from(x), to(x.size(), 0);
  const auto count = static_cast<sara::index_t>(x.size());
  sara::device_call("exponentials", on)
      .launch(exponentials<float>, (count + 255) / 256, sara::block_threads, 0, from.data(), to.data(), count);
  on.wait();
  return to.get();
}

}   // namespace

TEST_CASE("the exponential of usual logits is within 2 ulp, and |x| / 24 for the rounding of ln 2", "[cuda][precision]") {
  std::vector<float> x{0.f, -0.f};
  for (const float sign : {-1.f, 1.f})
    for (int exponent = -30; exponent <= 6; ++exponent)
      for (int i = 0; i < 4000; ++i) {
        const float value = sign * std::ldexp(1 + static_cast<float>(i) / 4000, exponent);
        if (value > -87.3f && value < 17) x.push_back(value);
      }
  const std::vector<float> got = exponentials_of(x);
  double worst = 0, at = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(static_cast<double>(x[i])), error = std::fabs(static_cast<double>(got[i]) * 0x1p-32 - want);
    const double ulps = error / std::ldexp(1.0, std::ilogb(want) - 23);
    const double of_bound = ulps / (2 + std::fabs(static_cast<double>(x[i])) / 24);
    if (!(of_bound <= worst)) worst = of_bound, at = static_cast<double>(x[i]);
  }
  INFO("worst at " << at);
  CHECK(worst <= 1);
}

TEST_CASE("the exponential of what is no usual logit gives itself away, or is 0", "[cuda]") {
  constexpr float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> got = exponentials_of({-inf, -1e30f, -111.f, inf, 1e30f, 96.f, NAN});
  for (const std::size_t i : {0, 1, 2}) CHECK(got[i] == 0);
  for (const std::size_t i : {3, 4, 5, 6}) CHECK_FALSE(sara::math::usual_exp_row<float>::was_usual(got[i], 1.f));
}
