// A batch of made-up sentences and anchors for a small model.
#pragma once

#include <cmath>
#include <vector>

#include "../model/small_model.hpp"
#include "sara_finetune/training/trainer.hpp"

namespace small {

inline constexpr model_shape tiny{
    .vocabulary = 40, .layers = 3, .width = 16, .heads = 2, .experts = 5, .chosen = 2, .hidden = 12, .context = 16};

struct made_up {
  std::vector<encoded_sentence> sentences = {};
  std::vector<training_sequence> batch = {};
  std::vector<float> anchors = {};   // [sentences, layers, experts]
};

inline made_up problem(std::size_t count = 11) {
  made_up made;
  random_bits random(5);
  for (std::size_t i = 0; i < count; ++i) {
    encoded_sentence& s = made.sentences.emplace_back();
    s.tokens = {1};
    for (std::size_t t = 0; t < 2 + i % 9; ++t) s.tokens.push_back(static_cast<std::int32_t>(3 + (7 * i + 5 * t * t) % 37));
    for (int l = 0; l < tiny.layers; ++l) {
      float row[5], sum = 0;
      for (float& p : row) sum += p = static_cast<float>(std::exp(random.normal()));
      for (const float p : row) made.anchors.push_back(p / sum);
    }
  }
  for (std::size_t i = 0; i < count; ++i)
    made.batch.push_back({.sentence = &made.sentences[i], .anchor_row = i % 3 == 2 ? -1 : static_cast<std::int32_t>(i)});
  return made;
}

}   // namespace small
