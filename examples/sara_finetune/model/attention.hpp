// Causal multi-head attention with rotary positions, within each sequence of a packed batch.
#pragma once

#include <algorithm>
#include <cmath>

#include "batch.hpp"
#include "layers.hpp"
#include "parameters.hpp"

namespace sara_finetune {

// Memory of a backward pass, shared by the layers.
template <class Scalar> struct attention_scratch { buffer<Scalar> grad_mixed, grad_projected, grad_probs; };

// One layer's, with what its backward needs. Queries are divided by the root of the head's width as they are turned.
template <class Scalar> class causal_attention {
 public:
  explicit causal_attention(const model_shape& shape)
      : heads_(shape.heads),
        head_width_(shape.head_width()),
        width_(shape.width),
        query_scale_(1 / std::sqrt(static_cast<Scalar>(shape.head_width()))) {}

  // Adds to `residual`.
  void forward(const layer_blocks<const Scalar>& layer, const rotary<Scalar>& positions, const packed_batch& batch,
               matrix_map<const Scalar> input, matrix_map<Scalar> residual) {
    auto projected = projected_.grown(input.rows(), 3 * width_);
    projected.noalias() = input * layer.query_key_value;
    for_each_head_of_a_token(batch, [&](index_t t, index_t position, index_t column) {
      positions.turn(projected.data() + t * 3 * width_ + column, position, query_scale_);
      positions.turn(projected.data() + t * 3 * width_ + width_ + column, position, 1);
    });

    auto mixed = mixed_.grown(input.rows(), width_);
    probs_.grown(prob_count(batch));
    for_each_block(batch, [&](const block& b) {
      auto probs = map_rows(probs_.data() + b.probs, b.rows, b.keys, b.stride);
      probs.noalias() =
          head(projected, b.first + b.begin, b.rows, b.column) * head(projected, b.first, b.keys, width_ + b.column).transpose();
      for (index_t i = 0; i < b.rows; ++i) softmax(probs_.data() + b.probs + i * b.stride, b.begin + i + 1, b);
      head(mixed, b.first + b.begin, b.rows, b.column).noalias() = probs * head(projected, b.first, b.keys, 2 * width_ + b.column);
    });
    residual.noalias() += mixed * layer.attention_out;
  }

  // Writes grad_input; adds to `gradient`.
  void backward(const layer_blocks<const Scalar>& layer, const rotary<Scalar>& positions, const packed_batch& batch,
                matrix_map<const Scalar> input, matrix_map<const Scalar> grad_output, matrix_map<Scalar> grad_input,
                layer_blocks<Scalar>& gradient, attention_scratch<Scalar>& scratch) const {
    const index_t tokens = input.rows();
    const auto projected = projected_.rows(tokens, 3 * width_), mixed = mixed_.rows(tokens, width_);
    gradient.attention_out.noalias() += mixed.transpose() * grad_output;
    auto grad_mixed = scratch.grad_mixed.grown(tokens, width_);
    grad_mixed.noalias() = grad_output * layer.attention_out.transpose();

    auto grad_projected = scratch.grad_projected.grown(tokens, 3 * width_);
    grad_projected.setZero();
    for_each_block(batch, [&](const block& b) {
      const auto probs = map_rows(probs_.data() + b.probs, b.rows, b.keys, b.stride);
      const auto grad_rows = head(grad_mixed, b.first + b.begin, b.rows, b.column);
      head(grad_projected, b.first, b.keys, 2 * width_ + b.column).noalias() += probs.transpose() * grad_rows;

      auto grad_probs = map_rows(scratch.grad_probs.grown(b.rows * b.stride), b.rows, b.keys, b.stride);
      grad_probs.noalias() = grad_rows * head(projected, b.first, b.keys, 2 * width_ + b.column).transpose();
      for (index_t i = 0; i < b.rows; ++i) {
        const index_t t = b.first + b.begin + i;
        // The probabilities' dot product with their gradient, through the shorter row that they mix.
        const Scalar dot = (row_part(grad_mixed, t, b.column, head_width_) * row_part(mixed, t, b.column, head_width_)).sum();
        auto g = row_part(grad_probs, i, 0, whole_vectors(b.keys));
        g = row_part(probs, i, 0, whole_vectors(b.keys)) * (g - dot);
      }
      head(grad_projected, b.first + b.begin, b.rows, b.column).noalias() =
          grad_probs * head(projected, b.first, b.keys, width_ + b.column);
      head(grad_projected, b.first, b.keys, width_ + b.column).noalias() +=
          grad_probs.transpose() * head(projected, b.first + b.begin, b.rows, b.column);
    });
    for_each_head_of_a_token(batch, [&](index_t t, index_t position, index_t column) {
      positions.turn_back(grad_projected.data() + t * 3 * width_ + column, position, query_scale_);
      positions.turn_back(grad_projected.data() + t * 3 * width_ + width_ + column, position, 1);
    });

    gradient.query_key_value.noalias() += input.transpose() * grad_projected;
    grad_input.noalias() = grad_projected * layer.query_key_value.transpose();
  }

 private:
  // Some queries of one head of one sequence, and the keys up to the last of them: half of a square of scores would be thrown away.
  struct block {
    index_t first, column;       // the sequence's first token, the head's first column
    index_t begin, rows, keys;   // the first query's position, queries, keys
    index_t probs, stride;       // where the first query's probabilities begin, and how far it is to the next one's
  };
  static constexpr index_t queries_at_once = 48;

  template <class Visit> void for_each_block(const packed_batch& batch, const Visit& visit) const {
    index_t probs = 0;
    for (index_t s = 0; s < batch.sequence_count(); ++s) {
      const index_t first = batch.cu_seqlens.data()[s], length = batch.cu_seqlens.data()[s + 1] - first, stride = whole_vectors(length);
      for (index_t h = 0; h < heads_; ++h)
        for (index_t begin = 0; begin < length; begin += queries_at_once) {
          const index_t rows = std::min(queries_at_once, length - begin);
          visit(block{first, h * head_width_, begin, rows, begin + rows, probs, stride});
          probs += rows * stride;
        }
    }
  }
  index_t prob_count(const packed_batch& batch) const {
    index_t count = 0;
    for (index_t s = 0; s < batch.sequence_count(); ++s) {
      const index_t length = batch.cu_seqlens.data()[s + 1] - batch.cu_seqlens.data()[s];
      count += heads_ * length * whole_vectors(length);
    }
    return count;
  }
  template <class Visit> void for_each_head_of_a_token(const packed_batch& batch, const Visit& visit) const {
    for (index_t s = 0; s < batch.sequence_count(); ++s)
      for (index_t t = batch.cu_seqlens.data()[s]; t < batch.cu_seqlens.data()[s + 1]; ++t)
        for (index_t h = 0; h < heads_; ++h) visit(t, t - batch.cu_seqlens.data()[s], h * head_width_);
  }

  // Rows of one head.
  template <class Map> auto head(Map& m, index_t row, index_t rows, index_t column) const {
    return submatrix(m, row, column, rows, head_width_);
  }

  // Over a query's `seen` first scores; 0 from there on, as far as the block's products and whole vectors reach.
  static void softmax(Scalar* scores, index_t seen, const block& b) {
    const Scalar peak = map_row(scores, seen).maxCoeff();
    auto rounded = map_row(scores, whole_vectors(seen));
    rounded = (rounded - peak).exp();
    std::fill(scores + seen, scores + whole_vectors(b.keys), Scalar(0));
    rounded *= 1 / rounded.sum();
  }

  index_t heads_, head_width_, width_;
  Scalar query_scale_;
  buffer<Scalar> projected_, probs_, mixed_;   // queries, keys (both turned), values; attention; the values it mixes
};

}   // namespace sara_finetune
