// A test of the tests: a result that is all zeros, doubled or sign-flipped fails every comparator, and so does a NaN.
#include "../oracle/compare.hpp"

#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

template <class Passes> void rejects_wrong_results(const std::vector<double>& want, const Passes& passes) {
  const auto changed = [&](double factor) {
    auto v = want;
    for (double& x : v) x *= factor;
    return v;
  };
  REQUIRE(passes(want));
  CHECK_FALSE(passes(changed(0)));
  CHECK_FALSE(passes(changed(2)));
  CHECK_FALSE(passes(changed(-1)));
  auto broken = want;
  broken.back() = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(passes(broken));
  broken.back() = std::numeric_limits<double>::infinity();
  CHECK_FALSE(passes(broken));
  auto cut = want;
  cut.pop_back();
  CHECK_FALSE(passes(cut));
}

}   // namespace

TEST_CASE("the gradient's comparator rejects wrong gradients however small their entries", "[comparators]") {
  for (const std::size_t length : {1u, 100u, 2000u}) {
    auto in = oracle::plain_problem(1, 2, 3, length, 16);
    in.scale = length == 1 ? 1 : 1e-6;
    const auto want = oracle::solve(in);
    for (const double epsilon : {0x1p-52, 0x1p-23, 0x1p-8})
      rejects_wrong_results(want.grad,
                            [&](const auto& got) { return oracle::relative_error(got, want.grad, 8 * epsilon * want.grad_floor) <= 2e-6; });
  }
}

TEST_CASE("the gradient's comparator rejects wrong gradients near alignment, where the allowance is all of the tolerance",
          "[comparators]") {
  oracle::source from(3);
  auto in = oracle::plain_problem(2, 1, 2, 64, 32);
  in.anchors = oracle::solve(in).histograms;
  for (double& a : in.anchors) a *= 1 + 1e-4 * from.normal();
  const auto want = oracle::solve(in);
  rejects_wrong_results(want.grad,
                        [&](const auto& got) { return oracle::relative_error(got, want.grad, 8 * 0x1p-23 * want.grad_floor) <= 2e-6; });
}

TEST_CASE("the loss's comparator rejects wrong losses down to 1e-12", "[comparators]") {
  for (double js = 0.69; js > 1e-12; js /= 10)
    rejects_wrong_results({js}, [&](const auto& got) { return got.size() == 1 && oracle::loss_error(got[0], js, std::sqrt(js)) <= 1; });
}

TEST_CASE("where nothing but zeros is wanted nothing else is taken", "[comparators]") {
  CHECK(oracle::relative_error(std::vector<float>{0, 0}, std::vector<double>{0, 0}) == 0);
  CHECK(oracle::relative_error(std::vector<float>{0, 1e-30f}, std::vector<double>{0, 0}) > 1);
  CHECK(oracle::relative_error(std::vector<float>{0, NAN}, std::vector<double>{0, 0}) > 1);
  CHECK(oracle::relative_error(std::vector<float>{NAN, 1}, std::vector<double>{NAN, 1}) == 0);
  CHECK(oracle::relative_error(std::vector<float>{1, 1}, std::vector<double>{NAN, 1}) > 1);
}

TEST_CASE("the unit of a storage type is the distance of neighbouring numbers", "[comparators]") {
  CHECK(oracle::unit_of<float>(1.0) == 0x1p-23);
  CHECK(oracle::unit_of<float>(0.0) == 0x1p-149);
  CHECK(oracle::unit_of<double>(-1.5) == 0x1p-52);
  CHECK(oracle::unit_of<sara::bf16>(1.0) == 0x1p-7);
  CHECK(oracle::unit_of<sara::fp16>(1.0) == 0x1p-10);
  CHECK(oracle::unit_of<sara::fp16>(1e-7) == 0x1p-24);
}
