// What is measured of one model on the test split, and how it is kept.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "cloze.hpp"
#include "measure.hpp"

namespace sara_finetune {

// Mean Jensen-Shannon divergence by layer, nats: between a low-resource sentence's histogram and ...
struct layer_divergences {
  std::vector<double> live = {};          // ... its translation's, under the same model
  std::vector<double> anchored = {};      // ... its translation's under the pretrained model (the frozen anchor)
  std::vector<double> unpaired = {};      // ... another high-resource sentence's: a floor, what language alone makes
  std::vector<double> within_high = {};   // between random pairs within the high-resource language: a floor, what content alone makes
  std::vector<double> within_low = {};    // the same within the low-resource language
};

// Keys are languages; divergences are by low-resource language, and means over its pairs. The normalised divergence is D of arXiv
// 2510.04694, in [0, 1]; its anchored column is empty, as are the floors of a language without two different pairs. All else counts a
// sentence once, however many pairs of a language have it, or for the high-resource language of all languages.
struct model_evaluation {
  std::map<std::string, double> bits_per_byte = {};
  std::map<std::string, cloze_result> cloze = {};
  std::map<std::string, layer_divergences> divergence = {}, normalized = {};
  std::map<std::string, std::vector<double>> entropy = {};                   // [layers], nats, of a token's distribution
  std::map<std::string, std::vector<std::vector<double>>> expert_use = {};   // [layers][experts], shares that sum to 1
};

// The same numbers come back. from_json throws, naming the key, if one is missing or is something else.
void to_json(nlohmann::json& json, const model_evaluation& evaluation);
void from_json(const nlohmann::json& json, model_evaluation& evaluation);

// `frozen`, a language each: histograms of the high side of its pairs of this part under the pretrained model; absent: `anchored` is `live`.
model_evaluation evaluate(const model_shape& shape, std::span<const float> parameters, const dataset& data, part of, const tokenizer& words,
                          const std::map<std::string, measured_sentences>& frozen, sara::thread_pool& pool);

// What `frozen` is, under the model of these parameters.
std::map<std::string, measured_sentences> freeze(const model_shape& shape, std::span<const float> parameters, const dataset& data, part of,
                                                 sara::thread_pool& pool);

}   // namespace sara_finetune
