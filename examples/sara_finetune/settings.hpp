// All that a run depends on: the flags, and settings.json in its folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/shape.hpp"

namespace sara_finetune {

struct settings {
  std::string corpus = {};     // what the report calls it; empty: the files' names
  bool illustrative = false;   // a corpus too small to train this model
  std::vector<std::string> parallel = {};
  std::vector<std::string> text = {};   // LANG=FILE
  std::string high = "en";

  model_shape shape = {};

  index_t sequences = 32, micro_batches = 4;   // a step's
  double weight_decay = 0.1, clip = 1, warmup = 0.05, balance = 0.01;

  index_t pretrain_tokens = 900'000;
  double pretrain_rate = 2e-3, low_share = 0.1, low_sentences = 0.1;
  index_t validations = 20;   // of a stage

  double anchors_keep = 1;   // share of the pairs, those whose high side costs the pretrained model the fewest bits a byte

  index_t finetune_tokens = 500'000;
  double finetune_rate = 6e-4, rehearsal = 0.3, lambda = 1.5;
  int window_first = 2, window_last = 4;   // layers, both within

  std::vector<std::string> arms = {"plain", "sara", "shuffled"};   // see arm
  std::int64_t seed = 1;                                           // the first one
  int seeds = 1;
  std::string part = "test";   // that is evaluated
  int threads = 0;             // 0: as many as there are
  index_t save_every = 200;    // steps

  // Throws unless they make sense: the sentence names the flag.
  void check() const;
};

void to_json(nlohmann::json& json, const settings& from);
void from_json(const nlohmann::json& json, settings& to);

// Throws unless it is there and holds settings: the sentence names the file.
nlohmann::json read_settings(const std::filesystem::path& file);

// Throws unless a run that began with `old` can go on with `now`: the sentence names the first that differs. What may change: the number of
// threads, how often it is saved, the arms, the number of seeds, and the part that is evaluated.
void check_same_run(const settings& old, const settings& now, const std::filesystem::path& file);

// A fine-tuning that is compared. NAME or NAME+KEY=VALUE+...; names: plain (lambda 0), sara, shuffled (sara with anchors shuffled over pairs),
// all-layers (sara in all layers), random-window (sara in another window of the same length, chosen by the seed); keys: lambda, window
// (FIRST-LAST), rehearsal.
struct arm {
  std::string name;   // as it was given
  double lambda, rehearsal;
  int window_first, window_last;
  bool shuffled = false;
};

// Throws unless it is one.
arm parse_arm(const std::string& text, const settings& of, std::uint64_t seed);

// FIRST-LAST. Throws unless it is a window of the model's layers.
void parse_window(const std::string& text, const char* flag, int layers, int& first, int& last);

}   // namespace sara_finetune
