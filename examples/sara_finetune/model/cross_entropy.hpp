// The output's product with the tied embedding, and the cross-entropy (natural logarithm) of the next token.
#pragma once

#include <algorithm>
#include <cmath>

#include "batch.hpp"
#include "matrices.hpp"

namespace sara_finetune {

// Logits live for some rows at a time. A pass that trains uses them at once for the gradient of the summed loss, in memory of its own:
// to keep them all, or to compute them again, would cost more than to scale that gradient later.
template <class Scalar> class tied_cross_entropy {
 public:
  void reserve(index_t tokens) { losses_.grown(tokens); }

  // Returns the sum of target weight times cross-entropy.
  double forward(matrix_map<const Scalar> embedding, matrix_map<const Scalar> hidden, const packed_batch& batch, bool with_gradient) {
    const index_t tokens = hidden.rows(), width = hidden.cols(), vocabulary = embedding.rows(), stride = whole_vectors(vocabulary);
    Scalar* const losses = losses_.grown(tokens);
    if (with_gradient) {
      grad_hidden_.grown(tokens, width);
      grad_embedding_.grown(vocabulary, width).setZero();
    }
    double sum = 0;
    for (index_t first = 0; first < tokens; first += rows_at_once) {
      const index_t rows = std::min(rows_at_once, tokens - first);
      const auto of_block = hidden.middleRows(first, rows);
      auto logits = map_rows(logits_.grown(rows_at_once * stride), rows, vocabulary, stride);
      logits.noalias() = of_block * embedding.transpose();
      for (index_t i = 0; i < rows; ++i) {
        const index_t t = first + i;
        const Scalar weight = static_cast<Scalar>(batch.target_weights.data()[t]);
        auto row = row_of(logits, i);
        losses[t] = 0;
        if (weight > 0) {
          const index_t target = batch.targets.data()[t];
          const Scalar peak = row.maxCoeff(), of_target = row(target) - peak;
          row = (row - peak).exp();
          const Scalar total = row.sum();
          losses[t] = std::log(total) - of_target;
          sum += static_cast<double>(weight) * static_cast<double>(losses[t]);
          if (with_gradient) {
            row *= weight / total;
            row(target) -= weight;
          }
        } else if (with_gradient) {
          row.setZero();
        }
      }
      if (!with_gradient) continue;
      grad_hidden_.rows(tokens, width).middleRows(first, rows).noalias() = logits * embedding;
      grad_embedding_.rows(vocabulary, width).noalias() += logits.transpose() * of_block;
    }
    return sum;
  }

  const Scalar* losses() const { return losses_.data(); }                   // [tokens], 0 where the target has no weight
  const Scalar* grad_hidden() const { return grad_hidden_.data(); }         // [tokens, width]
  const Scalar* grad_embedding() const { return grad_embedding_.data(); }   // [vocabulary, width], through the output alone

 private:
  static constexpr index_t rows_at_once = 192;
  buffer<Scalar> logits_, losses_, grad_hidden_, grad_embedding_;
};

}   // namespace sara_finetune
