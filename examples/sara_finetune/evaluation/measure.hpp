// Passes over many sentences that learn nothing: what they cost and how they are routed. Anchors, validation and evaluation read them.
//
// Sentences are cut into batches by their number alone, and sums go over them in their order, so the same bits come out for every number
// of threads.
#pragma once

#include <sara/cpu/threads.hpp>

#include <cstdint>
#include <span>
#include <vector>

#include "../model/model.hpp"
#include "../text/dataset.hpp"

namespace sara_finetune {

struct measured_sentences {
  index_t sentences = 0, layers = 0, experts = 0;
  std::vector<float> histograms = {};         // [sentences, layers, experts]: sara::routing_histogram of the router's logits
  std::vector<double> cross_entropies = {};   // [sentences], nats, summed over the targets; empty after a routing pass
  std::vector<double> entropies = {};         // [layers], nats: of a token's distribution, mean over all tokens
  std::vector<double> expert_use = {};        // [layers, experts]: share of the tokens' k choices; 0 without sentences
};

// `how_far`: pass::evaluation, or pass::routing for the histograms alone. Throws, naming the sentence, if the model cannot read one.
measured_sentences measure(const model_shape& shape, std::span<const float> parameters, std::span<const encoded_sentence* const> sentences,
                           pass how_far, sara::thread_pool& pool);

// The summed cross-entropies in bits, over the sentences' bytes.
double bits_a_byte(std::span<const double> cross_entropies, std::span<const encoded_sentence* const> sentences);

// A sentence of which the targets of the first `given` tokens do not count, see append().
struct continued_sentence {
  const encoded_sentence* sentence = nullptr;
  index_t given = 0;
};

// [sentences], nats, summed over the targets that count.
std::vector<double> cross_entropies(const model_shape& shape, std::span<const float> parameters,
                                    std::span<const continued_sentence> sentences, sara::thread_pool& pool);

}   // namespace sara_finetune
