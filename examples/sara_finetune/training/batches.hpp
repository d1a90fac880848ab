// Which sentences each step reads. Laid out before the first step, from a seed alone: arms share it, and a resumed run finds its place.
#pragma once

#include <cstdint>
#include <vector>

#include "../text/dataset.hpp"
#include "trainer.hpp"

namespace sara_finetune {

using step_batches = std::vector<std::vector<training_sequence>>;   // [steps][sequences]

struct batch_options {
  index_t sequences = 32;     // a step
  index_t tokens = 900'000;   // of all steps: the last one reaches it
  std::uint64_t seed = 1;
};

// Pretraining: `low_share` of each batch's sequences are of the low-resource languages, in turn, from `low_sentences` of their training
// sentences, chosen by the seed; the others are of the high-resource one. A tenth of a tenth of a sequence is carried to the next step.
step_batches pretraining_batches(const dataset& data, double low_share, double low_sentences, const batch_options& options);

// Fine-tuning: `rehearsal` of each batch's sequences are high-resource text, without an anchor; the others are the low side of training
// pairs, with anchor_row their place among all training pairs, language by language.
step_batches finetuning_batches(const dataset& data, double rehearsal, const batch_options& options);

// Each pair's row but its own, within its language: `rows` as finetuning_batches counts them.
std::vector<std::int32_t> shuffled_rows(const dataset& data, std::uint64_t seed);

}   // namespace sara_finetune
