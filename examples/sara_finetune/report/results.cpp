#include "results.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>

#include "../text/text_file.hpp"

namespace sara_finetune {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr double missing = std::numeric_limits<double>::quiet_NaN();

// A value of a JSON file and the way to it, for the complaint. `place` is the file, or the file and the line.
class located {
 public:
  located(const json& value, std::string place, std::string path = {}) : value_(&value), place_(std::move(place)), path_(std::move(path)) {}

  located at(const std::string& key) const {
    if (!value_->is_object()) wrong("an object");
    const auto found = value_->find(key);
    const std::string path = path_.empty() ? key : path_ + "." + key;
    if (found == value_->end()) throw std::runtime_error(place_ + ": expected the key \"" + path + "\", found none");
    return {*found, place_, path};
  }
  std::vector<located> items() const {
    if (!value_->is_array()) wrong("a list");
    std::vector<located> all;
    for (const json& item : *value_) all.emplace_back(item, place_, path_ + "[" + std::to_string(all.size()) + "]");
    return all;
  }
  std::string text() const {
    if (!value_->is_string()) wrong("a text");
    return value_->get<std::string>();
  }
  double number() const {
    if (!value_->is_number()) wrong("a number");
    return value_->get<double>();
  }
  double number_or_null() const { return value_->is_null() ? missing : number(); }
  std::int64_t count(std::int64_t least = 0) const {
    const bool fits = value_->is_number_unsigned() ? value_->get<std::uint64_t>() <= std::numeric_limits<std::int64_t>::max()
                                                   : value_->is_number_integer();
    if (!fits || value_->get<std::int64_t>() < least) wrong(("an integer of at least " + std::to_string(least)).c_str());
    return value_->get<std::int64_t>();
  }
  bool flag() const {
    if (!value_->is_boolean()) wrong("true or false");
    return value_->get<bool>();
  }
  bool has(const char* key) const { return value_->is_object() && value_->contains(key); }
  const json& value() const { return *value_; }
  const std::string& place() const { return place_; }

  [[noreturn]] void wrong(const char* expected) const {
    std::string found = value_->dump(-1, ' ', false, json::error_handler_t::replace);
    if (found.size() > 60) found = std::string("a long ") + value_->type_name();
    throw std::runtime_error(place_ + ": expected " + expected + (path_.empty() ? "" : " at \"" + path_ + "\"") + ", found " + found);
  }

