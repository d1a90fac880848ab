#include "figures.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "../evaluation/statistics.hpp"
#include "findings.hpp"

namespace sara_finetune {
namespace {

constexpr double width = 960;
constexpr double thousandths = 1000;

using by_layer = std::vector<double>;

struct spread {
  by_layer mean, low, high;   // over the seeds
};

template <class Value> spread over_seeds(const run_results& results, const std::string& model, index_t count, const Value& of) {
  spread s;
  for (index_t i = 0; i < count; ++i) {
    const std::vector<double> values =
        by_seed(results, model, [&](const model_evaluation& e) { return of(e, static_cast<std::size_t>(i)); });
    const bool finite = std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    s.mean.push_back(finite ? mean(values) : nan);
    s.low.push_back(finite ? *std::min_element(values.begin(), values.end()) : nan);
    s.high.push_back(finite ? *std::max_element(values.begin(), values.end()) : nan);
  }
  return s;
}

spread divergence(const run_results& results, const std::string& model, const std::string& language,
                  std::vector<double> layer_divergences::*which) {
  return over_seeds(results, model, results.layers, [&](const model_evaluation& e, std::size_t l) {
    const std::vector<double>& layers = e.divergence.at(language).*which;
    return l < layers.size() ? thousandths * layers[l] : std::numeric_limits<double>::quiet_NaN();   // a reference may be absent
  });
}

std::vector<point> over_layers(const by_layer& values) {
  std::vector<point> points;
  for (std::size_t l = 0; l < values.size(); ++l) points.push_back({static_cast<double>(l), values[l]});
  return points;
}

line_series line_of(const spread& values, const std::string& label, const line_style& style, bool banded) {
  line_series series{.label = label, .style = style, .points = over_layers(values.mean), .low = {}, .high = {}};
  if (banded) {
    series.low = over_layers(values.low);
    series.high = over_layers(values.high);
  }
  return series;
}

std::vector<std::string> counted(index_t count) {
  std::vector<std::string> names;
  for (index_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

// A language's tag as a part of a file's name.
std::string file_word(const std::string& language) {
  std::string word;
  for (const char c : language) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
    word += plain ? c : '_';
  }
  return word.empty() ? "_" : word.substr(0, 40);
}

std::pair<std::size_t, std::size_t> window_of(const run_results& results) {
  return {static_cast<std::size_t>(results.window_first), static_cast<std::size_t>(results.window_last)};
}

double largest(const std::vector<heat_map>& maps) {
  double most = 0;
  for (const heat_map& map : maps) {
    for (const auto& row : map.values) {
      for (const double value : row) most = std::isfinite(value) ? std::max(most, std::abs(value)) : most;
    }
  }
  return most > 0 ? most : 1;
}

// So that the largest values show three digits.
int decimals_for(const color_scale& scale) { return scale.high >= 1000 ? 0 : scale.high >= 10 ? 1 : scale.high >= 1 ? 2 : 3; }

}   // namespace

line_style style_of(const std::string& model, const std::vector<std::string>& models) {
  // Okabe and Ito's colours, which colour-blind readers tell apart; shape and dashes say it again.
  if (model == "pretrained") return {.pen = {.color = "#5f6368", .width = 2, .dashes = {}}, .shape = marker::square};
  if (model == "plain") return {.pen = {.color = "#d55e00", .width = 2, .dashes = {}}, .shape = marker::circle};
  if (model == "sara") return {.pen = {.color = "#0072b2", .width = 2.6, .dashes = {}}, .shape = marker::diamond};
  if (model == "shuffled") return {.pen = {.color = "#009e73", .width = 2, .dashes = "8 4"}, .shape = marker::triangle};
  static constexpr std::array<const char*, 4> colors = {"#cc79a7", "#e69f00", "#56b4e9", "#8c510a"};
  static constexpr std::array<marker, 4> shapes = {marker::circle, marker::square, marker::triangle, marker::diamond};
  std::size_t other = 0;
  for (const std::string& before : models) {
    if (before == model) break;
    other += before != "pretrained" && before != "plain" && before != "sara" && before != "shuffled" ? 1 : 0;
  }
  return {.pen = {.color = colors[other % 4], .width = 1.8, .dashes = other / 4 % 2 == 0 ? "4 3" : "10 3 2 3"}, .shape = shapes[other % 4]};
}

figure divergence_over_depth(const run_results& results, const std::string& language) {
  line_panel live{.title = "live: both languages under the same model"};
  line_panel anchored{.title = fitted("against the frozen anchors of " + results.high, 420, 13)};
  const std::pair<std::string, line_style> kinds[] = {
      {"unpaired sentences", {.pen = {.color = "#222222", .width = 1.1, .dashes = "7 4"}}},
      {"within " + results.high, {.pen = {.color = "#222222", .width = 1.1, .dashes = "1.5 3"}}},
      {"within " + language, {.pen = {.color = "#222222", .width = 1.1, .dashes = "5 2 1.5 2"}}}};
  constexpr std::vector<double> layer_divergences::*references[] = {&layer_divergences::unpaired, &layer_divergences::within_high,
                                                                    &layer_divergences::within_low};
  const auto add_references = [&](const std::string& model, line_panel& panel) {
    for (std::size_t r = 0; r < 3; ++r) {
      line_style style = kinds[r].second;
      style.pen.color = style_of(model, results.models).pen.color;
      panel.series.push_back(line_of(divergence(results, model, language, references[r]), {}, style, false));
    }
  };
  for (const std::string model : {"pretrained", "sara"}) {
    if (results.has(model)) add_references(model, live);
  }
  add_references("pretrained", anchored);
  const bool banded = results.seeds.size() > 1;
  std::vector<line_series> legend, reference_legend;
  for (const std::string& model : results.models) {
    const line_style style = style_of(model, results.models);
    const bool main = model == "pretrained" || model == "plain" || model == "sara" || model == "shuffled";
    live.series.push_back(line_of(divergence(results, model, language, &layer_divergences::live), {}, style, banded && main));
    anchored.series.push_back(line_of(divergence(results, model, language, &layer_divergences::anchored), {}, style, banded && main));
    legend.push_back({.label = display_name(model), .style = style});
  }
  for (const auto& [label, style] : kinds) reference_legend.push_back({.label = label, .style = style});

  std::vector<line_series> all = live.series;
  all.insert(all.end(), anchored.series.begin(), anchored.series.end());
  for (line_panel* panel : {&live, &anchored}) {
    panel->x_label = "layer (counted from 0)";
    panel->y_label = "divergence (thousandths of a nat)";
    panel->x_range = {-0.5, static_cast<double>(results.layers) - 0.5};
    panel->y_range = y_span(all);
    if (panel->y_range) panel->y_range->second *= 1.1;   // room for the window's name
    panel->from_zero = panel->whole_numbers = true;
    panel->shaded = {static_cast<double>(results.window_first) - 0.5, static_cast<double>(results.window_last) + 0.5};
    panel->shaded_label = "SARA's window";
  }

  const std::string heading = "Divergence of " + language + " from " + results.high + " over depth";
  drawing onto(heading + ", by model, with the window of " + window_words(results));
  onto.text({24, 32}, fitted(heading, width - 48, 17), {.size = 17, .bold = true});
  double top = 48 + draw_legend(onto, {24, 48}, width - 48, legend);
  const std::string references_title =
      results.has("sara") ? "References, of the pretrained model and of SARA in their colours:" : "References of the pretrained model:";
  onto.text({24, top + 12}, references_title, {.size = 12, .color = "#5f6368"});
  const double indent = 12 + text_width(references_title, 12);
  top += draw_legend(onto, {24 + indent, top}, width - 48 - indent, reference_legend) + 34;
  draw(onto, {74, top, 388, 300}, live);
  draw(onto, {548, top, 388, 300}, anchored);

  return {.name = "divergence-" + file_word(language),
          .heading = heading,
          .how_to_read =
              "Each point compares how one layer spreads a sentence's tokens over its experts in the two languages: 0 means alike, 693 "
              "(ln 2) means no expert in common. Left, both sides go through the model that is drawn; right, the " +
              results.high +
              " side stays as the pretrained model routed it, which is what SARA trains towards. The thin lines are "
              "references, of sentences that do not translate each other: unpaired, one of either language, which a pair should lie "
              "below; within " +
              results.high + " and within " + language +
              ", two of one language, which differ by what they say alone. A model whose references fall too has become less selective, "
              "not only more alike." +
              (banded ? " Lines are means over the seeds; bands reach from the lowest seed to the highest." : ""),
          .svg = onto.svg(width, top + 300 + 56)};
}

figure divergence_by_language(const run_results& results) {
  std::vector<heat_map> maps;
  for (const std::string& model : results.models) {
    heat_map map{.title = display_name(model), .x_label = "layer (counted from 0)", .columns = counted(results.layers)};
    map.boxed_columns = window_of(results);
    for (const std::string& language : results.low) {
      map.rows.push_back(fitted(language, 62, 11));
      map.values.push_back(divergence(results, model, language, &layer_divergences::live).mean);
    }
    maps.push_back(std::move(map));
  }
  const color_scale scale{.colors = palette::sequential, .low = 0, .high = largest(maps)};

  const std::string heading = "Live divergence from " + results.high + ", layer by language";
  drawing onto(heading + ", one colour scale for all models");
  onto.text({24, 32}, fitted(heading, width - 48, 17), {.size = 17, .bold = true});
  draw_scale(onto, {24 + 8, 52, 220, 12}, scale, "thousandths of a nat; outlined: SARA's window", decimals_for(scale));
  const std::size_t across = maps.size() == 4 || maps.size() > 6 ? 4 : 3;
  const double gap = across == 4 ? 26 : 52, map_width = (856 - gap * static_cast<double>(across - 1)) / static_cast<double>(across);
  const double map_height = 34 * static_cast<double>(results.low.size());
  double bottom = 84;
  for (std::size_t m = 0; m < maps.size(); ++m) {
    maps[m].scale = scale;
    maps[m].decimals = decimals_for(scale);
    const double top = 84 + 42 + static_cast<double>(m / across) * (map_height + 92);
    const rectangle area{80 + static_cast<double>(m % across) * (map_width + gap), top, map_width, map_height};
    if (m % across != 0) maps[m].rows.assign(maps[m].rows.size(), "");
    maps[m].title = fitted(maps[m].title, map_width + gap - 8, 13);
    draw(onto, area, maps[m]);
    bottom = area.bottom();
  }
  return {.name = "divergence-by-language",
          .heading = heading,
          .how_to_read = "Each cell is the mean over the " + results.part +
                         " pairs of one language and one layer, and the scale is one for all models, so "
                         "equal colours mean equal divergence. Look whether the cells inside the outline pale, and whether those just "
                         "outside it darken.",
          .svg = onto.svg(width, bottom + 50)};
}

figure expert_use(const run_results& results, const std::string& language) {
  const auto map_of = [&](const std::string& model, const std::string& spoken) {
    heat_map map{.title = fitted(spoken + ", " + display_name(model), 262, 13),
                 .rows = counted(results.layers),
                 .columns = counted(results.experts)};
    for (std::size_t l = 0; l < static_cast<std::size_t>(results.layers); ++l) {
      std::vector<double> row = results.evaluations.at(model).front().expert_use.at(spoken)[l];   // another seed's expert is another expert
      for (double& share : row) share *= 100;
      map.values.push_back(std::move(row));
    }
    return map;
  };
  const auto difference = [](heat_map low, const heat_map& high) {
    low.title = "difference";
    for (std::size_t l = 0; l < low.values.size(); ++l) {
      for (std::size_t x = 0; x < low.values[l].size(); ++x) low.values[l][x] -= high.values[l][x];
    }
    return low;
  };
  std::vector<heat_map> shares, differences;
  for (const std::string model : {"pretrained", "plain", "sara"}) {
    if (!results.has(model)) continue;
    shares.push_back(map_of(model, results.high));
    shares.push_back(map_of(model, language));
    differences.push_back(difference(shares.back(), shares[shares.size() - 2]));
  }
  const color_scale share{.colors = palette::sequential, .low = 0, .high = largest(shares)};
  const double most = largest(differences);
  const color_scale change{.colors = palette::diverging, .low = -most, .high = most};

  const std::string heading = "Experts used by " + results.high + " and by " + language +
                              (results.seeds.size() > 1 ? ", seed " + std::to_string(results.seeds.front()) : "");
  drawing onto(heading + ", by layer, before and after");
  onto.text({24, 32}, fitted(heading, width - 48, 17), {.size = 17, .bold = true});
  draw_scale(onto, {40, 52, 180, 12}, share, "% of a layer's choices", decimals_for(share));
  draw_scale(onto, {480, 52, 180, 12}, change, fitted("difference in points, " + language + " less " + results.high, 250, 12),
             decimals_for(share));
  const double map_width = 264, map_height = std::min(26.0 * static_cast<double>(results.layers), 420.0);
  double bottom = 84;
  for (std::size_t r = 0; r < differences.size(); ++r) {
    const double top = 84 + 42 + static_cast<double>(r) * (map_height + 88);
    const std::array<heat_map*, 3> row = {&shares[2 * r], &shares[2 * r + 1], &differences[r]};
    for (std::size_t c = 0; c < 3; ++c) {
      heat_map& map = *row[c];
      map.scale = c < 2 ? share : change;
      map.decimals = decimals_for(share);
      map.x_label = "expert";
      map.y_label = c == 0 ? "layer" : "";
      map.boxed_rows = window_of(results);
      draw(onto, {62 + static_cast<double>(c) * (map_width + 42), top, map_width, map_height}, map);
    }
    bottom = top + map_height;
  }
  return {
      .name = "expert-use-" + file_word(language),
      .heading = heading,
      .how_to_read =
          "A row is a layer, a column one of its experts, a cell the share of the tokens' choices that fell on it. Experts have "
          "no order, so only the comparison within a row means something: where the right-hand panel is coloured, the two "
          "languages go to different experts." +
          std::string(results.has("plain") ? " What plain shows is what fine-tuning does by itself." : "") +
          " The outline is SARA's window." +
          (results.seeds.size() > 1 ? " Of seed " + std::to_string(results.seeds.front()) + ": another seed's experts are others." : ""),
      .svg = onto.svg(width, bottom + 50)};
}

std::vector<figure> draw_figures(const run_results& results) {
  std::vector<figure> all;
  for (const std::string& language : results.low) all.push_back(divergence_over_depth(results, language));
  all.push_back(divergence_by_language(results));
  for (const std::string& language : results.low) all.push_back(expert_use(results, language));
  all.push_back(training_curves(results));
  std::set<std::string> taken;
  for (figure& one : all) {
    const std::string name = one.name;
    for (int again = 2; !taken.insert(one.name).second; ++again) one.name = name + "-" + std::to_string(again);
  }
  return all;
}

}   // namespace sara_finetune
