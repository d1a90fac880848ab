#include "settings.hpp"

#include <charconv>
#include <cmath>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include "model/shape_json.hpp"
#include "storage/atomic_file.hpp"
#include "training/random.hpp"

namespace sara_finetune {
namespace {

[[noreturn]] void refuse(const std::string& sentence) { throw std::runtime_error(sentence); }

template <class Number> void must_be(const char* flag, bool fine, const char* wanted, Number found) {
  if (fine) return;
  std::ostringstream number;
  number << found;
  refuse(std::string("--") + flag + " must be " + wanted + ", but is " + number.str());
}

template <class Number> Number number_of(std::string_view text, const std::string& where) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) refuse(where + " is out of range: " + std::string(text));
  if (error != std::errc() || end != text.data() + text.size()) refuse(where + " must be a number, but is '" + std::string(text) + "'");
  return value;
}

// One list for both directions: visit(name, member) of every setting but the shape and the window.
template <class Settings, class Visit> void for_each_setting(Settings& s, const Visit& visit) {
  visit("corpus_name", s.corpus);
  visit("illustrative", s.illustrative);
  visit("parallel", s.parallel);
  visit("text", s.text);
  visit("high", s.high);
  visit("sequences", s.sequences);
  visit("micro_batches", s.micro_batches);
  visit("weight_decay", s.weight_decay);
  visit("clip", s.clip);
  visit("warmup", s.warmup);
  visit("balance", s.balance);
  visit("pretrain_tokens", s.pretrain_tokens);
  visit("pretrain_rate", s.pretrain_rate);
  visit("low_share", s.low_share);
  visit("low_sentences", s.low_sentences);
  visit("validations", s.validations);
  visit("anchors_keep", s.anchors_keep);
  visit("finetune_tokens", s.finetune_tokens);
  visit("finetune_rate", s.finetune_rate);
  visit("rehearsal", s.rehearsal);
  visit("lambda", s.lambda);
  visit("arms", s.arms);
  visit("seed", s.seed);
  visit("seeds", s.seeds);
  visit("part", s.part);
  visit("threads", s.threads);
  visit("save_every", s.save_every);
}

}   // namespace

void settings::check() const {
  shape.check();
  if (parallel.empty()) refuse("--parallel must name at least one file of sentence pairs");
  must_be("sequences", sequences >= 1, "at least 1", sequences);
  must_be("micro-batches", micro_batches >= 1 && micro_batches <= 64, "1 to 64", micro_batches);
  must_be("weight-decay", weight_decay >= 0 && std::isfinite(weight_decay), "at least 0", weight_decay);
  must_be("clip", clip > 0, "above 0", clip);
  must_be("warmup", warmup >= 0 && warmup <= 1, "0 to 1", warmup);
  must_be("balance", balance >= 0 && std::isfinite(balance), "at least 0", balance);
  must_be("pretrain-tokens", pretrain_tokens >= 1, "at least 1", pretrain_tokens);
  must_be("finetune-tokens", finetune_tokens >= 1, "at least 1", finetune_tokens);
  must_be("pretrain-rate", pretrain_rate > 0 && std::isfinite(pretrain_rate), "above 0", pretrain_rate);
  must_be("finetune-rate", finetune_rate > 0 && std::isfinite(finetune_rate), "above 0", finetune_rate);
  must_be("low-share", low_share >= 0 && low_share <= 1, "0 to 1", low_share);
  must_be("low-sentences", low_sentences >= 0 && low_sentences <= 1, "0 to 1", low_sentences);
  must_be("validations", validations >= 1, "at least 1", validations);
  must_be("anchors-keep", anchors_keep > 0 && anchors_keep <= 1, "above 0 and at most 1", anchors_keep);
  must_be("rehearsal", rehearsal >= 0 && rehearsal < 1, "0 to less than 1", rehearsal);
  must_be("lambda", lambda > 0 && std::isfinite(lambda), "above 0 (the arm plain is without)", lambda);
  must_be("seed", seed >= 0, "at least 0", seed);
  must_be("seeds", seeds >= 1, "at least 1", seeds);
  must_be("threads", threads >= 0, "at least 0", threads);
  must_be("save-every", save_every >= 1, "at least 1", save_every);
  if (part != "test" && part != "validation") refuse("--part must be test or validation, but is '" + part + "'");
  int first = 0, last = 0;
  parse_window(std::to_string(window_first) + "-" + std::to_string(window_last), "--window", shape.layers, first, last);
  if (arms.empty()) refuse("--arms must name at least one arm");
  std::set<std::string> names;
  for (const std::string& each : arms)
    if (!names.insert(parse_arm(each, *this, 0).name).second) refuse("--arms must name each arm once, but names " + each + " twice");
}

