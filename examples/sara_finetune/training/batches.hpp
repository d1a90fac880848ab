// Which sentences each step reads. Laid out before the first step, from a seed alone: arms share it, and a resumed run finds its place.
#pragma once

#include <cstdint>
#include <span>
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
// sentences, chosen by the seed; the others are of the high-resource one. What a share leaves of
// a sequence is carried to the next step.
step_batches pretraining_batches(const dataset& data, double low_share, double low_sentences, const batch_options& options);

// Fine-tuning: `rehearsal` of each batch's sequences are high-resource text, without an anchor; the others are the low side of training
// pairs, with anchor_row their place among all training pairs, language by language.
step_batches finetuning_batches(const dataset& data, double rehearsal, const batch_options& options);

// The anchors of other pairs: of `rows`, a row or -1 for each training pair, those of each language are dealt out anew among its pairs that
// have one, none to its own. Throws if a language has only one.
std::vector<std::int32_t> shuffled_rows(const dataset& data, std::span<const std::int32_t> rows, std::uint64_t seed);

}   // namespace sara_finetune
