// The frozen anchors: histograms of the high-resource side of each pair under the pretrained model, and their files.
//
// NAME.npy, fp32 [samples, layers, experts], and NAME.json beside it, which says whose rows these are.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "../model/shape.hpp"
#include "fingerprint.hpp"

namespace sara_finetune {

struct anchor_table {
  index_t layers = 0, experts = 0;
  std::vector<std::string> keys = {};   // [samples], of pairs, as the caller names them; each once
  std::vector<float> histograms = {};   // [samples, layers, experts]
  std::string model = {};               // fingerprint of the parameters that made them

  index_t samples() const { return static_cast<index_t>(keys.size()); }

  // The rows of the pairs with these keys, -1 where there is none: sara::js_routing's anchor_rows. Throws if a key stands here twice.
  std::vector<std::int32_t> rows_for(std::span<const std::string> wanted) const;
};

// Both files or neither. Throws unless `file` ends in .npy, keys and histograms fit layers and experts, every key stands there once, and
// every row is a distribution (finite, >= 0, sum 1 within 1e-4).
void write_anchors(const std::filesystem::path& file, const anchor_table& anchors);

// Throws on files that are not what write_anchors writes, that do not belong together, or whose rows are not distributions.
anchor_table read_anchors(const std::filesystem::path& file);

// Throws also if they are anchors of another model: `model` is the fingerprint of its parameters.
anchor_table read_anchors(const std::filesystem::path& file, const model_shape& shape, const std::string& model);

}   // namespace sara_finetune
