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
#include "storage/anchors.hpp"
#include "text/dataset.hpp"
#include "training/batches.hpp"
#include "training/stage.hpp"

namespace sara_finetune {

class run {
 public:
  // A run in `out`, a new one or the one that the folder holds, which `settings` must fit. Throws if it holds one and `goes_on` is not set,
  // and if it holds parts of one.
  run(const settings& how, std::filesystem::path out, bool goes_on);

  // The stages, in this order, each for all seeds. What is trained is not trained again; evaluation and report are made anew.
  void pretrain();
  void make_anchors();
  void finetune();
  void evaluate();
  void report();

 private:
  // Before the first stage that needs it: reads the text, trains the tokenizer of a new run, and writes settings.json. Throws, before
  // anything is written, if the text is not what the run began with.
  void read_corpus();
  void write_settings(const nlohmann::json& corpus) const;
  std::filesystem::path folder(std::uint64_t seed) const;
  std::vector<std::uint64_t> seeds() const;
  // Pretraining has no arm.
  training_stage stage_of(std::uint64_t seed, const std::string& arm);
  void train_stage(std::uint64_t seed, const std::string& arm, const step_batches& batches, const objective& towards,
                   const std::vector<float>& initial);
  std::vector<float> parameters_of(std::uint64_t seed, const std::string& arm);
  validation validated(const std::vector<float>& parameters);
  anchor_table anchors_of(const std::vector<float>& parameters);
  std::vector<std::string> keys_of_training_pairs() const;

  settings settings_;
  std::filesystem::path out_;
  nlohmann::json old_corpus_;   // settings.json's, of a run that goes on
  std::unique_ptr<sara::thread_pool> pool_;
  std::unique_ptr<prepared_corpus> corpus_;
  std::string corpus_fingerprint_;
  interrupt_guard interrupts_;
};

}   // namespace sara_finetune
