// A batch: sequences one after another, without padding.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "shape.hpp"

namespace sara_finetune {

struct packed_batch {
  std::vector<std::int32_t> tokens = {};        // [tokens]
  std::vector<std::int32_t> targets = {};       // [tokens], the token after each; not read where its weight is 0
  std::vector<float> target_weights = {};       // [tokens], of the cross-entropy
  std::vector<std::int64_t> cu_seqlens = {0};   // [sequences + 1]: sequence s is the tokens from cu_seqlens[s] up to cu_seqlens[s + 1]

  index_t token_count() const { return static_cast<index_t>(tokens.size()); }
  index_t sequence_count() const { return static_cast<index_t>(cu_seqlens.size()) - 1; }

  // Throws unless the model can read this batch; a pass that stops at the routing needs no targets.
  void check(const model_shape& shape, bool with_targets = true) const {
    const auto refuse = [](const std::string& what) { throw std::runtime_error("batch: " + what); };
    const auto number = [](auto n) { return std::to_string(n); };
    if (cu_seqlens.empty() || cu_seqlens.front() != 0 || cu_seqlens.back() != token_count())
      refuse(
          "cu_seqlens must begin with 0 and end with the number of tokens, " + number(token_count()) +
          (cu_seqlens.empty() ? ", but is empty" : ", but goes from " + number(cu_seqlens.front()) + " to " + number(cu_seqlens.back())));
    for (std::size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
      const std::int64_t length = cu_seqlens[s + 1] - cu_seqlens[s];
      if (length < 0 || length > shape.context)
        refuse("sequence " + number(s) + " must have 0 to " + number(shape.context) + " tokens (the context), but has " + number(length));
    }
    const auto in_vocabulary = [&](const char* name, std::size_t i, std::int32_t token) {
      if (token < 0 || token >= shape.vocabulary)
        refuse(std::string(name) + "[" + number(i) + "] must be a token below " + number(shape.vocabulary) + " (the vocabulary), but is " +
               number(token));
    };
    for (std::size_t i = 0; i < tokens.size(); ++i) in_vocabulary("tokens", i, tokens[i]);
    if (!with_targets) return;
    if (targets.size() != tokens.size())
      refuse("targets must have " + number(tokens.size()) + " entries, but has " + number(targets.size()));
    if (target_weights.size() != tokens.size())
      refuse("target_weights must have " + number(tokens.size()) + " entries, but has " + number(target_weights.size()));
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (!(target_weights[i] >= 0) || !std::isfinite(target_weights[i]))
        refuse("target_weights[" + number(i) + "] must be finite and at least 0, but is " + number(target_weights[i]));
      if (target_weights[i] > 0) in_vocabulary("targets", i, targets[i]);
    }
  }
};

}   // namespace sara_finetune