void to_json(nlohmann::json& json, const settings& from) {
  json = from.shape;
  for_each_setting(from, [&](const char* name, const auto& value) { json[name] = value; });
  json["window"] = {from.window_first, from.window_last};
}

void from_json(const nlohmann::json& json, settings& to) {
  json.get_to(to.shape);
  const auto read = [&](const char* name, auto& value) {
    const auto found = json.find(name);
    if (found == json.end()) refuse(std::string("expected ") + name + ", found none");
    try {
      found->get_to(value);
    } catch (const nlohmann::json::exception&) {
      refuse(std::string(name) + " cannot be " + found->dump());
    }
  };
  for_each_setting(to, read);
  std::array<int, 2> window{};
  read("window", window);
  to.window_first = window[0];
  to.window_last = window[1];
}

nlohmann::json read_settings(const std::filesystem::path& file) {
  const std::string text = read_file(file);
  nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) refuse(file.string() + ": expected JSON, found something else");
  try {
    (void)json.get<settings>();
  } catch (const std::exception& e) {
    refuse(file.string() + ": " + e.what());
  }
  return json;
}

void check_same_run(const settings& old, const settings& now, const std::filesystem::path& file) {
  const nlohmann::json before = old, after = now;
  const std::set<std::string> free = {"threads", "save_every", "arms", "seeds", "part"};
  for (const auto& [name, value] : before.items())
    if (!free.contains(name) && after[name] != value)
      refuse(file.string() + " says " + name + " " + value.dump() + ", but " + after[name].dump() +
             " is asked for: a run keeps its settings, so choose another --out");
}

void parse_window(const std::string& text, const char* flag, int layers, int& first, int& last) {
  const std::size_t dash = text.find('-');
  if (dash == std::string::npos) refuse(std::string(flag) + " must be FIRST-LAST, two layers, but is '" + text + "'");
  first = number_of<int>(std::string_view(text).substr(0, dash), flag);
  last = number_of<int>(std::string_view(text).substr(dash + 1), flag);
  if (first < 0 || last < first || last >= layers)
    refuse(std::string(flag) + " must lie within the model's layers, 0-" + std::to_string(layers - 1) + ", but is " + text);
}

arm parse_arm(const std::string& text, const settings& of, std::uint64_t seed) {
  arm parsed{.name = text, .lambda = of.lambda, .rehearsal = of.rehearsal, .window_first = of.window_first, .window_last = of.window_last};
  const std::size_t plus = text.find('+');
  const std::string name = text.substr(0, plus);
  const std::string where = "--arms: " + text;
  if (name == "plain") {
    parsed.lambda = 0;
  } else if (name == "shuffled") {
    parsed.shuffled = true;
  } else if (name == "all-layers") {
    parsed.window_first = 0;
    parsed.window_last = of.shape.layers - 1;
  } else if (name == "random-window") {
    const int length = of.window_last - of.window_first + 1, others = of.shape.layers - length;
    if (others < 1) refuse(where + ": there is no other window of " + std::to_string(length) + " layers");
    parsed.window_first = static_cast<int>(random_bits(mixed(seed, 5)).below(static_cast<std::size_t>(others)));
    if (parsed.window_first >= of.window_first) ++parsed.window_first;
    parsed.window_last = parsed.window_first + length - 1;
  } else if (name != "sara") {
    refuse(where + ": expected plain, sara, shuffled, all-layers or random-window, found '" + name + "'");
  }
  for (std::size_t at = plus; at != std::string::npos;) {
    const std::size_t end = text.find('+', at + 1);
    const std::string part = text.substr(at + 1, end == std::string::npos ? end : end - at - 1);
    const std::size_t equals = part.find('=');
    const std::string key = part.substr(0, equals), value = equals == std::string::npos ? "" : part.substr(equals + 1);
    if (key == "lambda") {
      parsed.lambda = number_of<double>(value, where + ": lambda");
      if (!(parsed.lambda > 0) || !std::isfinite(parsed.lambda) || name == "plain")
        refuse(where + ": lambda must be above 0, and plain has none, but is " + value);
    } else if (key == "window") {
      parse_window(value, (where + ": window").c_str(), of.shape.layers, parsed.window_first, parsed.window_last);
    } else if (key == "rehearsal") {
      parsed.rehearsal = number_of<double>(value, where + ": rehearsal");
      if (!(parsed.rehearsal >= 0 && parsed.rehearsal < 1)) refuse(where + ": rehearsal must be 0 to less than 1, but is " + value);
    } else {
      refuse(where + ": expected lambda=, window= or rehearsal= after a '+', found '" + part + "'");
    }
    at = end;
  }
  return parsed;
}

}   // namespace sara_finetune
