// Fresh random input: never zeros, whose pages the system shares and whose exponentials cost nothing.
#pragma once

#include <sara/core/types.hpp>

#include <cmath>
#include <random>
#include <vector>

namespace benchmarks {

// Normal with standard deviation 2, as a trained router's logits; rounded to T.
template <class T> std::vector<T> random_logits(sara::index_t size, unsigned seed) {
  std::mt19937_64 bits(seed);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  std::vector<T> values(static_cast<std::size_t>(size));
  for (T& x : values) x = T(normal(bits));
  return values;
}

// Rows of positive numbers that sum to 1.
inline std::vector<float> random_distributions(sara::index_t rows, sara::index_t experts, unsigned seed) {
  std::vector<float> values = random_logits<float>(rows * experts, seed);
  for (auto row = values.begin(); row != values.end(); row += experts) {
    double sum = 0;
    for (auto x = row; x != row + experts; ++x) sum += * x = std::exp(*x);
    for (auto x = row; x != row + experts; ++x) *x = static_cast<float>(*x / sum);
  }
  return values;
}

}   // namespace benchmarks
