// The Switch balance loss: (1 / layers) sum over layers of experts sum_e f_e P_e, with f_e the share of the batch's routed slots that
// chose expert e (a constant to the gradient) and P_e the batch's mean probability. 1 where all experts are used equally.
#pragma once

#include <cstdint>
#include <vector>

#include "shape.hpp"

namespace sara_finetune {

// What the loss needs of a batch. Of several shards they add up.
struct balance_statistics {
  std::int64_t tokens = 0;
  std::vector<std::int64_t> counts = {};       // [layers, experts], slots that chose the expert
  std::vector<double> probability_sums = {};   // [layers, experts], over the tokens

  void reset(const model_shape& shape, index_t token_count) {
    const auto size = static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(shape.experts);
    tokens = token_count;
    counts.assign(size, 0);
    probability_sums.assign(size, 0);
  }
  balance_statistics& operator+=(const balance_statistics& other) {
    if (counts.empty()) return *this = other;
    if (counts.size() != other.counts.size())
      throw std::runtime_error("balance statistics must be of one model to be added, but have " + std::to_string(counts.size()) + " and " +
                               std::to_string(other.counts.size()) + " experts in all layers");
    tokens += other.tokens;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      counts[i] += other.counts[i];
      probability_sums[i] += other.probability_sums[i];
    }
    return *this;
  }
};

// The derivative of `weight` times the loss by each entry of probability_sums: [layers, experts].
template <class Scalar>
void balance_slopes_into(const model_shape& shape, const balance_statistics& whole_batch, double weight, std::vector<Scalar>& slopes) {
  slopes.assign(whole_batch.counts.size(), Scalar(0));
  if (whole_batch.tokens == 0) return;
  const double tokens = static_cast<double>(whole_batch.tokens), slots = tokens * shape.chosen;
  for (std::size_t i = 0; i < slopes.size(); ++i)
    slopes[i] = static_cast<Scalar>(weight * shape.experts / shape.layers * static_cast<double>(whole_batch.counts[i]) / slots / tokens);
}

inline double balance_loss(const model_shape& shape, const balance_statistics& whole_batch) {
  std::vector<double> slopes;
  balance_slopes_into(shape, whole_batch, 1, slopes);
  double loss = 0;
  for (std::size_t i = 0; i < slopes.size(); ++i) loss += slopes[i] * whole_batch.probability_sums[i];
  return loss;
}

}   // namespace sara_finetune
