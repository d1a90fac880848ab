#include "summary.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "../evaluation/statistics.hpp"
#include "../text/utf8.hpp"
#include "findings.hpp"
#include "numbers.hpp"

namespace sara_finetune {
namespace {

constexpr std::size_t terminal_width = 100, widest_cell = 16, between_cells = 2;

std::string with_deviation(const std::vector<double>& values, double unit = 1) {
  std::vector<double> scaled;
  for (const double value : values) scaled.push_back(unit * value);
  if (!std::all_of(scaled.begin(), scaled.end(), [](double v) { return std::isfinite(v); })) return "n/a";
  const std::optional<double> deviation = standard_deviation(scaled);
  return significant(mean(scaled)) + (deviation ? " (" + significant(*deviation, 2) + ")" : "");
}

// Every seed scores the same sentences, so seeds add no items: the interval is over one seed's, about the seeds' mean share.
std::string cloze_share(const run_results& results, const std::string& model, const std::string& language) {
  double right = 0;
  std::int64_t items = -1, seeds = 0;
  for (const model_evaluation& evaluation : results.evaluations.at(model)) {
    const auto found = evaluation.cloze.find(language);
    if (found == evaluation.cloze.end() || found->second.items == 0) return "n/a";
    items = items < 0 ? found->second.items : std::min(items, found->second.items);
    right += static_cast<double>(found->second.right) / static_cast<double>(found->second.items);
    ++seeds;
  }
  if (seeds == 0) return "n/a";
  const double share = right / static_cast<double>(seeds);
  const std::optional<interval> between = share_interval(std::llround(share * static_cast<double>(items)), items);
  return fixed(100 * share, 1) + (between ? " [" + fixed(100 * between->low, 0) + ", " + fixed(100 * between->high, 0) + "]" : "");
}

std::vector<std::string> layer_cells(const run_results& results, const std::string& model, double unit, const auto& values_of) {
  std::vector<std::string> cells;
  for (std::size_t l = 0; l < static_cast<std::size_t>(results.layers); ++l) {
    const std::vector<double> values = by_seed(results, model, [&](const model_evaluation& e) {
      const std::vector<double>* of = values_of(e);
      return of != nullptr && l < of->size() ? (*of)[l] : std::numeric_limits<double>::quiet_NaN();
    });
    cells.push_back(significant(unit * mean(values)));
  }
  return cells;
}

std::size_t columns_of(std::string_view text) {
  const std::size_t valid = std::min(first_invalid_utf8(text), text.size());
  return count_characters(text.substr(0, valid)) + (text.size() - valid);
}

std::string cut(const std::string& text, std::size_t most) {
  if (columns_of(text) <= most) return text;
  std::string kept;
  for (std::size_t at = 0; columns_of(kept) + 2 < most;) {
    const std::size_t length = std::max<std::size_t>(1, utf8_length(text, at));
    kept += text.substr(at, length);
    at += length;
  }
  return kept + "..";
}

// Lines of at most `most` columns, broken between words; all but the first may be indented.
std::vector<std::string> broken(const std::string& text, std::size_t most, std::size_t hanging = 2) {
  std::vector<std::string> all;
  std::string line;
  bool empty = true;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = cut(text.substr(at, end - at), most - hanging);
    at = end + 1;
    if (!empty && columns_of(line) + 1 + columns_of(word) > most) {
      all.push_back(line);
      line.assign(hanging, ' ');
      empty = true;
    }
    line += (empty ? "" : " ") + word;
    empty = false;
  }
  all.push_back(line);
  return all;
}

std::string wrapped(const std::string& text, std::size_t indent) {
  std::string all;
  for (const std::string& line : broken(text, terminal_width - indent, 0)) all += std::string(indent, ' ') + line + "\n";
  return all;
}

std::string aligned(const table& cells) {
  std::vector<std::size_t> widths(cells.header.size(), 0);
  std::vector<std::vector<std::string>> rows = {cells.header};
  rows.insert(rows.end(), cells.rows.begin(), cells.rows.end());
  for (auto& row : rows) {
    for (std::size_t c = 1; c < row.size(); ++c) {
      row[c] = cut(row[c], widest_cell);
      widths[c] = std::max(widths[c], columns_of(row[c]));
    }
  }
  const std::size_t cells_width = std::accumulate(widths.begin() + 1, widths.end(), between_cells * (widths.size() - 1));
  // Arms differ in what their names end with: these are wrapped, never cut short.
  std::vector<std::vector<std::string>> names;
  for (const auto& row : rows) {
    names.push_back(broken(row[0], terminal_width - cells_width));
    for (const std::string& part : names.back()) widths[0] = std::max(widths[0], columns_of(part));
  }
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line = names[r][0] + std::string(widths[0] - columns_of(names[r][0]), ' ');
    for (std::size_t c = 1; c < rows[r].size(); ++c) {
      line += std::string(between_cells + widths[c] - columns_of(rows[r][c]), ' ') + rows[r][c];
    }
    text += line + "\n";
    for (std::size_t part = 1; part < names[r].size(); ++part) text += names[r][part] + "\n";
    if (r == 0) text += std::string(columns_of(line), '-') + "\n";
  }
  return text;
}

}   // namespace

