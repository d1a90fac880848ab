// What a handful of seeds, or a share of items, allows to be said.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace sara_finetune {

struct interval {
  double mean = 0, low = 0, high = 0;

  // Whether `from` lies outside.
  bool resolves(double from = 0) const { return low > from || high < from; }
};

// Throws without values.
double mean(std::span<const double> values);

// With n - 1 in the denominator; absent for fewer than two values.
std::optional<double> standard_deviation(std::span<const double> values);

// P(T <= t) of Student's t, for degrees of freedom above 0, whole or not.
double student_probability(double t, double degrees);

// The t with P(T <= t) = probability; throws unless 0 < probability < 1.
double student_quantile(double probability, double degrees);

// Of the values' expectation, by Student's t. Absent for fewer than two values: one seed shows no interval.
std::optional<interval> mean_interval(std::span<const double> values, double confidence = 0.95);

// Of a minus b, which belong together seed by seed. Throws unless they are equally many.
std::optional<interval> paired_difference(std::span<const double> a, std::span<const double> b, double confidence = 0.95);

// Wilson's score interval (1927) of a share: it keeps within [0, 1] and holds for few items too. Its `mean` is right / items. Absent
// without items.
std::optional<interval> share_interval(std::int64_t right, std::int64_t items, double confidence = 0.95);

}   // namespace sara_finetune
