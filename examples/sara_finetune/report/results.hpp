// A finished run as its folder holds it: what the summary and the report are made of.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "../evaluation/evaluation.hpp"

namespace sara_finetune {

struct training_point {
  std::int64_t step = 0, tokens = 0;   // tokens since the stage began
  double cross_entropy = 0;            // nats a token
  double divergence = 0;               // nats, mean over the window, against the anchors; NaN where it was not measured
};

struct validation_point {
  std::int64_t step = 0, tokens = 0;
  std::map<std::string, double> bits_per_byte = {};   // by language
};

// One stage of one arm under one seed; the arm of "pretrain" is "".
struct training_curve {
  std::string stage = {}, arm = {};
  std::vector<training_point> training = {};
  std::vector<validation_point> validation = {};
};

struct corpus_file {
  std::string file = {}, language = {};
  std::int64_t training = 0, validation = 0, test = 0;   // pairs
};

struct run_results {
  nlohmann::json settings = {};
  std::string high = {};               // the high-resource language
  std::vector<std::string> low = {};   // the low-resource ones, in the corpus' order
  std::string corpus = {};
  bool illustrative = false;             // the corpus is too small for its metrics to mean anything
  std::vector<corpus_file> files = {};   // the parallel ones
  std::string part = "test";             // of the corpus, that was evaluated
  index_t layers = 0, experts = 0;
  index_t window_first = 0, window_last = 0;   // layers from 0, both inclusive
  std::vector<std::uint64_t> seeds = {};
  std::vector<std::string> models = {};   // "pretrained", then the arms: "plain", "sara", "shuffled", others
  std::map<std::string, std::vector<model_evaluation>> evaluations = {};   // by model, [seeds]
  std::vector<std::vector<training_curve>> curves = {};                    // [seeds], of the models only

  bool has(std::string_view model) const;
};

// Reads settings.json, and evaluation.json and metrics.jsonl of every seed's folder seed-N. Throws if something is missing, malformed or does
// not fit the rest.
run_results read_results(const std::filesystem::path& out);

// What `of` says of a model, for each seed.
template <class Value> std::vector<double> by_seed(const run_results& results, const std::string& model, const Value& of) {
  std::vector<double> values;
  for (const model_evaluation& evaluation : results.evaluations.at(model)) values.push_back(of(evaluation));
  return values;
}

std::vector<double> bits_per_byte(const run_results& results, const std::string& model, const std::string& language);

enum class layer_range { window, outside };

// Mean over the window's layers, or over all others, by seed; NaN if there are none, or if a model's are absent.
std::vector<double> mean_divergence(const run_results& results, const std::string& model, const std::string& language,
                                    std::vector<double> layer_divergences::*which, layer_range range = layer_range::window,
                                    std::map<std::string, layer_divergences> model_evaluation::*scale = &model_evaluation::divergence);

// "SARA" for "sara" and the like; an arm without a name of its own keeps what it is called.
std::string display_name(const std::string& model);

}   // namespace sara_finetune