 private:
  const json* value_;
  std::string place_, path_;
};

json parsed(std::string_view text, const std::string& place) {
  json value = json::parse(text, nullptr, false);
  if (value.is_discarded()) throw std::runtime_error(place + ": expected JSON, found something else, or the end of the file too early");
  return value;
}

// N of them, from the base seed on. A folder of another seed belongs to an earlier call with more of them.
std::vector<std::uint64_t> seeds_of(const located& settings) {
  const auto base = static_cast<std::uint64_t>(settings.has("seed") ? settings.at("seed").count() : 1);
  const auto count = static_cast<std::uint64_t>(settings.at("seeds").count(1));
  if (count > 10000) settings.at("seeds").wrong("at most 10000 seeds");
  std::vector<std::uint64_t> seeds;
  for (std::uint64_t i = 0; i < count; ++i) seeds.push_back(base + i);
  return seeds;
}

void read_settings(run_results& results, const fs::path& file) {
  results.settings = parsed(read_text_file(file), file.string());
  const located settings(results.settings, file.string());
  results.high = settings.at("high").text();
  results.layers = settings.at("layers").count(1);
  results.experts = settings.at("experts").count(1);
  const std::vector<located> window = settings.at("window").items();
  if (window.size() != 2) settings.at("window").wrong("the first and the last layer");
  results.window_first = window[0].count();
  results.window_last = window[1].count();
  if (results.window_last < results.window_first || results.window_last >= results.layers) {
    settings.at("window").wrong(("two layers in order, from 0 to " + std::to_string(results.layers - 1) + ",").c_str());
  }
  results.seeds = seeds_of(settings);
  if (settings.has("part")) results.part = settings.at("part").text();
  results.corpus = settings.at("corpus_name").text();
  results.illustrative = settings.at("illustrative").flag();
  const located corpus = settings.at("corpus");
  for (const located& file_of : corpus.at("files").items()) {
    if (file_of.has("parallel") && !file_of.at("parallel").flag()) continue;
    results.files.push_back({.file = file_of.at("file").text(),
                             .language = file_of.at("language").text(),
                             .training = file_of.at("training").count(),
                             .validation = file_of.at("validation").count(),
                             .test = file_of.at("test").count()});
    const std::string& language = results.files.back().language;
    if (std::find(results.low.begin(), results.low.end(), language) == results.low.end()) results.low.push_back(language);
  }
  if (results.low.empty()) corpus.at("files").wrong("at least one parallel file");
}

void expect_size(std::size_t size, index_t expected, const std::string& what, const std::string& place) {
  if (static_cast<index_t>(size) == expected) return;
  throw std::runtime_error(place + ": expected " + std::to_string(expected) + " values of " + what + ", found " + std::to_string(size));
}

template <class Value>
const Value& of_language(const std::map<std::string, Value>& values, const std::string& language, const std::string& what,
                         const std::string& place) {
  const auto found = values.find(language);
  if (found == values.end()) throw std::runtime_error(place + ": expected " + what + " of the language \"" + language + "\", found none");
  return found->second;
}

// What the figures index without looking.
void check(const model_evaluation& evaluation, const run_results& results, const std::string& place) {
  std::vector<std::string> languages = results.low;
  languages.push_back(results.high);
  for (const std::string& language : languages) {
    of_language(evaluation.bits_per_byte, language, "bits_per_byte", place);
    const std::string what = "expert_use of " + language;
    const auto& use = of_language(evaluation.expert_use, language, "expert_use", place);
    expect_size(use.size(), results.layers, what, place);
    for (const std::vector<double>& layer : use) expect_size(layer.size(), results.experts, what, place);
  }
  for (const std::string& language : results.low) {
    const layer_divergences& d = of_language(evaluation.divergence, language, "divergence", place);
    const std::string what = "divergence of " + language;
    for (const auto* values : {&d.live, &d.anchored}) expect_size(values->size(), results.layers, what, place);
    const auto expect_size_if_any = [&](const layer_divergences& of, std::vector<double> layer_divergences::*which,
                                        const std::string& name) {
      if (!(of.*which).empty()) expect_size((of.*which).size(), results.layers, name, place);
    };
    for (const auto reference : {&layer_divergences::unpaired, &layer_divergences::within_high, &layer_divergences::within_low}) {
      expect_size_if_any(d, reference, what);
    }
    const auto normalized = evaluation.normalized.find(language);
    if (normalized == evaluation.normalized.end()) continue;
    for (const auto which :
         {&layer_divergences::live, &layer_divergences::unpaired, &layer_divergences::within_high, &layer_divergences::within_low}) {
      expect_size_if_any(normalized->second, which, "normalized " + what);
    }
  }
}

void read_evaluation(run_results& results, const fs::path& file) {
  const std::string place = file.string();
  const json whole = parsed(read_text_file(file), place);
  const located models = located(whole, place).at("models");
  if (!models.value().is_object()) models.wrong("an object");
  models.at("pretrained");
  if (!results.evaluations.empty() && models.value().size() != results.evaluations.size()) {
    throw std::runtime_error(place + ": expected the same models under every seed, found " + std::to_string(models.value().size()) +
                             " where an earlier seed has " + std::to_string(results.evaluations.size()));
  }
  const bool first = results.evaluations.empty();
  for (const auto& [model, value] : models.value().items()) {
    if (!first && !results.evaluations.contains(model)) {
      throw std::runtime_error(place + ": expected the same models under every seed, found \"" + model + "\", which an earlier seed lacks");
    }
    const std::string where = place + ": model \"" + model + "\"";
    model_evaluation evaluation;
    try {
      evaluation = value.get<model_evaluation>();
    } catch (const json::exception& error) {
      throw std::runtime_error(where + ": expected an evaluation, found what cannot be read as one (" + error.what() + ")");
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(where + ": " + error.what());
    }
    check(evaluation, results, where);
    results.evaluations[model].push_back(std::move(evaluation));
  }
}

training_curve& curve_of(std::vector<training_curve>& curves, const std::string& stage, const std::string& arm) {
  for (training_curve& curve : curves) {
    if (curve.stage == stage && curve.arm == arm) return curve;
  }
  curves.push_back({.stage = stage, .arm = arm});
  return curves.back();
}

std::vector<training_curve> read_metrics(const fs::path& file) {
  std::vector<training_curve> curves;
  const std::string text = read_text_file(file);
  std::size_t number = 0;
  for (const std::string_view line : lines(text)) {
    ++number;
    if (trim(line).empty()) continue;
    const std::string place = file.string() + ":" + std::to_string(number);
    const json value = parsed(line, place);
    const located entry(value, place);
    const std::string stage = entry.at("stage").text();
    if (stage != "pretrain" && stage != "finetune") entry.at("stage").wrong("\"pretrain\" or \"finetune\"");
    training_curve& curve = curve_of(curves, stage, entry.at("arm").text());
    const std::int64_t step = entry.at("step").count();
    if (entry.has("validation")) {
      const located validation = entry.at("validation");
      if (!validation.value().is_object()) validation.wrong("bits a byte by language");
      validation_point point{.step = step, .tokens = 0, .bits_per_byte = {}};
      for (const auto& [language, bits] : validation.value().items()) {
        point.bits_per_byte[language] = located(bits, place, "validation." + language).number_or_null();
      }
      curve.validation.push_back(std::move(point));
    } else {
      curve.training.push_back({.step = step,
                                .tokens = entry.at("tokens").count(),
                                .cross_entropy = entry.at("cross_entropy").number_or_null(),
                                .divergence = entry.at("divergence").number_or_null()});
    }
  }
  for (training_curve& curve : curves) {
    for (validation_point& point : curve.validation) {
      for (const training_point& trained : curve.training) {
        if (trained.step <= point.step) point.tokens = std::max(point.tokens, trained.tokens);
      }
    }
  }
  return curves;
}

// "pretrained" and the three arms that every figure is about come first, then the others as they were asked for.
std::size_t rank(const std::string& model, const nlohmann::json& settings) {
  std::vector<std::string> order = {"pretrained", "plain", "sara", "shuffled"};
  const auto arms = settings.find("arms");
  if (arms != settings.end() && arms->is_array()) {
    for (const json& arm : *arms) order.push_back(arm.is_string() ? arm.get<std::string>() : "");
  }
  return static_cast<std::size_t>(std::find(order.begin(), order.end(), model) - order.begin());
}

}   // namespace

