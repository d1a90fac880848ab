// How an evaluation is kept: an object of its fields, each an object by language.
#include <stdexcept>
#include <utility>

#include "evaluation.hpp"

namespace sara_finetune {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& key, const std::string& wanted, const std::string& found) {
  throw std::runtime_error("evaluation: " + key + " must be " + wanted + ", but is " + found);
}

void require_object(const json& from, const std::string& key) {
  if (!from.is_object()) refuse(key, "an object", from.type_name());
}

const json& member(const json& from, const std::string& key, const std::string& name, const char* wanted) {
  const auto at = from.find(name);
  if (at == from.end()) refuse(key, wanted, "missing");
  return *at;
}

void read(const json& from, const std::string& key, double& to) {
  if (!from.is_number()) refuse(key, "a number", from.type_name());
  to = from.get<double>();
}

template <class Value> void read(const json& from, const std::string& key, std::vector<Value>& to) {
  if (!from.is_array()) refuse(key, "a list", from.type_name());
  to.resize(from.size());
  for (std::size_t i = 0; i < to.size(); ++i) read(from[i], key + "[" + std::to_string(i) + "]", to[i]);
}

void read(const json& from, const std::string& key, cloze_result& to) {
  require_object(from, key);
  const auto count = [&](const char* name) {
    const json& number = member(from, key + "." + name, name, "a whole number");
    if (!number.is_number_integer()) refuse(key + "." + name, "a whole number", number.is_number() ? number.dump() : number.type_name());
    return number.get<std::int64_t>();
  };
  to = {.right = count("right"), .items = count("items")};
  if (to.right < 0 || to.right > to.items) refuse(key + ".right", "from 0 to items, " + std::to_string(to.items), std::to_string(to.right));
}

constexpr std::pair<const char*, std::vector<double> layer_divergences::*> columns[] = {{"live", &layer_divergences::live},
                                                                                        {"anchored", &layer_divergences::anchored},
                                                                                        {"unpaired", &layer_divergences::unpaired},
                                                                                        {"within_high", &layer_divergences::within_high},
                                                                                        {"within_low", &layer_divergences::within_low}};

void read(const json& from, const std::string& key, layer_divergences& to) {
  require_object(from, key);
  for (const auto& [name, column] : columns) read(member(from, key + "." + name, name, "a list"), key + "." + name, to.*column);
}

template <class Value> void read_by_language(const json& from, const std::string& key, std::map<std::string, Value>& to) {
  const json& languages = member(from, key, key, "an object");
  require_object(languages, key);
  for (const auto& [language, value] : languages.items()) read(value, key + "." + language, to[language]);
}

json written(const std::map<std::string, layer_divergences>& divergences) {
  json to = json::object();
  for (const auto& [language, each] : divergences)
    for (const auto& [name, column] : columns) to[language][name] = each.*column;
  return to;
}

}   // namespace

void to_json(json& to, const model_evaluation& evaluation) {
  json cloze = json::object();
  for (const auto& [language, result] : evaluation.cloze) cloze[language] = {{"right", result.right}, {"items", result.items}};
  to = {{"bits_per_byte", evaluation.bits_per_byte},    {"cloze", std::move(cloze)},     {"divergence", written(evaluation.divergence)},
        {"normalized", written(evaluation.normalized)}, {"entropy", evaluation.entropy}, {"expert_use", evaluation.expert_use}};
}

void from_json(const json& from, model_evaluation& evaluation) {
  require_object(from, "it");
  model_evaluation read_so_far;
  read_by_language(from, "bits_per_byte", read_so_far.bits_per_byte);
  read_by_language(from, "cloze", read_so_far.cloze);
  read_by_language(from, "divergence", read_so_far.divergence);
  read_by_language(from, "normalized", read_so_far.normalized);
  read_by_language(from, "entropy", read_so_far.entropy);
  read_by_language(from, "expert_use", read_so_far.expert_use);
  evaluation = std::move(read_so_far);
}

}   // namespace sara_finetune
