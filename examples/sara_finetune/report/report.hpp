// The report of a run: report.html, which holds all in one file, and its figures as files of their own.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "figures.hpp"
#include "results.hpp"

namespace sara_finetune {

// One page without scripts or references.
std::string report_page(const run_results& results, const std::vector<figure>& figures);

// Writes report.html and a file FIGURE.svg each; if one cannot be written, none is replaced.
void write_report(const run_results& results, const std::filesystem::path& out);

}   // namespace sara_finetune
