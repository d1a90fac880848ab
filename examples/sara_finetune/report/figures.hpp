// The report's pictures.
#pragma once

#include <string>
#include <vector>

#include "charts.hpp"
#include "results.hpp"

namespace sara_finetune {

struct figure {
  std::string name = {};   // of its file, without .svg
  std::string heading = {};
  std::string how_to_read = {};   // for who has never seen SARA
  std::string svg = {};
};

// How a model is drawn in every figure.
line_style style_of(const std::string& model, const std::vector<std::string>& models);

figure divergence_over_depth(const run_results& results, const std::string& language);
figure divergence_by_language(const run_results& results);
figure expert_use(const run_results& results, const std::string& language);
figure training_curves(const run_results& results);   // training_figure.cpp

// All of them; names are unique and fit a file system, whatever the languages are called.
std::vector<figure> draw_figures(const run_results& results);

}   // namespace sara_finetune