table main_table(const run_results& results, const std::string& language) {
  table cells{.header = {"model", "bits/byte " + language, "bits/byte " + results.high, "cloze % " + language, "JS live", "JS anchored"},
              .rows = {}};
  for (const std::string& model : results.models) {
    cells.rows.push_back({display_name(model), with_deviation(bits_per_byte(results, model, language)),
                          with_deviation(bits_per_byte(results, model, results.high)), cloze_share(results, model, language),
                          with_deviation(mean_divergence(results, model, language, &layer_divergences::live), 1000),
                          with_deviation(mean_divergence(results, model, language, &layer_divergences::anchored), 1000)});
  }
  return cells;
}

table layer_table(const run_results& results, const std::string& language) {
  table cells{.header = {"model", "measure"}, .rows = {}};
  for (index_t l = 0; l < results.layers; ++l) cells.header.push_back("layer " + std::to_string(l));
  for (const std::string& model : results.models) {
    const auto add = [&](const std::string& measure, double unit, const auto& values_of) {
      std::vector<std::string> row = {display_name(model), measure};
      for (std::string& cell : layer_cells(results, model, unit, values_of)) row.push_back(std::move(cell));
      cells.rows.push_back(std::move(row));
    };
    using values = std::vector<double> layer_divergences::*;
    const auto of = [&](const auto& by_language, values which) -> const std::vector<double>* {
      const auto found = by_language.find(language);
      return found == by_language.end() ? nullptr : &(found->second.*which);
    };
    const std::pair<const char*, values> measures[] = {{"live", &layer_divergences::live},
                                                       {"anchored", &layer_divergences::anchored},
                                                       {"unpaired", &layer_divergences::unpaired},
                                                       {"within the high-resource language", &layer_divergences::within_high},
                                                       {"within the low-resource language", &layer_divergences::within_low}};
    for (const auto& [name, which] : measures) {
      add(name, 1000, [&, column = which](const model_evaluation& e) { return of(e.divergence, column); });
    }
    for (const auto& [name, which] : measures) {
      if (which == &layer_divergences::anchored) continue;
      add(std::string("normalised, ") + name, 1000, [&, column = which](const model_evaluation& e) { return of(e.normalized, column); });
    }
    for (const std::string& spoken : {results.high, language}) {
      add("token entropy, " + spoken, 1, [&](const model_evaluation& e) {
        const auto found = e.entropy.find(spoken);
        return found == e.entropy.end() ? nullptr : &found->second;
      });
    }
  }
  return cells;
}

std::string about_main_table(const run_results& results) {
  return std::string(results.seeds.size() > 1
                         ? "Mean over " + std::to_string(results.seeds.size()) + " seeds, standard deviation in parentheses. "
                         : "One seed. ") +
         "JS: Jensen-Shannon divergence from " + results.high + " in the window (" + window_words(results) +
         "), thousandths of a nat; live under the same model, anchored against the frozen anchors.";
}

std::string about_cloze() {
  return "Cloze: share of sentences whose right ending of four is preferred, with Wilson's 95 % interval over the sentences. 25 % is "
         "chance: a "
         "sanity check, no verdict.";
}

std::string summary_table(const run_results& results) {
  std::string text;
  for (const std::string& warning : warnings(results)) text += wrapped("WARNING: " + warning, 0);
  for (const std::string& language : results.low) text += (text.empty() ? "" : "\n") + aligned(main_table(results, language));
  text += "\n" + wrapped(about_main_table(results), 0) + wrapped(about_cloze(), 0);
  for (const finding& one : findings(results)) text += "\n" + wrapped(one.about + ":", 0) + wrapped(one.sentence, 2);
  return text;
}

}   // namespace sara_finetune
