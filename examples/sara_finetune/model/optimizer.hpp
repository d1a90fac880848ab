// AdamW, the learning rate's schedule, and clipping by the gradient's norm.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "parameters.hpp"

namespace sara_finetune {

struct adamw_options {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;   // times the learning rate, of blocks that decay
};

// All that a checkpoint must hold.
template <class Scalar> struct adamw_state {
  std::vector<Scalar> mean = {}, square = {};   // running means of the gradient and of its square; empty before the first step
  std::int64_t step = 0;                        // steps taken
};

// One step (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2, decay times the scheduled learning rate):
//   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
//   x -= rate (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon) + weight_decay x)
template <class Scalar>
void adamw_step(const adamw_options& options, double learning_rate, const std::vector<parameter_block>& all,
                std::span<const Scalar> gradient, std::span<Scalar> parameters, adamw_state<Scalar>& state) {
  const auto size = static_cast<std::size_t>(parameter_count(all));
  if (state.step == 0 && state.mean.empty() && state.square.empty()) {
    state.mean.assign(size, Scalar(0));
    state.square.assign(size, Scalar(0));
  }
  const std::pair<const char*, std::size_t> sizes[] = {{"gradient", gradient.size()},
                                                       {"parameters", parameters.size()},
                                                       {"the state's mean", state.mean.size()},
                                                       {"the state's square", state.square.size()}};
  for (const auto& [name, found] : sizes)
    if (found != size)
      throw std::runtime_error("adamw_step: " + std::string(name) + " must have " + std::to_string(size) +
                               " entries, as the blocks have, but has " + std::to_string(found));
  ++state.step;
  const double steps = static_cast<double>(state.step);
  const Scalar beta1 = static_cast<Scalar>(options.beta1), beta2 = static_cast<Scalar>(options.beta2);
  const Scalar rate = static_cast<Scalar>(learning_rate / (1 - std::pow(options.beta1, steps)));
  const Scalar root = static_cast<Scalar>(1 / std::sqrt(1 - std::pow(options.beta2, steps)));
  const Scalar epsilon = static_cast<Scalar>(options.epsilon);
  for (const parameter_block& block : all) {
    const Scalar kept = static_cast<Scalar>(1 - (block.decays ? learning_rate * options.weight_decay : 0));
    const auto update = [&](const auto& g, auto&& x, auto&& m, auto&& v) {
      m = beta1 * m + (1 - beta1) * g;
      v = beta2 * v + (1 - beta2) * g.square();
      x = kept * x - rate * m / (root * v.sqrt() + epsilon);
    };
    // In arrays of one extent that is whole vectors: in longer maps Eigen takes what lies before the first aligned address one by one, and
    // its vectors' square root rounds otherwise, so that bits would depend on where the memory lies.
    using lanes = Eigen::Array<Scalar, 1, widest_vector>;
    const index_t whole = block.size() / widest_vector * widest_vector;
    for (index_t i = block.offset; i < block.offset + whole; i += widest_vector)
      update(Eigen::Map<const lanes>(gradient.data() + i), Eigen::Map<lanes>(parameters.data() + i),
             Eigen::Map<lanes>(state.mean.data() + i), Eigen::Map<lanes>(state.square.data() + i));
    const index_t last = block.offset + whole, left = block.size() - whole;
    if (left == 0) continue;
    const auto padded = [&](const Scalar* from) {
      lanes values = lanes::Zero();
      std::copy_n(from + last, left, values.data());
      return values;
    };
    lanes x = padded(parameters.data()), m = padded(state.mean.data()), v = padded(state.square.data());
    update(padded(gradient.data()), x, m, v);
    std::copy_n(x.data(), left, parameters.data() + last);
    std::copy_n(m.data(), left, state.mean.data() + last);
    std::copy_n(v.data(), left, state.square.data() + last);
  }
}

// Of step 0, 1, ..., steps - 1: a linear rise to the peak over the first warmup_share of them, then half a cosine down to a tenth of
// it, which the last step has.
inline double learning_rate_at(std::int64_t step, std::int64_t steps, double warmup_share, double peak) {
  const auto refuse = [](const std::string& what) { throw std::runtime_error("learning_rate_at: " + what); };
  if (step < 0 || step >= steps) refuse("step must be 0 to " + std::to_string(steps - 1) + ", but is " + std::to_string(step));
  if (!(warmup_share >= 0 && warmup_share <= 1)) refuse("warmup_share must be 0 to 1, but is " + std::to_string(warmup_share));
  const double warmup = std::round(warmup_share * static_cast<double>(steps)), taken = static_cast<double>(step) + 1;
  if (taken <= warmup) return peak * taken / warmup;
  const double progress = (taken - warmup) / (static_cast<double>(steps) - warmup);
  return peak * (0.1 + 0.45 * (1 + std::cos(std::numbers::pi * progress)));
}

// Returns the gradient's Euclidean norm; a longer gradient than `limit` is shortened to it. A norm that is not finite leaves the
// gradient as it is, for the caller to see.
template <class Scalar> double clip_gradient(std::span<Scalar> gradient, double limit) {
  if (!(limit > 0)) throw std::runtime_error("clip_gradient: limit must be above 0, but is " + std::to_string(limit));
  constexpr auto lanes = static_cast<std::size_t>(widest_vector);   // sums side by side: one alone would wait for each addition
  double sums[lanes] = {};
  std::size_t i = 0;
  for (; i + lanes <= gradient.size(); i += lanes)
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const double g = static_cast<double>(gradient[i + lane]);
      sums[lane] += g * g;
    }
  for (; i < gradient.size(); ++i) sums[0] += static_cast<double>(gradient[i]) * static_cast<double>(gradient[i]);
  const double norm = std::sqrt(std::accumulate(sums, sums + lanes, 0.0));
  if (std::isfinite(norm) && norm > limit)
    map_row(gradient.data(), static_cast<index_t>(gradient.size())) *= static_cast<Scalar>(limit / norm);
  return norm;
}

}   // namespace sara_finetune
