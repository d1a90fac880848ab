#include "findings.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "../evaluation/statistics.hpp"
#include "numbers.hpp"

namespace sara_finetune {
namespace {

constexpr double tolerated_rise = 0.02;   // bits a byte

bool all_finite(std::span<const double> values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) text += (i == 0 ? "" : i + 1 == words.size() ? " and " : ", ") + words[i];
  return text;
}

std::string count_of(std::size_t count, const std::string& one) { return std::to_string(count) + " " + one + (count == 1 ? "" : "s"); }

std::string bits(const run_results& results, const std::string& model, const std::string& language) {
  return display_name(model) + " " + significant(mean(bits_per_byte(results, model, language)));
}

std::string against(const run_results& results, const std::string& a, const std::string& b, const std::string& language) {
  return display_name(a) + " against " + display_name(b) + ": " +
         difference(bits_per_byte(results, a, language), bits_per_byte(results, b, language));
}

bool claims_nothing(const run_results& results) { return results.seeds.size() < 2; }

finding low_resource(const run_results& results, const std::string& language) {
  return {.about = "Bits a byte of " + language + ", which was to be learned",
          .sentence = against(results, "sara", "plain", language) + (claims_nothing(results) ? ". Values: " : ". Means: ") +
                      bits(results, "pretrained", language) + ", " + bits(results, "plain", language) + ", " +
                      bits(results, "sara", language) + ".",
          .headline = true};
}

finding forgetting(const run_results& results) {
  std::vector<std::string> values, differences;
  for (const char* model : {"pretrained", "plain", "sara"}) {
    if (results.has(model)) values.push_back(bits(results, model, results.high));
  }
  for (const auto& [a, b] : {std::pair{"sara", "pretrained"}, {"plain", "pretrained"}, {"sara", "plain"}}) {
    if (results.has(a) && results.has(b)) differences.push_back(against(results, a, b, results.high));
  }
  std::string sentence;
  if (claims_nothing(results)) {
    sentence = "One seed shows no interval: nothing is claimed. ";
  } else {
    for (std::size_t i = 0; i < differences.size(); ++i) sentence += (i == 0 ? "" : "; ") + differences[i];
    sentence += differences.empty() ? "" : ". ";
  }
  sentence += claims_nothing(results) ? "Values: " : "Means: ";
  for (std::size_t i = 0; i < values.size(); ++i) sentence += (i == 0 ? "" : ", ") + values[i];
  return {.about = "Bits a byte of " + results.high + ", which must not be forgotten", .sentence = sentence + "."};
}

// "0.2100 of plain's (4.300 against 20.48 thousandths of a nat; seed by seed 0.19 to 0.23)"
std::string ratio(std::span<const double> upper, std::span<const double> lower, const std::string& b,
                  const std::string& unit = "thousandths of a nat") {
  if (!all_finite(upper) || !all_finite(lower)) return "not measured";
  const double mean_upper = mean(upper), mean_lower = mean(lower);
  const std::string values = significant(1000 * mean_upper) + " against " + significant(1000 * mean_lower) + " " + unit;
  if (mean_lower <= 0) return values + ", which makes no ratio";
  std::string text = significant(mean_upper / mean_lower) + " of " + display_name(b) + "'s (" + values;
  if (upper.size() > 1 && *std::min_element(lower.begin(), lower.end()) > 0) {
    double least = upper[0] / lower[0], most = least;
    for (std::size_t s = 1; s < upper.size(); ++s) {
      least = std::min(least, upper[s] / lower[s]);
      most = std::max(most, upper[s] / lower[s]);
    }
    text += "; seed by seed " + significant(least, 2) + " to " + significant(most, 2);
  }
  return text + ")";
}

std::string ratio(const run_results& results, const std::string& a, const std::string& b, const std::string& language,
                  std::vector<double> layer_divergences::*which, layer_range range = layer_range::window) {
  return ratio(mean_divergence(results, a, language, which, range), mean_divergence(results, b, language, which, range), b);
}

// A divergence falls too where routing as a whole becomes less selective: the first two figures do not tell these apart.
std::string less_selective(const run_results& results, const std::string& language) {
  const auto in_the_window = [&](const char* model, std::vector<double> layer_divergences::*which, auto scale) {
    return mean_divergence(results, model, language, which, layer_range::window, scale);
  };
  std::string text;
  const auto normalized = &model_evaluation::normalized, in_nats = &model_evaluation::divergence;
  const std::vector<double> sara = in_the_window("sara", &layer_divergences::live, normalized);
  const std::vector<double> plain = in_the_window("plain", &layer_divergences::live, normalized);
  if (all_finite(sara) && all_finite(plain)) {
    text += " Normalised by the histograms' entropies, live: " + ratio(sara, plain, "plain", "thousandths") + ".";
  }
  const std::vector<double> sara_unpaired = in_the_window("sara", &layer_divergences::unpaired, in_nats);
  const std::vector<double> plain_unpaired = in_the_window("plain", &layer_divergences::unpaired, in_nats);
  if (!all_finite(sara_unpaired) || !all_finite(plain_unpaired)) return text;
  const bool nearer = mean(sara_unpaired) < mean(plain_unpaired) && mean(in_the_window("sara", &layer_divergences::live, in_nats)) <
                                                                        mean(in_the_window("plain", &layer_divergences::live, in_nats));
  return text + " Unpaired sentences of the two languages" + (nearer ? " come nearer as well" : "") + ": " +
         ratio(sara_unpaired, plain_unpaired, "plain") + (nearer ? ", so a part of this is routing that tells sentences apart less." : ".");
}

finding in_window(const run_results& results, const std::string& language) {
  std::string sentence = "SARA leaves " + ratio(results, "sara", "plain", language, &layer_divergences::anchored) +
                         " against the frozen anchors, and live " + ratio(results, "sara", "plain", language, &layer_divergences::live) +
                         "." + less_selective(results, language);
  if (results.window_last - results.window_first + 1 < results.layers) {
    sentence += " Outside the window, against the anchors: " +
                ratio(results, "sara", "plain", language, &layer_divergences::anchored, layer_range::outside) + ".";
  }
  return {.about = "Divergence of " + language + " from " + results.high + " in the window, " + window_words(results),
          .sentence = sentence};
}

finding control(const run_results& results, const std::string& language) {
  const std::vector<double> sara = bits_per_byte(results, "sara", language), shuffled = bits_per_byte(results, "shuffled", language);
  std::string sentence = "Bits a byte of " + language + ", SARA against shuffled anchors: " + difference(sara, shuffled) + ".";
  const bool finite = all_finite(sara) && all_finite(shuffled);
  const std::optional<interval> resolved = finite ? paired_difference(sara, shuffled) : std::nullopt;
  if (resolved && resolved->high < 0) {
    sentence += " The right translation's anchor does better than another sentence's.";
  } else if (resolved && resolved->low > 0) {
    sentence += " The right translation's anchor does worse than another sentence's.";
  } else if (resolved) {
    sentence +=
        " So this run does not show that it matters which sentence an anchor comes from; the languages' common offset may be all there is.";
  }
  if (results.has("plain")) {
    sentence += " Divergence in the window against the right anchors: shuffled leaves " +
                ratio(results, "shuffled", "plain", language, &layer_divergences::anchored) + ".";
  }
  return {.about = "Control for " + language + ": anchors shuffled over the pairs", .sentence = sentence};
}

// Of the arm and seed whose validation rose most above its best. Fine-tuning ends with its last step, not with its best.
std::optional<std::string> overfitting(const run_results& results, const std::string& language) {
  double worst = tolerated_rise;
  std::optional<std::string> warning;
  for (std::size_t s = 0; s < results.curves.size(); ++s) {
    for (const training_curve& curve : results.curves[s]) {
      if (curve.stage != "finetune") continue;
      std::vector<std::pair<std::int64_t, double>> bits;
      for (const validation_point& point : curve.validation) {
        const auto found = point.bits_per_byte.find(language);
        if (found != point.bits_per_byte.end() && std::isfinite(found->second)) bits.emplace_back(point.step, found->second);
      }
      if (bits.empty()) continue;
      const auto best = std::min_element(bits.begin(), bits.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
      const auto& [last_step, last] = bits.back();
      if (last - best->second <= worst) continue;
      worst = last - best->second;
      warning = language + ": validation was best at step " + std::to_string(best->first) + " of " + std::to_string(last_step) + " (" +
                fixed(best->second, 2) + " bits a byte) and ended at " + fixed(last, 2) + " (" + display_name(curve.arm) + ", seed " +
                std::to_string(results.seeds[s]) + "): the text is too small for so many tokens; choose fewer with --finetune-tokens.";
    }
  }
  return warning;
}

}   // namespace

std::string difference(std::span<const double> a, std::span<const double> b) {
  if (a.empty() || !all_finite(a) || !all_finite(b)) return "not measured";
  const std::optional<interval> d = paired_difference(a, b);
  if (!d) return "one seed shows no interval: nothing is claimed";
  const std::string seeds = count_of(a.size(), "seed");
  if (!d->resolves()) {
    return "no difference resolved (" + with_sign(d->mean) + " [" + with_sign(d->low) + ", " + with_sign(d->high) + "], " + seeds + ")";
  }
  const bool lower = d->high < 0;
  return std::string(lower ? "lower" : "higher") + " by " + significant(std::abs(d->mean)) + " [" + significant(lower ? -d->high : d->low) +
         ", " + significant(lower ? -d->low : d->high) + "] (95 % t-interval, " + seeds + ")";
}

std::vector<finding> findings(const run_results& results) {
  std::vector<finding> all;
  const bool both = results.has("sara") && results.has("plain");
  for (const std::string& language : results.low) {
    if (both) all.push_back(low_resource(results, language));
  }
  all.push_back(forgetting(results));
  for (const std::string& language : results.low) {
    if (both) all.push_back(in_window(results, language));
    if (results.has("sara") && results.has("shuffled")) all.push_back(control(results, language));
  }
  return all;
}

std::vector<std::string> warnings(const run_results& results) {
  std::vector<std::string> all;
  if (results.illustrative) {
    all.push_back("The corpus (" + results.corpus +
                  ") is too small to train this model: every metric below only illustrates what a run shows.");
  }
  std::map<std::string, std::int64_t> pairs;
  for (const corpus_file& file : results.files) pairs[file.language] += file.training + file.validation + file.test;
  for (const std::string& language : results.low) {
    const auto found = pairs.find(language);
    if (found == pairs.end() || found->second >= static_cast<std::int64_t>(enough_pairs)) continue;
    all.push_back("Only " + std::to_string(found->second) + " pairs of " + language + ": below " +
                  grouped(static_cast<long long>(enough_pairs)) + ", what is measured says little.");
  }
  for (const std::string& language : results.low) {
    if (const std::optional<std::string> warning = overfitting(results, language)) all.push_back(*warning);
  }
  return all;
}

std::string what_was_run(const run_results& results) {
  std::vector<std::string> languages, arms;
  for (const std::string& language : results.low) {
    std::int64_t training = 0, validation = 0, test = 0;
    for (const corpus_file& file : results.files) {
      if (file.language != language) continue;
      training += file.training;
      validation += file.validation;
      test += file.test;
    }
    languages.push_back(language + " (" + grouped(training) + " pairs to train on, " + grouped(validation) + " for validation, " +
                        grouped(test) + " for the test)");
  }
  for (const std::string& model : results.models) {
    if (model != "pretrained") arms.push_back(display_name(model));
  }
  return (results.corpus.empty() ? std::string("A") : "On " + results.corpus + ", a") + " Mixture-of-Experts transformer of " +
         std::to_string(results.layers) + " layers with " + std::to_string(results.experts) + " experts each was pretrained mostly on " +
         results.high + " and then fine-tuned for " + listed(languages) + ", " +
         (arms.empty() ? std::string("with no arm yet")
                       : "in " + count_of(arms.size(), "arm") + " that start from one checkpoint (" + listed(arms) + ")") +
         ", under " + count_of(results.seeds.size(), "seed") + ". All figures but the training curves are measured on the " + results.part +
         " pairs, which " +
         (results.part == "test" ? "no stage has seen." : "also chose the pretrained checkpoint: the test pairs say more.");
}

std::string window_words(const run_results& results) {
  return results.window_first == results.window_last
             ? "layer " + std::to_string(results.window_first)
             : "layers " + std::to_string(results.window_first) + " to " + std::to_string(results.window_last);
}

}   // namespace sara_finetune
