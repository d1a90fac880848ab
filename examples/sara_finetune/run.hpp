// A run: its folder, its stages, and how it goes on after it was stopped.
//
//   OUT/settings.json, tokenizer.model
//   OUT/seed-1/pretrained.checkpoint, anchors.npy, anchors.json, ARM.checkpoint ..., metrics.jsonl, evaluation.json
//   OUT/seed-2/...
//   OUT/report.html, *.svg
#pragma once

#include <sara/cpu/threads.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "interrupt.hpp"
#include "settings.hpp"
#include "text/dataset.hpp"
#include "training/batches.hpp"
#include "training/stage.hpp"

namespace sara_finetune {

class run {
 public:
  // Begins a run in `out`, or goes on with the one that it holds, which `settings` must fit. Reads the corpus; trains the tokenizer if the
  // folder has none. Throws if the folder holds a run and `goes_on` is not set.
  run(const settings& how, std::filesystem::path out, bool goes_on);

  // The stages, in this order, each for all seeds. What is done already is not done again.
  void pretrain();
  void make_anchors();
  void finetune();
  void evaluate();
  void report();

 private:
  std::filesystem::path folder(std::uint64_t seed) const;
  std::filesystem::path checkpoint_of(std::uint64_t seed, const std::string& model) const;
  std::vector<std::uint64_t> seeds() const;
  std::vector<float> parameters_of(std::uint64_t seed, const std::string& model) const;
  validation validated(const std::vector<float>& parameters);
  // Pretraining has no arm.
  void train_stage(std::uint64_t seed, const std::string& arm, const step_batches& batches, const objective& towards,
                   const std::vector<float>& initial);
  std::vector<std::string> keys_of_training_pairs() const;

  settings settings_;
  std::filesystem::path out_;
  std::unique_ptr<sara::thread_pool> pool_;
  std::unique_ptr<prepared_corpus> corpus_;
  std::string corpus_fingerprint_;
  interrupt_guard interrupts_;
};

}   // namespace sara_finetune
