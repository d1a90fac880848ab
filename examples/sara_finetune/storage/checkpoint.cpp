#include "checkpoint.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "atomic_file.hpp"
#include "fingerprint.hpp"

namespace sara_finetune {
namespace {

using nlohmann::json;

constexpr std::string_view kind = "sara_finetune checkpoint ", version = "1\n";
constexpr std::size_t word = sizeof(std::uint64_t), preamble = kind.size() + version.size() + word;

std::string_view bytes_of(const std::uint64_t& number) { return {reinterpret_cast<const char*>(&number), word}; }

std::uint64_t number_at(std::string_view bytes) {
  std::uint64_t number;
  std::memcpy(&number, bytes.data(), word);
  return number;
}

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what) {
  throw std::runtime_error(file.string() + ": " + what);
}

// The header's list of arrays: [[name, size], ...].
template <class Values, class Take>
void read_list(const std::filesystem::path& file, const json& header, const char* list, std::map<std::string, Values>& to,
               const Take& take) {
  const auto found = header.find(list);
  if (found == header.end() || !found->is_array()) refuse(file, std::string("is damaged: expected a list \"") + list + "\" in its header");
  for (const json& entry : *found) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number_unsigned())
      refuse(file, std::string("is damaged: expected names and sizes in its header's \"") + list + "\"");
    const auto name = entry[0].get<std::string>();
    const std::string_view raw = take(name, entry[1].get<std::uint64_t>(), sizeof(typename Values::value_type));
    Values values(raw.size() / sizeof(typename Values::value_type), {});
    if (!raw.empty()) std::memcpy(values.data(), raw.data(), raw.size());
    if (!to.emplace(name, std::move(values)).second) refuse(file, "is damaged: its header lists " + name + " twice");
  }
}

}   // namespace

void write_checkpoint(const std::filesystem::path& file, const checkpoint& from) {
  json header = {{"about", from.about}, {"arrays", json::array()}};
  for (const auto& [name, values] : from.arrays) header["arrays"].push_back({name, values.size()});
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception&) {
    refuse(file, "cannot be written: expected UTF-8 in what the checkpoint says about itself, found other bytes");
  }
  const std::uint64_t header_size = text.size();
  std::vector<std::string_view> parts = {kind, version, bytes_of(header_size), text};
  for (const auto& [name, values] : from.arrays) parts.push_back(sara_finetune::bytes_of(values));
  std::uint64_t checksum = fnv1a_start;
  for (const std::string_view part : parts) checksum = fnv1a(part, checksum);
  parts.push_back(bytes_of(checksum));
  write_file(file, parts);
}

checkpoint read_checkpoint(const std::filesystem::path& file) {
  const std::string whole = read_file(file);
  std::string_view rest = whole;
  if (!rest.starts_with(kind)) {
    const bool cut = kind.starts_with(rest) && !rest.empty();
    refuse(file,
           cut ? "is truncated: it ends in its first line" : "expected a checkpoint of sara_finetune, found other bytes at its beginning");
  }
  rest.remove_prefix(kind.size());
  if (!rest.starts_with(version)) {
    if (version.starts_with(rest)) refuse(file, "is truncated: it ends in its first line");
    refuse(file, "expected a checkpoint of version " + std::string(version.substr(0, version.size() - 1)) + ", found version " +
                     std::string(rest.substr(0, std::min<std::size_t>(rest.find('\n'), 20))));
  }
  if (whole.size() < preamble + word)
    refuse(file, "is truncated: expected at least " + std::to_string(preamble + word) + " bytes, found " + std::to_string(whole.size()));
  rest = std::string_view(whole).substr(preamble, whole.size() - preamble - word);
  const std::uint64_t header_size = number_at(std::string_view(whole).substr(preamble - word));
  if (header_size > rest.size())
    refuse(file,
           "is truncated or damaged: expected a header of " + std::to_string(header_size) + " bytes, found " + std::to_string(rest.size()));
  json header = json::parse(rest.substr(0, header_size), nullptr, false);
  if (!header.is_object() || !header.contains("about")) refuse(file, "is damaged: its header is not a checkpoint's");
  rest.remove_prefix(header_size);

  checkpoint read;
  read.about = std::move(header["about"]);   // a copy would call itself as deep as a foreign header is nested
  const auto take = [&](const std::string& name, std::uint64_t size, std::size_t width) {
    if (size > rest.size() / width)
      refuse(file, "is truncated or damaged: expected " + std::to_string(size) + " values of " + name + ", found " +
                       std::to_string(rest.size() / width));
    const std::string_view taken = rest.substr(0, size * width);
    rest.remove_prefix(taken.size());
    return taken;
  };
  read_list(file, header, "arrays", read.arrays, take);
  if (!rest.empty())
    refuse(file, "goes on after its end: expected " + std::to_string(whole.size() - rest.size()) + " bytes, found " +
                     std::to_string(whole.size()));
  const std::size_t summed = whole.size() - word;
  const std::uint64_t expected = number_at(std::string_view(whole).substr(summed)),
                      found = fnv1a(std::string_view(whole).substr(0, summed));
  if (found != expected) refuse(file, "is damaged: expected the checksum " + hexadecimal(expected) + ", found " + hexadecimal(found));
  return read;
}

model_shape shape_of(const checkpoint& from, const std::filesystem::path& file) {
  const auto found = from.about.is_object() ? from.about.find("shape") : from.about.end();
  if (found == from.about.end()) refuse(file, "expected a checkpoint of a model, found one without a shape");
  try {
    return found->get<model_shape>();
  } catch (const std::runtime_error& error) {
    refuse(file, error.what());
  }
}

void check_shape(const checkpoint& from, const std::filesystem::path& file, const model_shape& asked) {
  const model_shape found = shape_of(from, file);
  for (const auto& [name, extent] : shape_extents)
    if (found.*extent != asked.*extent)
      throw std::runtime_error("checkpoint " + file.string() + " is of a model of " + name + " " + std::to_string(found.*extent) +
                               ", but " + name + " " + std::to_string(asked.*extent) + " is asked for");
}

const std::vector<float>& array_of(const checkpoint& from, const std::filesystem::path& file, const std::string& name, std::size_t size) {
  const auto found = from.arrays.find(name);
  if (found == from.arrays.end()) refuse(file, "expected an array \"" + name + "\", found none");
  if (found->second.size() != size)
    refuse(file, "expected " + std::to_string(size) + " values of \"" + name + "\", found " + std::to_string(found->second.size()));
  return found->second;
}

}   // namespace sara_finetune
