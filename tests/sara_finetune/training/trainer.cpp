// A step: the same for any number of threads, the sum of its micro-batches, and nothing at all where the loss is not finite.
#include "sara_finetune/training/trainer.hpp"

#include <cmath>
#include <limits>

#include "../model/small_model.hpp"
#include "catch.hpp"

namespace {

using namespace sara_finetune;

constexpr model_shape shape{.vocabulary = 40, .layers = 3, .width = 16, .heads = 2, .experts = 5, .chosen = 2, .hidden = 12, .context = 16};

struct made_up {
  std::vector<encoded_sentence> sentences = {};
  std::vector<training_sequence> batch = {};
  std::vector<float> anchors = {};   // [sentences, layers, experts]
};

made_up problem(std::size_t count = 11) {
  made_up made;
  random_bits random(5);
  for (std::size_t i = 0; i < count; ++i) {
    encoded_sentence& s = made.sentences.emplace_back();
    s.tokens = {1};
    for (std::size_t t = 0; t < 2 + i % 9; ++t) s.tokens.push_back(static_cast<std::int32_t>(3 + (7 * i + 5 * t * t) % 37));
    for (int l = 0; l < shape.layers; ++l) {
      float row[5], sum = 0;
      for (float& p : row) sum += p = static_cast<float>(std::exp(random.normal()));
      for (const float p : row) made.anchors.push_back(p / sum);
    }
  }
  for (std::size_t i = 0; i < count; ++i)
    made.batch.push_back({.sentence = &made.sentences[i], .anchor_row = i % 3 == 2 ? -1 : static_cast<std::int32_t>(i)});
  return made;
}

objective towards(const made_up& made, double lambda) {
  return {.balance_weight = 0.1,
          .lambda = lambda,
          .window_begin = 1,
          .window_layers = 2,
          .anchors = made.anchors.data(),
          .anchor_rows = static_cast<index_t>(made.sentences.size())};
}

std::vector<float> after_steps(const made_up& made, index_t micro_batches, int threads, double lambda, step_figures& last) {
  sara::thread_pool pool(threads);
  trainer training(shape, {.micro_batches = micro_batches}, pool);
  training.parameters = small::parameters<float>(shape, 3);
  for (int i = 0; i < 3; ++i) last = training.step(made.batch, towards(made, lambda), 1e-3);
  return training.parameters;
}

}   // namespace

TEST_CASE("trainer: the same bits for every number of threads", "[trainer]") {
  const made_up made = problem();
  step_figures one, other;
  const auto want = after_steps(made, 4, 1, 2, one);
  for (const int threads : {2, 3, 7}) {
    CHECK(after_steps(made, 4, threads, 2, other) == want);
    CHECK(other.loss == one.loss);
    CHECK(other.gradient_norm == one.gradient_norm);
    CHECK(other.divergence == one.divergence);
  }
}

TEST_CASE("trainer: micro-batches add up to the batch, also where some are empty", "[trainer]") {
  const made_up made = problem();
  sara::thread_pool pool(2);
  const auto first = [&](index_t micro_batches) {
    trainer training(shape, {.micro_batches = micro_batches}, pool);
    training.parameters = small::parameters<float>(shape, 3);
    return training.step(made.batch, towards(made, 2), 1e-3);
  };
  const step_figures whole = first(1);
  CHECK(whole.divergence > 0.01);
  CHECK(whole.loss == Approx(whole.cross_entropy + 0.1 * whole.balance + 2 * whole.divergence).epsilon(1e-12));
  for (const index_t parts : {2, 4, 16}) {
    const step_figures cut = first(parts);
    CHECK(cut.cross_entropy == Approx(whole.cross_entropy).epsilon(1e-6));
    CHECK(cut.balance == Approx(whole.balance).epsilon(1e-6));
    CHECK(cut.divergence == Approx(whole.divergence).epsilon(1e-6));
    CHECK(cut.gradient_norm == Approx(whole.gradient_norm).epsilon(1e-5));
    CHECK(cut.tokens == whole.tokens);
  }
}

