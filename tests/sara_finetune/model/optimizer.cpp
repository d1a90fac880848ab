// AdamW, the schedule and clipping.
#include "sara_finetune/model/optimizer.hpp"

#include <limits>
#include <random>

#include "catch.hpp"

namespace {

using namespace sara_finetune;

const model_shape shape{.vocabulary = 50, .layers = 1, .width = 100, .heads = 2, .experts = 2, .chosen = 1, .hidden = 30, .context = 4};

template <class Scalar> std::vector<Scalar> random_values(std::size_t size, double deviation, std::uint64_t seed) {
  random_bits random(seed);
  std::vector<Scalar> values(size);
  for (Scalar& each : values) each = static_cast<Scalar>(deviation * random.normal());
  return values;
}

// The furthest relative difference from AdamW as it is written, after some steps with a changing rate.
template <class Scalar> double furthest_from_naive(const adamw_options& options) {
  const std::vector<parameter_block> all = blocks(shape);
  const auto size = static_cast<std::size_t>(parameter_count(all));
  std::vector<Scalar> parameters = random_values<Scalar>(size, 1, 1);
  std::vector<double> x(parameters.begin(), parameters.end()), m(size), v(size);
  adamw_state<Scalar> state;
  for (int step = 1; step <= 7; ++step) {
    std::vector<Scalar> gradient = random_values<Scalar>(size, 0.01 * step, static_cast<std::uint64_t>(step) + 1);
    gradient[5] = 0;
    const double rate = 0.01 / step;
    adamw_step<Scalar>(options, rate, all, gradient, parameters, state);
    for (const parameter_block& block : all)
      for (auto i = static_cast<std::size_t>(block.offset); i < static_cast<std::size_t>(block.offset + block.size()); ++i) {
        const double g = static_cast<double>(gradient[i]);
        m[i] = options.beta1 * m[i] + (1 - options.beta1) * g;
        v[i] = options.beta2 * v[i] + (1 - options.beta2) * g * g;
        const double m_hat = m[i] / (1 - std::pow(options.beta1, step)), v_hat = v[i] / (1 - std::pow(options.beta2, step));
        x[i] -= rate * (m_hat / (std::sqrt(v_hat) + options.epsilon) + (block.decays ? options.weight_decay : 0) * x[i]);
      }
  }
  CHECK(state.step == 7);
  double furthest = 0;
  for (std::size_t i = 0; i < size; ++i) {
    furthest = std::max(furthest, std::abs(static_cast<double>(parameters[i]) - x[i]));
    furthest = std::max(furthest, std::abs(static_cast<double>(state.mean[i]) - m[i]));
    furthest = std::max(furthest, std::abs(static_cast<double>(state.square[i]) - v[i]));
  }
  return furthest;
}

}   // namespace

TEST_CASE("adamw_step: the algorithm as it is written", "[sara_finetune]") {
  CHECK(furthest_from_naive<double>({}) < 1e-13);
  CHECK(furthest_from_naive<float>({}) < 1e-5);
  CHECK(furthest_from_naive<double>({.beta1 = 0.5, .beta2 = 0.7, .epsilon = 1e-2, .weight_decay = 3}) < 1e-13);
}

TEST_CASE("adamw_step: a state that was saved continues bit by bit", "[sara_finetune]") {
  const std::vector<parameter_block> all = blocks(shape);
  const auto size = static_cast<std::size_t>(parameter_count(all));
  std::vector<float> straight = random_values<float>(size, 1, 2);
  adamw_state<float> state;
  adamw_step<float>({}, 0.01, all, random_values<float>(size, 1, 3), straight, state);
  std::vector<float> resumed = straight;
  adamw_state<float> saved{.mean = state.mean, .square = state.square, .step = state.step};
  adamw_step<float>({}, 0.01, all, random_values<float>(size, 1, 4), straight, state);
  adamw_step<float>({}, 0.01, all, random_values<float>(size, 1, 4), resumed, saved);
  CHECK(resumed == straight);
  CHECK(saved.mean == state.mean);
  CHECK(saved.square == state.square);
}

