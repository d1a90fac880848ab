// A model and a batch small enough to be checked entry by entry, in double.
#pragma once

#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "sara_finetune/model/model.hpp"

extern template class sara_finetune::moe_model<double>;   // in small_model.cpp

namespace small {

using namespace sara_finetune;

// Extents that differ and are no multiples of a vector.
inline model_shape shape() {
  return {.vocabulary = 19, .layers = 4, .width = 12, .heads = 2, .experts = 5, .chosen = 2, .hidden = 7, .context = 60};
}

inline packed_batch batch_of(const model_shape& shape, const std::vector<int>& lengths, unsigned seed) {
  std::mt19937 random(seed);
  const auto token = [&] { return static_cast<std::int32_t>(random() % static_cast<unsigned>(shape.vocabulary)); };
  packed_batch batch{.cu_seqlens = {0}};
  for (const int length : lengths) {
    for (int i = 0; i < length; ++i) {
      batch.tokens.push_back(token());
      batch.targets.push_back(token());
      batch.target_weights.push_back(i + 1 == length ? 0.f : static_cast<float>(1 + random() % 3) / 2);
    }
    batch.cu_seqlens.push_back(batch.token_count());
  }
  return batch;
}

// Sequences [first, end) of a batch.
inline packed_batch part_of(const packed_batch& batch, std::size_t first, std::size_t end) {
  packed_batch part;
  for (std::size_t s = first; s <= end; ++s) part.cu_seqlens.push_back(batch.cu_seqlens[s] - batch.cu_seqlens[first]);
  for (auto i = static_cast<std::size_t>(batch.cu_seqlens[first]); i < static_cast<std::size_t>(batch.cu_seqlens[end]); ++i) {
    part.tokens.push_back(batch.tokens[i]);
    part.targets.push_back(batch.targets[i]);
    part.target_weights.push_back(batch.target_weights[i]);
  }
  return part;
}

// Large enough that attention, gate and experts are far from linear.
template <class Scalar = double> std::vector<Scalar> parameters(const model_shape& shape, std::uint64_t seed) {
  std::vector<Scalar> all = initialize<Scalar>(shape, seed);
  random_bits random(seed + 1);
  for (const parameter_block& block : blocks(shape)) {
    const double deviation = block.rows == 1 ? 0.2 : 1.3 / std::sqrt(static_cast<double>(shape.width));
    for (index_t i = block.offset; i < block.offset + block.size(); ++i) {
      Scalar& value = all.data()[i];
      value = static_cast<Scalar>((block.rows == 1 ? 1 : 0) + deviation * random.normal());
    }
  }
  return all;
}

// What `broken` says when it is refused.
template <class Call> std::string complaint(const Call& broken) {
  try {
    broken();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}   // namespace small
