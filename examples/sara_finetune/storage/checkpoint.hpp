// What a run keeps of itself: whatever is needed to go on with the same bits.
//
// The file, integers and floats little-endian: the line "sara_finetune checkpoint 1"; the header's length (64 bit); the header, JSON: `about`
// and the names and sizes of what follows; `arrays` as fp32, by name; the FNV-1a hash of all before it (64 bit).
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../model/shape_json.hpp"

namespace sara_finetune {

struct checkpoint {
  nlohmann::json about = nlohmann::json::object();         // "shape" (see shape_json.hpp), the step, the settings ...; must be UTF-8
  std::map<std::string, std::vector<float>> arrays = {};   // every bit is kept, of NaN too
};

// Atomically: the old checkpoint or the new one, whatever happens.
void write_checkpoint(const std::filesystem::path& file, const checkpoint& from);

// Throws on a foreign file, another version, a file that is truncated or goes on, or another checksum. Sizes in the file are held against
// its own before anything is allocated for them.
checkpoint read_checkpoint(const std::filesystem::path& file);

// about["shape"]; `file` is for the complaint.
model_shape shape_of(const checkpoint& from, const std::filesystem::path& file);

// Throws unless the checkpoint is of this shape: the sentence names the extent that differs.
void check_shape(const checkpoint& from, const std::filesystem::path& file, const model_shape& asked);

// Throws unless the array is there with so many values.
const std::vector<float>& array_of(const checkpoint& from, const std::filesystem::path& file, const std::string& name, std::size_t size);

}   // namespace sara_finetune
