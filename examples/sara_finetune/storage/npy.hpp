// NumPy's array files (NPY), of fp32 in C order.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "../model/shape.hpp"

namespace sara_finetune {

struct npy_array {
  std::vector<index_t> shape = {};   // empty: a single number
  std::vector<float> data = {};
};

// What stands before the values, format 1.0. Throws unless the shape's extents multiply to the data's size.
std::string npy_header(std::size_t values, const std::vector<index_t>& shape);

// Atomically, as npy_header and the values.
void write_npy(const std::filesystem::path& file, std::span<const float> data, const std::vector<index_t>& shape);

// Reads format 1.0 and 2.0. Throws on everything but '<f4' in C order of exactly the size that the shape says.
npy_array read_npy(const std::filesystem::path& file);

}   // namespace sara_finetune
