// A batch of chosen experts on the device, and how its slots are walked: what the hard histogram and its backward share.
#pragma once

#include "../cuda/sequences.cuh"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// A batch of chosen experts as kernels read it.
template <class W, class I> struct chosen_experts {
  using A = arithmetic_t<W>;

  device_layers<const I> indices;
  device_layers<const W> weights;   // or none
  device_sequences sequences;
  const A* token_weights;   // [tokens] or null
  index_t layers, tokens, experts, k;

  // The part [from, to) of the positions of sequence s.
  struct run {
    index_t first_row, row_step, slots;
  };
  __device__ __forceinline__ run run_of(index_t s, index_t from, index_t to) const {
    return {sequences.row(s, from), sequences.layout == token_layout::interleaved ? sequences.count : 1, (to - from) * k};
  }
  __device__ __forceinline__ A token_weight(index_t row) const { return token_weights ? token_weights[row] : A(1); }
};

// Walks the slots of a run `step` apart, as rows and columns: a division only to begin with.
struct slot_walk {
  index_t slot, token, column, tokens_a_step, columns_a_step;

  __device__ __forceinline__ slot_walk(index_t first, index_t step, index_t k)
      : slot(first), token(first / k), column(first % k), tokens_a_step(step / k), columns_a_step(step % k) {}
  __device__ __forceinline__ void next(index_t step, index_t k) {
    slot += step;
    token += tokens_a_step;
    column += columns_a_step;
    if (column < k) return;
    column -= k;
    ++token;
  }
};

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