TEST_CASE("adamw_step: the same bits wherever the memory lies", "[sara_finetune]") {
  const std::vector<parameter_block> all = blocks(shape);
  const auto size = static_cast<std::size_t>(parameter_count(all));
  const std::vector<float> before = random_values<float>(size, 1, 6), gradient = random_values<float>(size, 1, 7);
  std::vector<float> expected = before;
  adamw_state<float> first;
  adamw_step<float>({}, 0.01, all, gradient, expected, first);
  for (std::size_t shift = 1; shift < 16; ++shift) {
    std::vector<float> memory(size + shift), other(size + shift + 3);
    const std::span<float> parameters = std::span(memory).subspan(shift), g = std::span(other).subspan(shift + 3);
    std::copy(before.begin(), before.end(), parameters.begin());
    std::copy(gradient.begin(), gradient.end(), g.begin());
    adamw_state<float> state;
    adamw_step<float>({}, 0.01, all, g, parameters, state);
    CHECK(std::equal(expected.begin(), expected.end(), parameters.begin()));
  }
}

TEST_CASE("adamw_step: vectors that do not fit are named", "[sara_finetune]") {
  const std::vector<parameter_block> all = blocks(shape);
  const auto size = static_cast<std::size_t>(parameter_count(all));
  std::vector<float> parameters(size), gradient(size);
  const std::string entries = " must have " + std::to_string(size) + " entries, as the blocks have, but has ";
  adamw_state<float> state, foreign{.mean = std::vector<float>(3), .square = std::vector<float>(size), .step = 1};
  CHECK_THROWS_WITH(adamw_step<float>({}, 0.1, all, std::span<const float>(gradient).first(4), parameters, state),
                    "adamw_step: gradient" + entries + "4");
  CHECK_THROWS_WITH(adamw_step<float>({}, 0.1, all, gradient, std::span<float>(parameters).first(5), state),
                    "adamw_step: parameters" + entries + "5");
  CHECK_THROWS_WITH(adamw_step<float>({}, 0.1, all, gradient, parameters, foreign), "adamw_step: the state's mean" + entries + "3");
}

TEST_CASE("learning_rate_at: up to the peak, then down to a tenth", "[sara_finetune]") {
  constexpr double peak = 2e-3;
  CHECK(learning_rate_at(0, 100, 0.05, peak) == Approx(peak / 5));
  CHECK(learning_rate_at(4, 100, 0.05, peak) == Approx(peak));
  CHECK(learning_rate_at(99, 100, 0.05, peak) == Approx(peak / 10));
  CHECK(learning_rate_at(51, 99, 5.0 / 99, peak) == Approx(peak * 0.55));   // half-way down
  for (int step = 1; step < 100; ++step) {
    const double change = learning_rate_at(step, 100, 0.05, peak) - learning_rate_at(step - 1, 100, 0.05, peak);
    CHECK((step < 5 ? change > 0 : change < 0));
  }
  CHECK(learning_rate_at(0, 1, 0, peak) == Approx(peak / 10));
  CHECK(learning_rate_at(0, 1000, 0, peak) == Approx(peak).epsilon(1e-4));
  CHECK(learning_rate_at(9, 10, 1, peak) == Approx(peak));
  CHECK_THROWS_WITH(learning_rate_at(100, 100, 0.05, peak), "learning_rate_at: step must be 0 to 99, but is 100");
  CHECK_THROWS_WITH(learning_rate_at(1, 100, 1.5, peak), "learning_rate_at: warmup_share must be 0 to 1, but is 1.500000");
}

TEST_CASE("clip_gradient: returns the norm and shortens what is longer", "[sara_finetune]") {
  std::vector<float> gradient = random_values<float>(100003, 1, 5);
  double square = 0;
  for (const float each : gradient) square += static_cast<double>(each) * static_cast<double>(each);
  const std::vector<float> before = gradient;
  CHECK(clip_gradient<float>(gradient, 1e9) == Approx(std::sqrt(square)).epsilon(1e-12));
  CHECK(gradient == before);
  CHECK(clip_gradient<float>(gradient, 2) == Approx(std::sqrt(square)).epsilon(1e-12));
  CHECK(clip_gradient<float>(gradient, 1e9) == Approx(2).epsilon(1e-5));
  CHECK(gradient[17] == Approx(static_cast<double>(before[17]) * 2 / std::sqrt(square)));

  gradient = {1, std::numeric_limits<float>::infinity(), 3};
  CHECK(std::isinf(clip_gradient<float>(gradient, 1)));
  CHECK(gradient[0] == 1);
  gradient = {1, std::numeric_limits<float>::quiet_NaN(), 3};
  CHECK(std::isnan(clip_gradient<float>(gradient, 1)));
  CHECK(gradient[2] == 3);
  CHECK_THROWS_WITH(clip_gradient<float>(gradient, 0), "clip_gradient: limit must be above 0, but is 0.000000");
}