bool run_results::has(std::string_view model) const { return std::find(models.begin(), models.end(), model) != models.end(); }

run_results read_results(const fs::path& out) {
  if (!fs::is_directory(out)) throw std::runtime_error(out.string() + ": expected the folder of a run, found none");
  run_results results;
  const fs::path settings = out / "settings.json";
  read_settings(results, settings);

  for (const std::uint64_t seed : results.seeds) {
    const fs::path folder = out / ("seed-" + std::to_string(seed));
    read_evaluation(results, folder / "evaluation.json");
    results.curves.push_back(read_metrics(folder / "metrics.jsonl"));
  }
  for (const auto& [model, evaluations] : results.evaluations) results.models.push_back(model);
  // A run that was taken up again with fewer arms still has the others' lines.
  for (std::vector<training_curve>& seed : results.curves) {
    std::erase_if(seed, [&](const training_curve& curve) { return curve.stage == "finetune" && !results.has(curve.arm); });
  }
  std::stable_sort(results.models.begin(), results.models.end(),
                   [&](const std::string& a, const std::string& b) { return rank(a, results.settings) < rank(b, results.settings); });
  return results;
}

std::vector<double> bits_per_byte(const run_results& results, const std::string& model, const std::string& language) {
  return by_seed(results, model, [&](const model_evaluation& evaluation) { return evaluation.bits_per_byte.at(language); });
}

std::vector<double> mean_divergence(const run_results& results, const std::string& model, const std::string& language,
                                    std::vector<double> layer_divergences::*which, layer_range range,
                                    std::map<std::string, layer_divergences> model_evaluation::*scale) {
  return by_seed(results, model, [&](const model_evaluation& evaluation) {
    const auto found = (evaluation.*scale).find(language);
    if (found == (evaluation.*scale).end() || (found->second.*which).empty()) return missing;
    const std::vector<double>& layers = found->second.*which;
    double sum = 0;
    index_t count = 0;
    for (index_t l = 0; l < results.layers; ++l) {
      const bool inside = l >= results.window_first && l <= results.window_last;
      if (inside != (range == layer_range::window)) continue;
      sum += layers[static_cast<std::size_t>(l)];
      ++count;
    }
    return count == 0 ? missing : sum / static_cast<double>(count);
  });
}

std::string display_name(const std::string& model) {
  static const std::map<std::string, std::string> names = {
      {"sara", "SARA"}, {"shuffled", "shuffled anchors"}, {"all-layers", "SARA, all layers"}, {"random-window", "SARA, random window"}};
  const std::size_t plus = std::min(model.find('+'), model.size());
  const auto found = names.find(model.substr(0, plus));
  std::string name = found == names.end() ? model.substr(0, plus) : found->second;
  for (const char c : model.substr(plus)) name += c == '+' ? ", " : std::string(1, c);
  return name;
}

}   // namespace sara_finetune
