// A stage: when it ends, and what it keeps. Interruption and resumption are tests of run.
#include "sara_finetune/training/stage.hpp"

#include <iostream>
#include <sstream>

#include "../files.hpp"
#include "catch.hpp"
#include "made_up_batch.hpp"

namespace {

using namespace sara_finetune;
using small::problem, small::tiny;

struct outcome {
  std::vector<std::vector<float>> validated = {};   // parameters, in their order
  std::vector<float> kept = {};
  nlohmann::json about = {};
};

// 40 steps, validated 20 times: that gives these means, and from there on the last.
outcome trained(const std::vector<double>& means, bool keeps_best) {
  const files::temporary_folder folder;
  const auto made = problem();
  const step_batches batches(40, made.batch);
  sara::thread_pool pool(1);
  const interrupt_guard interrupts;
  outcome seen;
  const training_stage stage{.stage = "pretrain",
                             .checkpoint = folder.path() / "c",
                             .metrics = folder.path() / "m",
                             .corpus = "made up",
                             .rate = 1e-3,
                             .warmup = 0,
                             .validations = 20,
                             .save_every = 100,
                             .keeps_best = keeps_best,
                             .validate = [&](const std::vector<float>& parameters) {
                               seen.validated.push_back(parameters);
                               return validation{{{"en", 1.0}}, means[std::min(seen.validated.size(), means.size()) - 1]};
                             }};
  std::ostringstream text;
  std::streambuf *const out = std::cout.rdbuf(text.rdbuf()), *const err = std::cerr.rdbuf(text.rdbuf());
  train(stage, tiny, {}, batches, {}, small::parameters<float>(tiny, 3), pool, interrupts);
  std::cout.rdbuf(out);
  std::cerr.rdbuf(err);
  seen.kept = trained_parameters(stage, tiny);
  seen.about = read_checkpoint(stage.checkpoint).about;
  return seen;
}

}   // namespace

TEST_CASE("stage: what keeps its best ends a quarter of the steps after it", "[stage]") {
  const outcome early = trained({3, 2, 1, 1.5}, true);
  CHECK(early.about.at("best_step") == 6);
  CHECK(early.about.at("step") == 16);
  CHECK(early.validated.size() == 8);
  CHECK((early.kept == early.validated[2]));

  const outcome late = trained({3, 2, 2.5, 2.5, 2.5, 2.5, 1, 2}, true);   // better just before patience ends
  CHECK(late.about.at("best_step") == 14);
  CHECK(late.about.at("step") == 24);
  CHECK((late.kept == late.validated[6]));
}

TEST_CASE("stage: what does not goes on to its last step", "[stage]") {
  const outcome seen = trained({1, 2}, false);
  CHECK(seen.about.at("step") == 40);
  CHECK(seen.validated.size() == 20);
  CHECK((seen.kept == seen.validated.back()));
}
