#include "anchors.hpp"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <unordered_map>

#include "atomic_file.hpp"
#include "npy.hpp"

namespace sara_finetune {
namespace {

using nlohmann::json;

constexpr const char* format = "sara_finetune anchors 1";
constexpr const char* token_rule = "BOS and the sentence's pieces, without EOS and padding";   // see dataset.hpp

using row_numbers = std::unordered_map<std::string_view, std::int32_t>;

row_numbers numbered(const std::string& whose, const anchor_table& anchors) {
  row_numbers rows;
  for (const std::string& key : anchors.keys)
    if (!rows.emplace(key, static_cast<std::int32_t>(rows.size())).second)
      throw std::runtime_error(whose + ": expected each pair's key once, found " + key + " twice");
  return rows;
}

void check(const std::string& whose, const anchor_table& anchors) {
  const auto refuse = [&](const std::string& what) { throw std::runtime_error(whose + ": " + what); };
  const auto number = [](auto n) { return std::to_string(n); };
  if (anchors.layers < 1 || anchors.experts < 1)
    refuse("expected anchors of at least one layer and one expert, found " + number(anchors.layers) + " and " + number(anchors.experts));
  if (anchors.samples() > std::numeric_limits<std::int32_t>::max())
    refuse("expected at most 2147483647 samples, found " + number(anchors.samples()));
  index_t values;
  if (__builtin_mul_overflow(anchors.layers, anchors.experts, &values) || __builtin_mul_overflow(values, anchors.samples(), &values) ||
      values != static_cast<index_t>(anchors.histograms.size()))
    refuse("expected histograms of [" + number(anchors.samples()) + " keys, " + number(anchors.layers) + " layers, " +
           number(anchors.experts) + " experts], found " + number(anchors.histograms.size()) + " values");
  numbered(whose, anchors);
  const float* row = anchors.histograms.data();
  for (const std::string& key : anchors.keys)
    for (index_t l = 0; l < anchors.layers; ++l, row += anchors.experts) {
      const auto refuse_row = [&](const std::string& what) {
        refuse("expected a distribution in the row of " + key + " at layer " + number(l) + ", found " + what);
      };
      double sum = 0;
      for (index_t e = 0; e < anchors.experts; ++e) {
        if (!(std::isfinite(row[e]) && row[e] >= 0)) refuse_row(number(row[e]) + " for expert " + number(e));
        sum += static_cast<double>(row[e]);
      }
      if (std::abs(sum - 1) > 1e-4) refuse_row("the sum " + number(sum));
    }
}

// Of all that a reader takes over, so that a damaged description shows as well as values of another run.
std::string checksum_of(const anchor_table& anchors) {
  std::uint64_t state = fnv1a(bytes_of(anchors.histograms));
  for (const std::string& key : anchors.keys) state = fnv1a(key + '\n', state);
  state = fnv1a(anchors.model + '\n' + std::to_string(anchors.layers) + ' ' + std::to_string(anchors.experts), state);
  return hexadecimal(state);
}

std::filesystem::path description_of(const std::filesystem::path& file) {
  if (file.extension() != ".npy") throw std::runtime_error(file.string() + ": expected a name for anchors that ends in .npy");
  return std::filesystem::path(file).replace_extension(".json");
}

template <class Value> Value field(const std::filesystem::path& file, const json& from, const char* name, const char* kind) {
  try {
    return from.at(name).get<Value>();
  } catch (const json::exception&) {
    const bool given = from.contains(name);
    throw std::runtime_error(file.string() + ": expected " + kind + " \"" + name + "\", found " +
                             (given ? std::string(from.at(name).type_name()) : "none"));
  }
}

index_t extent(const std::filesystem::path& file, const json& from, const char* name) {
  constexpr const char* kind = "a whole number";
  const auto found = from.find(name);
  if (found != from.end() && !found->is_number_integer())   // get() would cut a fraction off
    throw std::runtime_error(file.string() + ": expected " + kind + " \"" + name + "\", found " + found->dump());
  return field<index_t>(file, from, name, kind);
}

}   // namespace

std::vector<std::int32_t> anchor_table::rows_for(std::span<const std::string> wanted) const {
  const row_numbers rows = numbered("anchors", *this);
  std::vector<std::int32_t> found;
  found.reserve(wanted.size());
  for (const std::string& key : wanted) {
    const auto row = rows.find(key);
    found.push_back(row == rows.end() ? -1 : row->second);
  }
  return found;
}

void write_anchors(const std::filesystem::path& file, const anchor_table& anchors) {
  const std::filesystem::path description = description_of(file);
  check(file.string(), anchors);
  const json about = {
      {"format", format},           {"model", anchors.model},   {"samples", anchors.samples()},     {"layers", anchors.layers},
      {"experts", anchors.experts}, {"token_rule", token_rule}, {"checksum", checksum_of(anchors)}, {"keys", anchors.keys}};
  std::string text;
  try {
    text = about.dump(1) + "\n";
  } catch (const json::exception&) {
    throw std::runtime_error(description.string() + ": cannot be written: expected UTF-8 keys and model, found other bytes");
  }
  const std::string header = npy_header(anchors.histograms.size(), {anchors.samples(), anchors.layers, anchors.experts});
  const std::string_view parts[] = {header, bytes_of(anchors.histograms)};
  staged_file of_values(file, parts), of_description(description, text);
  of_values.commit();
  of_description.commit();
}

anchor_table read_anchors(const std::filesystem::path& file) {
  const std::filesystem::path description = description_of(file);
  const auto refuse = [](const std::filesystem::path& where, const std::string& what) {
    throw std::runtime_error(where.string() + ": " + what);
  };
  npy_array values = read_npy(file);
  const json about = json::parse(read_file(description), nullptr, false);
  if (!about.is_object()) refuse(description, "expected a JSON object, found other bytes");
  if (const auto found = field<std::string>(description, about, "format", "the text"); found != format)
    refuse(description, std::string("expected \"") + format + "\", found \"" + found + "\"");
  if (const auto rule = field<std::string>(description, about, "token_rule", "the text"); rule != token_rule)
    refuse(description, std::string("expected anchors over \"") + token_rule + "\", found \"" + rule + "\"");

  anchor_table anchors;
  anchors.layers = extent(description, about, "layers");
  anchors.experts = extent(description, about, "experts");
  anchors.model = field<std::string>(description, about, "model", "the text");
  anchors.keys = field<std::vector<std::string>>(description, about, "keys", "a list of texts");
  if (const index_t samples = extent(description, about, "samples"); samples != anchors.samples())
    refuse(description, "expected " + std::to_string(samples) + " keys, one a sample, found " + std::to_string(anchors.samples()));
  const std::vector<index_t> shape = {anchors.samples(), anchors.layers, anchors.experts};
  if (values.shape != shape) {
    std::string found;
    for (const index_t each : values.shape) found += (found.empty() ? "" : ", ") + std::to_string(each);
    refuse(file, "expected the shape [" + std::to_string(shape[0]) + ", " + std::to_string(shape[1]) + ", " + std::to_string(shape[2]) +
                     "] that " + description.string() + " says, found [" + found + "]");
  }
  anchors.histograms = std::move(values.data);
  if (field<std::string>(description, about, "checksum", "the text") != checksum_of(anchors))
    refuse(file, "expected what " + description.string() +
                     " was written with, found another checksum: one of the two is of another run, or damaged");
  check(file.string(), anchors);
  return anchors;
}

anchor_table read_anchors(const std::filesystem::path& file, const model_shape& shape, const std::string& model) {
  anchor_table anchors = read_anchors(file);
  const auto refuse = [&](const std::string& of, const std::string& asked) {
    throw std::runtime_error(file.string() + ": anchors of another model: of " + of + ", but this one is of " + asked);
  };
  const auto extents = [](index_t layers, index_t experts) {
    return std::to_string(layers) + " layers and " + std::to_string(experts) + " experts";
  };
  if (anchors.layers != shape.layers || anchors.experts != shape.experts)
    refuse(extents(anchors.layers, anchors.experts), extents(shape.layers, shape.experts));
  if (anchors.model != model) refuse("parameters with the fingerprint " + anchors.model, "those with " + model);
  return anchors;
}

}   // namespace sara_finetune
