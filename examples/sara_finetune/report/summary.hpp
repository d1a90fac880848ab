// The results as a table of words: for the terminal, and cell by cell for the report.
#pragma once

#include <string>
#include <vector>

#include "results.hpp"

namespace sara_finetune {

struct table {
  std::vector<std::string> header = {};
  std::vector<std::vector<std::string>> rows = {};   // the first cell is the row's name
};

// One low-resource language: a row a model; bits a byte of both languages, cloze, divergences in the window.
table main_table(const run_results& results, const std::string& language);

// Mean over the seeds by layer, a row a model and kind: divergences in thousandths of a nat, the normalised ones in thousandths, token
// entropy in nats.
table layer_table(const run_results& results, const std::string& language);

std::string about_main_table(const run_results& results);   // what its cells hold
std::string about_cloze();

// At most 100 columns wide: warnings, a table a language, and the findings.
std::string summary_table(const run_results& results);

}   // namespace sara_finetune
