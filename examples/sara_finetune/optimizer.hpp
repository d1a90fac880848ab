// AdamW, the learning rate's schedule, and clipping by the gradient's norm.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
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
  constexpr index_t at_once = 4096;   // the three sweeps of a chunk find it in the nearest cache
  for (const parameter_block& block : all) {
    const Scalar kept = static_cast<Scalar>(1 - (block.decays ? learning_rate * options.weight_decay : 0));
    for (index_t begin = block.offset, end = block.offset + block.size(); begin < end; begin += at_once) {
      const index_t count = std::min(at_once, end - begin);
      const auto g = map_row(gradient.data() + begin, count);
      auto x = map_row(parameters.data() + begin, count), m = map_row(state.mean.data() + begin, count);
      auto v = map_row(state.square.data() + begin, count);
      m = beta1 * m + (1 - beta1) * g;
      v = beta2 * v + (1 - beta2) * g.square();
      x = kept * x - rate * m / (root * v.sqrt() + epsilon);
    }
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
  auto g = map_row(gradient.data(), static_cast<index_t>(gradient.size()));
  const double norm = std::sqrt(g.template cast<double>().square().sum());
  if (std::isfinite(norm) && norm > limit) g *= static_cast<Scalar>(limit / norm);
  return norm;
}

}   // namespace sara_finetune
