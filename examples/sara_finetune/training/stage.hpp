// A stage that trains, from where its checkpoint stands to its last step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../interrupt.hpp"
#include "../storage/checkpoint.hpp"
#include "batches.hpp"
#include "trainer.hpp"

namespace sara_finetune {

// Bits a byte of each language's validation part, and the one figure that a stage may go by.
struct validation {
  nlohmann::json bits_per_byte;
  double mean;
};

struct training_stage {
  std::string stage, arm = {};   // no arm: pretraining
  std::uint64_t seed = 1;
  std::filesystem::path checkpoint, metrics;
  std::string corpus;   // its fingerprint: a checkpoint of another one is refused
  double rate, warmup;
  std::int64_t validations, save_every;   // of the stage; steps
  bool keeps_best =
      false;   // its result are the parameters of the best validation, and it ends when there is no better one for a quarter of its steps
  std::function<validation(const std::vector<float>&)> validate;

  std::string name() const { return arm.empty() ? stage : stage + " " + arm; }
};

// Begins from `initial`, or goes on bit by bit from the checkpoint; does nothing if that is finished. Throws `interrupted` when a signal
// came, after the step was saved; and if a loss or gradient is not finite: the sentence names the step, and the last checkpoint stays.
void train(const training_stage& of, const model_shape& shape, const trainer_options& how, const step_batches& batches,
           const objective& towards, const std::vector<float>& initial, sara::thread_pool& pool, const interrupt_guard& interrupts);

// The parameters of a finished stage. Throws if there is no checkpoint, or it is not finished, or of another stage, arm, seed or corpus.
std::vector<float> trained_parameters(const training_stage& of, const model_shape& shape);

}   // namespace sara_finetune
