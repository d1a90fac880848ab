#include "statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

namespace sara_finetune {
namespace {

// The incomplete beta function's continued fraction (Abramowitz and Stegun 26.5.8) by Lentz's method.
double beta_fraction(double x, double a, double b) {
  constexpr double tiny = 1e-300, rounding = 1e-16;
  const auto away_from_0 = [](double value) { return std::abs(value) < tiny ? tiny : value; };
  double c = 1, d = 1 / away_from_0(1 - (a + b) * x / (a + 1)), fraction = d;
  for (int m = 1; m < 10'000; ++m) {
    double last = 1;
    for (const double term :
         {m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))}) {
      d = 1 / away_from_0(1 + term * d);
      c = away_from_0(1 + term / c);
      last = c * d;
      fraction *= last;
    }
    if (std::abs(last - 1) < rounding) break;
  }
  return fraction;
}

// Regularised, with y = 1 - x given for its digits where x is near 1.
double incomplete_beta(double x, double y, double a, double b) {
  if (x <= 0) return 0;
  if (y <= 0) return 1;
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log(y));
  return x < (a + 1) / (a + b + 2) ? front * beta_fraction(x, a, b) / a : 1 - front * beta_fraction(y, b, a) / b;
}

// The point where a rising function passes `wanted`, as near as doubles come.
template <class Function> double solve(const Function& f, double wanted) {
  double low = -1, high = 1;
  while (f(low) > wanted) low *= 2;
  while (f(high) < wanted) high *= 2;
  for (;;) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) return middle;
    (f(middle) < wanted ? low : high) = middle;
  }
}

void check_probability(const char* name, double value) {
  if (!(value > 0 && value < 1)) throw std::runtime_error(std::string(name) + " must be between 0 and 1, but is " + std::to_string(value));
}

}   // namespace

double mean(std::span<const double> values) {
  if (values.empty()) throw std::runtime_error("mean: expected at least one value, found none");
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

std::optional<double> standard_deviation(std::span<const double> values) {
  if (values.size() < 2) return std::nullopt;
  const double centre = mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - centre) * (value - centre);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double student_probability(double t, double degrees) {
  if (!(degrees > 0)) throw std::runtime_error("degrees of freedom must be above 0, but are " + std::to_string(degrees));
  const double tail = incomplete_beta(degrees / (degrees + t * t), t * t / (degrees + t * t), degrees / 2, 0.5) / 2;
  return t < 0 ? tail : 1 - tail;
}

double student_quantile(double probability, double degrees) {
  check_probability("student_quantile: probability", probability);
  // The lower tail keeps its digits.
  const double t = solve([&](double at) { return student_probability(at, degrees); }, std::min(probability, 1 - probability));
  return probability < 0.5 ? t : -t;
}

std::optional<interval> mean_interval(std::span<const double> values, double confidence) {
  check_probability("mean_interval: confidence", confidence);
  const std::optional<double> deviation = standard_deviation(values);
  if (!deviation) return std::nullopt;
  const double count = static_cast<double>(values.size()), centre = mean(values);
  const double half = student_quantile((1 + confidence) / 2, count - 1) * *deviation / std::sqrt(count);
  return interval{.mean = centre, .low = centre - half, .high = centre + half};
}

std::optional<interval> paired_difference(std::span<const double> a, std::span<const double> b, double confidence) {
  if (a.size() != b.size())
    throw std::runtime_error("paired_difference: expected as many values on either side, found " + std::to_string(a.size()) + " and " +
                             std::to_string(b.size()));
  std::vector<double> differences(a.begin(), a.end());
  for (std::size_t i = 0; i < b.size(); ++i) differences[i] -= b[i];
  return mean_interval(differences, confidence);
}

std::optional<interval> share_interval(std::int64_t right, std::int64_t items, double confidence) {
  check_probability("share_interval: confidence", confidence);
  if (right < 0 || right > items)
    throw std::runtime_error("share_interval: expected right from 0 to items, found " + std::to_string(right) + " of " +
                             std::to_string(items));
  if (items == 0) return std::nullopt;
  const double z = solve([](double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; }, (1 + confidence) / 2);
  const double n = static_cast<double>(items), share = static_cast<double>(right) / n, by_items = z * z / n;
  const double centre = (share + by_items / 2) / (1 + by_items);
  const double half = z * std::sqrt(share * (1 - share) / n + by_items / (4 * n)) / (1 + by_items);
  return interval{.mean = share, .low = std::max(0.0, centre - half), .high = std::min(1.0, centre + half)};
}

}   // namespace sara_finetune
