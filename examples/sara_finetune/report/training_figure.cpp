// The figure of what was logged while training.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "figures.hpp"

namespace sara_finetune {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

struct logged {
  std::int64_t number;   // the same for all seeds
  double tokens, value;
};

using reading = std::function<std::vector<logged>(const training_curve&)>;

std::vector<logged> trained(const training_curve& curve, double training_point::*which, double unit) {
  std::vector<logged> values;
  for (const training_point& point : curve.training)
    values.push_back({point.step, static_cast<double>(point.tokens), unit * (point.*which)});
  return values;
}

// Numbered one after the other: the seeds' stages differ by a few steps, and so do the steps at which they validate.
std::vector<logged> validated(const training_curve& curve, const std::string& language) {
  std::vector<logged> values;
  for (const validation_point& point : curve.validation) {
    const auto found = point.bits_per_byte.find(language);
    values.push_back({std::ssize(values), static_cast<double>(point.tokens), found == point.bits_per_byte.end() ? nan : found->second});
  }
  return values;
}

// Means of so many neighbours, so that a line of thousands of steps stays readable (and its file small).
std::vector<logged> thinned(const std::vector<logged>& values, std::size_t most) {
  const std::size_t each = (values.size() + most - 1) / most;
  if (each <= 1) return values;
  std::vector<logged> means;
  for (std::size_t begin = 0; begin < values.size(); begin += each) {
    const std::size_t end = std::min(begin + each, values.size());
    logged sum{values[end - 1].number, 0, 0};
    double tokens = 0;
    std::size_t finite = 0;
    for (std::size_t i = begin; i < end; ++i) {
      tokens += values[i].tokens / static_cast<double>(end - begin);
      if (!std::isfinite(values[i].value)) continue;
      sum.value += values[i].value;
      ++finite;
    }
    means.push_back({sum.number, tokens, finite == 0 ? nan : sum.value / static_cast<double>(finite)});
  }
  return means;
}

// Mean, lowest and highest over the seeds, at the numbers that every seed has: a mean whose seeds change along the way would jump.
line_series over_seeds(const run_results& results, const std::string& stage, const std::string& arm, const line_style& style,
                       const reading& read, bool banded) {
  std::map<std::int64_t, std::vector<logged>> at;
  for (const std::vector<training_curve>& seed : results.curves) {
    for (const training_curve& curve : seed) {
      if (curve.stage != stage || curve.arm != arm) continue;
      for (const logged& value : read(curve)) at[value.number].push_back(value);
    }
  }
  std::vector<logged> means, lows, highs;
  for (const auto& [number, values] : at) {
    if (values.size() != results.curves.size()) continue;
    logged sum{number, 0, 0}, low = values.front(), high = values.front();
    for (const logged& value : values) {
      sum.tokens += value.tokens / static_cast<double>(values.size());
      sum.value += value.value / static_cast<double>(values.size());
      low.value = std::min(low.value, value.value);
      high.value = std::max(high.value, value.value);
    }
    low.tokens = high.tokens = sum.tokens;
    means.push_back(sum);
    lows.push_back(low);
    highs.push_back(high);
  }
  const auto points = [](const std::vector<logged>& values) {
    std::vector<point> there;
    for (const logged& value : thinned(values, 80)) there.push_back({value.tokens / 1000, value.value});
    return there;
  };
  line_series series{.label = {}, .style = style, .points = points(means), .low = {}, .high = {}};
  if (banded && results.curves.size() > 1) {
    series.low = points(lows);
    series.high = points(highs);
  }
  return series;
}

double most_tokens(const std::vector<line_series>& series) {
  double most = 0;
  for (const line_series& one : series) {
    for (const point p : one.points) most = std::max(most, p.x);
  }
  return most;
}

}   // namespace

figure training_curves(const run_results& results) {
  constexpr double width = 960, panel_width = 388, panel_height = 170, row_height = 250;
  struct row {
    std::string title, unit;
    reading read;
    bool from_zero = false, marked = false, banded = true;
  };
  std::vector<row> rows = {{.title = "Cross-entropy",
                            .unit = "nats a token",
                            .read = [](const training_curve& c) { return trained(c, &training_point::cross_entropy, 1); },
                            .banded = false},
                           {.title = "Divergence in the window",
                            .unit = "thousandths of a nat",
                            .read = [](const training_curve& c) { return trained(c, &training_point::divergence, 1000); },
                            .from_zero = true}};
  std::vector<std::string> languages = {results.high};
  languages.insert(languages.end(), results.low.begin(), results.low.end());
  for (const std::string& language : languages) {
    rows.push_back({.title = "Validation, " + language,
                    .unit = "bits a byte",
                    .read = [language](const training_curve& c) { return validated(c, language); },
                    .marked = true});
  }

  std::vector<std::string> arms;
  for (const std::string& model : results.models) {
    if (model != "pretrained") arms.push_back(model);
  }
  const auto drawn = [&](const std::string& model, bool marked) {
    line_style style = style_of(model, arms);
    style.pen.width = 1.7;
    if (!marked) style.shape = marker::none;
    return style;
  };
  std::vector<line_series> legend = {{.label = "pretraining", .style = drawn("pretrained", true)}};
  for (const std::string& arm : arms) legend.push_back({.label = display_name(arm), .style = drawn(arm, true)});

  drawing onto("Training curves of pretraining and fine-tuning, by arm");
  onto.text({24, 32}, "Training curves", {.size = 17, .bold = true});
  const double top = 48 + draw_legend(onto, {24, 48}, width - 48, legend) + 34;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const double y = top + row_height * static_cast<double>(r);
    const auto panel = [&](const char* stage) {
      return line_panel{.title = fitted(rows[r].title + ", " + stage, panel_width, 13),
                        .x_label = "tokens seen in this stage (thousands)",
                        .y_label = rows[r].unit,
                        .from_zero = rows[r].from_zero};
    };
    line_panel before = panel("pretraining"), after = panel("fine-tuning");
    before.series.push_back(over_seeds(results, "pretrain", "", drawn("pretrained", rows[r].marked), rows[r].read, rows[r].banded));
    for (const std::string& arm : arms) {
      after.series.push_back(over_seeds(results, "finetune", arm, drawn(arm, rows[r].marked), rows[r].read, rows[r].banded));
    }
    if (rows[r].from_zero) before.if_empty = "the anchors are made when pretraining ends";
    for (line_panel* side : {&before, &after}) side->x_range = {0, most_tokens(side->series)};
    draw(onto, {74, y, panel_width, panel_height}, before);
    draw(onto, {548, y, panel_width, panel_height}, after);
  }
  return {.name = "training-curves",
          .heading = "Training curves",
          .how_to_read =
              "Cross-entropy is what the model pays to predict the training text; the divergence is the distance, in an arm's window, to "
              "the frozen anchors that it was given (plain only measures it; shuffled is given other sentences'); validation is on text "
              "that is not trained on. Long curves "
              "are means of neighbouring steps" +
              std::string(results.curves.size() > 1 ? ", and of the seeds; bands reach from the lowest seed to the highest." : "."),
          .svg = onto.svg(width, top + row_height * static_cast<double>(rows.size()) - 24)};
}

}   // namespace sara_finetune
