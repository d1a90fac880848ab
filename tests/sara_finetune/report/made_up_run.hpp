// A run that never ran, with figures chosen so that what is said of it is known.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../files.hpp"
#include "sara_finetune/report/results.hpp"

namespace made_up {

using sara_finetune::index_t, sara_finetune::model_evaluation, sara_finetune::run_results;

struct plan {
  std::vector<std::string> low = {"sw"};
  std::vector<std::string> models = {"pretrained", "plain", "sara", "shuffled"};
  std::size_t seeds = 5;
  index_t layers = 6, experts = 8, window_first = 2, window_last = 4;
};

// Bits a byte of every low-resource language under the seed s.
inline double low_bits(const std::string& model, std::size_t s) {
  const double seed = 0.01 * static_cast<double>(s % 3);
  const double noise = 0.001 * static_cast<double>(s % 2);
  return seed + (model == "pretrained" ? 2.9 : model == "plain" ? 2.3 + noise : 2.25);
}

inline double live(const std::string& model, std::size_t layer) {
  const double before = 0.01 * static_cast<double>(1 + (layer + 3) % 5);
  return (model == "pretrained" ? 1.2 : model == "plain" ? 1.0 : 0.2) * before;
}

inline model_evaluation evaluation(const plan& of, const std::string& model, std::size_t s) {
  model_evaluation made;
  std::vector<std::string> languages = of.low;
  languages.push_back("en");
  const auto layers = static_cast<std::size_t>(of.layers), experts = static_cast<std::size_t>(of.experts);
  for (const std::string& language : languages) {
    made.bits_per_byte[language] = language == "en" ? 2.0 + 0.01 * static_cast<double>(s) : low_bits(model, s);
    made.cloze[language] = {.right = 30, .items = 100};
    made.entropy[language].assign(layers, 1.5);
    for (std::size_t l = 0; l < layers; ++l) {
      std::vector<double> use(experts, 0.5 / static_cast<double>(experts - 1));
      use[(l + (language == "en" || model == "sara" ? 0 : 1)) % experts] = 0.5;
      made.expert_use[language].push_back(use);
    }
  }
  for (const std::string& language : of.low) {
    sara_finetune::layer_divergences& d = made.divergence[language];
    for (std::size_t l = 0; l < layers; ++l) {
      d.live.push_back(live(model, l));
      d.anchored.push_back(1.5 * live(model, l));
      d.unpaired.push_back(live(model, l) + 0.03);
      d.within_high.push_back(0.02);
      d.within_low.push_back(0.025);
    }
    made.normalized[language] = d;
    made.normalized[language].anchored.clear();
  }
  return made;
}

inline nlohmann::json settings(const plan& of) {
  nlohmann::json made = {{"high", "en"},
                         {"layers", of.layers},
                         {"experts", of.experts},
                         {"window", {of.window_first, of.window_last}},
                         {"lambda", 1.5},
                         {"seed", 1},
                         {"seeds", of.seeds},
                         {"part", "test"},
                         {"corpus_name", "made-up"},
                         {"illustrative", false}};
  made["corpus"] = {{"files", nlohmann::json::array()}, {"fingerprint", "0123456789abcdef"}};
  for (const std::string& language : of.low) {
    made["corpus"]["files"].push_back(
        {{"file", "en-" + language + ".tmx"}, {"language", language}, {"training", 800}, {"validation", 100}, {"test", 100}});
  }
  return made;
}

inline std::string metrics(const plan& of) {
  std::string text;
  for (const std::string& arm : of.models) {
    const bool first = arm == "pretrained";
    const nlohmann::json about = {{"stage", first ? "pretrain" : "finetune"}, {"arm", first ? "" : arm}, {"steps", 20}};
    for (int step = 1; step <= 20; ++step) {
      nlohmann::json line = about;
      line.update({{"step", step}, {"tokens", 1000 * step}, {"cross_entropy", 5 - 0.1 * step}, {"divergence", nullptr}});
      if (!first) line["divergence"] = 0.03 / step;
      text += line.dump() + "\n";
      if (step % 5 != 0) continue;
      line = about;
      line.update({{"step", step}, {"tokens", 1000 * step}, {"validation", {{"en", 2.1}}}});
      for (const std::string& language : of.low) line["validation"][language] = 3 - 0.01 * step;
      text += line.dump() + "\n";
    }
  }
  return text;
}

inline void write(const plan& of, const files::temporary_folder& folder) {
  folder.write("settings.json", settings(of).dump());
  for (std::size_t s = 0; s < of.seeds; ++s) {
    const std::string seed = "seed-" + std::to_string(s + 1);
    std::filesystem::create_directory(folder.path() / seed);
    nlohmann::json all = {{"models", nlohmann::json::object()}};
    for (const std::string& model : of.models) all["models"][model] = evaluation(of, model, s);
    folder.write(seed + "/evaluation.json", all.dump());
    folder.write(seed + "/metrics.jsonl", metrics(of));
  }
}

inline run_results results(const plan& of = {}) {
  const files::temporary_folder folder;
  write(of, folder);
  return sara_finetune::read_results(folder.path());
}

}   // namespace made_up
