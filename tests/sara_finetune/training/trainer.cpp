// A step: the same for any number of threads, the sum of its micro-batches, and nothing at all where the loss is not finite.
#include "sara_finetune/training/trainer.hpp"

#include <cmath>
#include <limits>

#include "catch.hpp"
#include "made_up_batch.hpp"

namespace {

using namespace sara_finetune;
using small::made_up, small::problem, small::tiny;

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
  trainer training(tiny, {.micro_batches = micro_batches}, pool);
  training.parameters = small::parameters<float>(tiny, 3);
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
    trainer training(tiny, {.micro_batches = micro_batches}, pool);
    training.parameters = small::parameters<float>(tiny, 3);
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
  const auto initial = small::parameters<float>(tiny, 3);

  // By a model of its own, sequence by sequence, from the definition.
  double js = 0;
  int anchored = 0;
  moe_model<float> model(tiny);
  for (const training_sequence& s : made.batch) {
    if (s.anchor_row < 0) continue;
    ++anchored;
    packed_batch alone;
    append(alone, *s.sentence);
    model.forward(initial, alone, pass::routing);
    for (index_t l = 1; l <= 2; ++l) {
      const auto probs = model.router_probs(l, 1)[0];
      for (index_t e = 0; e < tiny.experts; ++e) {
        double q = 0;
        for (index_t t = 0; t < probs.rows(); ++t) q += static_cast<double>(probs.row(t)[e]) / static_cast<double>(probs.rows());
        const double p = made.anchors[static_cast<std::size_t>((s.anchor_row * tiny.layers + l) * tiny.experts + e)], m = (p + q) / 2;
        js += (p * std::log(p / m) + q * std::log(q / m)) / 2;
      }
    }
  }
  const double want = js / (2 * anchored);

  std::vector<float> moved[2];
  for (const bool measured : {true, false}) {
    trainer training(tiny, {}, pool);
    training.parameters = initial;
    objective of = towards(made, 0);
    if (!measured) of.anchors = nullptr;
    const step_figures seen = training.step(made.batch, of, 1e-3);
    CHECK(seen.divergence == Approx(measured ? want : 0).epsilon(1e-5));
    CHECK(seen.loss == Approx(seen.cross_entropy + 0.1 * seen.balance));
    moved[measured] = training.parameters;
  }
  CHECK(moved[0] == moved[1]);
  trainer training(tiny, {}, pool);
  training.parameters = initial;
  CHECK(training.step(made.batch, towards(made, 2), 1e-3).divergence == Approx(want).epsilon(1e-5));
  CHECK(training.parameters != moved[0]);
}

TEST_CASE("trainer: the divergence falls when it is trained", "[trainer]") {
  const made_up made = problem();
  sara::thread_pool pool(2);
  double last[2];
  for (const bool trained : {false, true}) {
    trainer training(tiny, {}, pool);
    training.parameters = small::parameters<float>(tiny, 3);
    for (int i = 0; i < 60; ++i) last[trained] = training.step(made.batch, towards(made, trained ? 20 : 0), 3e-3).divergence;
  }
  CHECK(last[true] < 0.2 * last[false]);
}

TEST_CASE("trainer: a loss or gradient that is not finite changes nothing", "[trainer]") {
  const made_up made = problem();
  sara::thread_pool pool(2);
  trainer training(tiny, {}, pool);
  training.parameters = small::parameters<float>(tiny, 3);
  training.step(made.batch, towards(made, 2), 1e-3);
  training.parameters[static_cast<std::size_t>(parameter_count(blocks(tiny))) / 2] = std::numeric_limits<float>::quiet_NaN();
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
  CHECK_THROWS_WITH(trainer(tiny, {.micro_batches = 0}, pool), Catch::Contains("micro-batches"));
  trainer training(tiny, {}, pool);
  CHECK_THROWS_WITH(training.step({}, {}, 1e-3), Catch::Contains("at least one sequence"));
}
