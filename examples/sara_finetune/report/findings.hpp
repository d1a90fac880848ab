// What a run allows to be said, in sentences made from its intervals.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "results.hpp"

namespace sara_finetune {

struct finding {
  std::string about = {}, sentence = {};
  bool headline = false;   // SARA against plain in a low-resource language: what a run is made for
};

// Of a minus b, seed by seed: "lower by x [low, high] (...)", "higher by ...", "no difference resolved (x [low, high], n seeds)", "one seed
// shows no interval: nothing is claimed", or "not measured".
std::string difference(std::span<const double> a, std::span<const double> b);

// In the order in which a reader needs them. Models that were not trained are left out.
std::vector<finding> findings(const run_results& results);

// Why the figures must not be taken for more than they are; empty if nothing speaks against them.
std::vector<std::string> warnings(const run_results& results);

// Corpus, pairs, seeds and arms.
std::string what_was_run(const run_results& results);

// "layers 2 to 4"
std::string window_words(const run_results& results);

}   // namespace sara_finetune
