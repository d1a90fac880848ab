// Means, deviations and intervals against values from tables.
#include "sara_finetune/evaluation/statistics.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "../files.hpp"
#include "catch.hpp"

namespace {

using namespace sara_finetune;

}   // namespace

TEST_CASE("statistics: mean and sample deviation", "[sara_finetune]") {
  const std::vector<double> values{2, 4, 4, 4, 5, 5, 7, 9};
  CHECK(mean(values) == 5);
  CHECK(*standard_deviation(values) == Approx(std::sqrt(32.0 / 7)));
  CHECK_FALSE(standard_deviation(std::vector<double>{3}));
  CHECK_FALSE(standard_deviation({}));
  CHECK(files::complaint([] { mean({}); }) == "mean: expected at least one value, found none");
}

TEST_CASE("statistics: Student's quantiles are those of the tables", "[sara_finetune]") {
  const struct {
    double degrees, t;
  } table[] = {{1, 12.7062047362}, {2, 4.30265272975}, {4, 2.7764451052}, {9, 2.26215716280}, {30, 2.04227245630}, {1e6, 1.95996635684}};
  for (const auto& [degrees, t] : table) {
    CHECK(student_quantile(0.975, degrees) == Approx(t).epsilon(1e-9));
    CHECK(student_quantile(0.025, degrees) == Approx(-t).epsilon(1e-9));
    CHECK(student_probability(t, degrees) == Approx(0.975).epsilon(1e-9));
  }
  CHECK(student_quantile(0.995, 4) == Approx(4.6040948713).epsilon(1e-9));
  CHECK(student_quantile(0.5, 3) == Approx(0).margin(1e-12));
  // With one degree Cauchy's distribution, with two 1/2 + t / (2 sqrt(2 + t^2)).
  for (const double t : {-1e6, -3.0, -0.1, 0.0, 1e-9, 0.7, 40.0}) {
    CHECK(student_probability(t, 1) == Approx(0.5 + std::atan(t) / std::acos(-1)).epsilon(1e-9).margin(1e-12));
    CHECK(student_probability(t, 2) == Approx(0.5 + t / (2 * std::sqrt(2 + t * t))).epsilon(1e-9).margin(1e-12));
  }
  CHECK(student_probability(student_quantile(0.9, 2.5), 2.5) == Approx(0.9).epsilon(1e-12));
  CHECK(files::complaint([] { student_quantile(1, 3); }) == "student_quantile: probability must be between 0 and 1, but is 1.000000");
  CHECK(files::complaint([] { student_probability(1, 0); }) == "degrees of freedom must be above 0, but are 0.000000");
}

TEST_CASE("statistics: a paired difference and what it resolves", "[sara_finetune]") {
  // Differences 1, 2, 3: mean 2, deviation 1, t 4.30265 with two degrees.
  const std::vector<double> a{11, 22, 33}, b{10, 20, 30};
  const interval difference = *paired_difference(a, b);
  CHECK(difference.mean == Approx(2));
  CHECK(difference.low == Approx(2 - 4.30265272975 / std::sqrt(3.0)));
  CHECK(difference.high == Approx(2 + 4.30265272975 / std::sqrt(3.0)));
  CHECK_FALSE(difference.resolves());
  CHECK(difference.resolves(-1));
  CHECK(difference.resolves(5));
  CHECK(paired_difference(a, b, 0.8)->resolves());
  const interval reversed = *paired_difference(b, a);
  CHECK(reversed.mean == -difference.mean);
  CHECK(reversed.low == -difference.high);

  const interval none = *paired_difference(a, a);
  CHECK(none.mean == 0);
  CHECK_FALSE(none.resolves());
  CHECK_FALSE(paired_difference(std::vector<double>{1}, std::vector<double>{2}));   // one seed shows no interval
  CHECK_FALSE(paired_difference({}, {}));
  CHECK(files::complaint([&] { paired_difference(a, std::vector<double>{1}); }) ==
        "paired_difference: expected as many values on either side, found 3 and 1");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(mean_interval(std::vector<double>{1, nan, 2})->resolves());
  CHECK(files::complaint([&] { mean_interval(a, 0); }) == "mean_interval: confidence must be between 0 and 1, but is 0.000000");
}

TEST_CASE("statistics: Wilson's interval of a share", "[sara_finetune]") {
  const interval some = *share_interval(15, 50);
  CHECK(some.mean == Approx(0.3));
  CHECK(some.low == Approx(0.19103553500880954).epsilon(1e-12));
  CHECK(some.high == Approx(0.437503504644534).epsilon(1e-12));
  CHECK_FALSE(some.resolves(0.25));
  CHECK(some.resolves(0.5));
  const interval no = *share_interval(0, 10), all = *share_interval(10, 10);
  CHECK(no.low == 0);
  CHECK(no.high == Approx(0.2775327998628892).epsilon(1e-12));
  CHECK(all.low == Approx(1 - 0.2775327998628892).epsilon(1e-12));
  CHECK(all.high == 1);
  CHECK_FALSE(share_interval(0, 0));
  CHECK(files::complaint([] { share_interval(3, 2); }) == "share_interval: expected right from 0 to items, found 3 of 2");
}