TEST_CASE("trainer: the step's divergence is the model's own, and lambda 0 measures without moving anything", "[trainer]") {
  const made_up made = problem();
  sara::thread_pool pool(1);
  const auto initial = small::parameters<float>(shape, 3);

  // By a model of its own, sequence by sequence, from the definition.
  double js = 0;
  int anchored = 0;
  moe_model<float> model(shape);
  for (const training_sequence& s : made.batch) {
    if (s.anchor_row < 0) continue;
    ++anchored;
    packed_batch alone;
    append(alone, *s.sentence);
    model.forward(initial, alone, pass::routing);
    for (index_t l = 1; l <= 2; ++l) {
      const auto probs = model.router_probs(l, 1)[0];
      for (index_t e = 0; e < shape.experts; ++e) {
        double q = 0;
        for (index_t t = 0; t < probs.rows(); ++t) q += static_cast<double>(probs.row(t)[e]) / static_cast<double>(probs.rows());
        const double p = made.anchors[static_cast<std::size_t>((s.anchor_row * shape.layers + l) * shape.experts + e)], m = (p + q) / 2;
        js += (p * std::log(p / m) + q * std::log(q / m)) / 2;
      }
    }
  }
  const double want = js / (2 * anchored);

  std::vector<float> moved[2];
  for (const bool measured : {true, false}) {
    trainer training(shape, {}, pool);
    training.parameters = initial;
    objective of = towards(made, 0);
    if (!measured) of.anchors = nullptr;
    const step_figures seen = training.step(made.batch, of, 1e-3);
    CHECK(seen.divergence == Approx(measured ? want : 0).epsilon(1e-5));
    CHECK(seen.loss == Approx(seen.cross_entropy + 0.1 * seen.balance));
    moved[measured] = training.parameters;
  }
  CHECK(moved[0] == moved[1]);
  trainer training(shape, {}, pool);
  training.parameters = initial;
  CHECK(training.step(made.batch, towards(made, 2), 1e-3).divergence == Approx(want).epsilon(1e-5));
  CHECK(training.parameters != moved[0]);
}

TEST_CASE("trainer: the divergence falls when it is trained", "[trainer]") {
  const made_up made = problem();
  sara::thread_pool pool(2);
  double last[2];
  for (const bool trained : {false, true}) {
    trainer training(shape, {}, pool);
    training.parameters = small::parameters<float>(shape, 3);
    for (int i = 0; i < 60; ++i) last[trained] = training.step(made.batch, towards(made, trained ? 20 : 0), 3e-3).divergence;
  }
  CHECK(last[true] < 0.2 * last[false]);
}

TEST_CASE("trainer: a loss or gradient that is not finite changes nothing", "[trainer]") {
  const made_up made = problem();
  sara::thread_pool pool(2);
  trainer training(shape, {}, pool);
  training.parameters = small::parameters<float>(shape, 3);
  training.step(made.batch, towards(made, 2), 1e-3);
  training.parameters[static_cast<std::size_t>(parameter_count(blocks(shape))) / 2] = std::numeric_limits<float>::quiet_NaN();
  const auto before = training.parameters;
  const auto state = training.state;
  CHECK_FALSE(std::isfinite(training.step(made.batch, towards(made, 2), 1e-3).loss));
  CHECK(std::equal(before.begin(), before.end(), training.parameters.begin(),
                   [](float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }));
  CHECK(training.state.mean == state.mean);
  CHECK(training.state.step == state.step);
}

TEST_CASE("trainer: what cannot be is refused", "[trainer]") {
  sara::thread_pool pool(1);
  CHECK_THROWS_WITH(trainer(shape, {.micro_batches = 0}, pool), Catch::Contains("micro-batches"));
  trainer training(shape, {}, pool);
  CHECK_THROWS_WITH(training.step({}, {}, 1e-3), Catch::Contains("at least one sequence"));
}
