#include "measure.hpp"

#include <sara/routing_histogram.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <optional>
#include <stdexcept>
#include <string>

#include "../training/parallel.hpp"

namespace sara_finetune {
namespace {

constexpr std::size_t sentences_at_once = 8;   // more are no faster, and take memory for each thread

void check(const model_shape& shape, std::span<const float> parameters, std::span<const continued_sentence> sentences) {
  const index_t expected = parameter_count(blocks(shape));
  if (static_cast<index_t>(parameters.size()) != expected)
    throw std::runtime_error("measure: expected the " + std::to_string(expected) + " parameters of this model shape, found " +
                             std::to_string(parameters.size()));
  for (std::size_t i = 0; i < sentences.size(); ++i) {
    const encoded_sentence* const sentence = sentences[i].sentence;
    const auto refuse = [&](const std::string& what) {
      throw std::runtime_error("measure: sentence " + std::to_string(i) + (sentence != nullptr ? " ('" + sentence->text + "')" : "") +
                               " must have " + what);
    };
    if (sentence == nullptr || sentence->tokens.empty()) refuse("tokens, BOS at least, but has none");
    if (sentence->length() > shape.context)
      refuse("at most " + std::to_string(shape.context) + " tokens (the context), but has " + std::to_string(sentence->length()));
    for (const std::int32_t token : sentence->tokens)
      if (token < 0 || token >= shape.vocabulary)
        refuse("tokens below " + std::to_string(shape.vocabulary) + " (the vocabulary), but has " + std::to_string(token));
    if (sentences[i].given < 0 || sentences[i].given > sentence->length())
      refuse("0 to " + std::to_string(sentence->length()) + " tokens given, but has " + std::to_string(sentences[i].given));
  }
}

// visit(model, batch, number of its first sentence) after each batch's forward, from many threads at a time.
using visit_batch = std::function<void(const moe_model<float>&, const packed_batch&, std::size_t)>;

void forward_in_batches(const model_shape& shape, std::span<const float> parameters, std::span<const continued_sentence> sentences,
                        pass how_far, sara::thread_pool& pool, const visit_batch& visit) {
  check(shape, parameters, sentences);
  const std::size_t batches = (sentences.size() + sentences_at_once - 1) / sentences_at_once;
  std::vector<std::optional<moe_model<float>>> models(static_cast<std::size_t>(pool.size()));
  for_each(pool, static_cast<index_t>(batches), [&](index_t b, int worker) {
    std::optional<moe_model<float>>& model = models[static_cast<std::size_t>(worker)];
    if (!model) model.emplace(shape);
    const std::size_t first = static_cast<std::size_t>(b) * sentences_at_once, end = std::min(first + sentences_at_once, sentences.size());
    packed_batch batch;
    for (std::size_t i = first; i < end; ++i) append(batch, *sentences[i].sentence, sentences[i].given);
    model->forward(parameters, batch, how_far);
    visit(*model, batch, first);
  });
}

// visit(s, first, end) for each of the batch's sequences: its tokens.
template <class Visit> void for_each_sequence(const packed_batch& batch, const Visit& visit) {
  for (std::size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s) visit(s, batch.cu_seqlens[s], batch.cu_seqlens[s + 1]);
}

void add_cross_entropies(const moe_model<float>& model, const packed_batch& batch, double* sums) {
  const std::span<const float> losses = model.cross_entropies();   // 0 where the target does not count
  for_each_sequence(batch, [&](std::size_t s, index_t first, index_t end) {
    sums[s] = 0;
    for (index_t t = first; t < end; ++t) sums[s] += static_cast<double>(losses[static_cast<std::size_t>(t)]);
  });
}

double entropy(const float* probs, index_t experts) {
  double sum = 0;
  for (index_t e = 0; e < experts; ++e) {
    const double p = static_cast<double>(probs[e]);
    if (p > 0) sum -= p * std::log(p);
  }
  return sum;
}

}   // namespace

measured_sentences measure(const model_shape& shape, std::span<const float> parameters, std::span<const encoded_sentence* const> sentences,
                           pass how_far, sara::thread_pool& pool) {
  const auto layers = static_cast<std::size_t>(shape.layers), experts = static_cast<std::size_t>(shape.experts);
  const std::size_t of_sentence = layers * experts;
  measured_sentences measured{.sentences = static_cast<index_t>(sentences.size()), .layers = shape.layers, .experts = shape.experts};
  measured.histograms.resize(sentences.size() * of_sentence);
  if (how_far != pass::routing) measured.cross_entropies.resize(sentences.size());
  measured.entropies.resize(layers);
  measured.expert_use.resize(of_sentence);

  std::vector<continued_sentence> whole;
  for (const encoded_sentence* sentence : sentences) whole.push_back({.sentence = sentence});
  std::vector<double> entropy_sums(sentences.size() * layers);
  std::vector<std::int64_t> choices(sentences.size() * of_sentence);

  const auto visit = [&](const moe_model<float>& model, const packed_batch& batch, std::size_t first_sentence) {
    const sara::layers_view<const float> probs = model.router_probs();
    const sara::layers_view<const std::int32_t> chosen = model.chosen();
    const sara::routing_histogram_inputs<float> routing{.logits = model.router_logits(),
                                                        .sequences = sara::sequences_view::packed(batch.cu_seqlens)};
    sara::routing_histogram_into(sara::cpu_executor{.threads = 1}, routing,
                                 {.histograms = {measured.histograms.data() + first_sentence * of_sentence, shape.layers,
                                                 batch.sequence_count(), shape.experts, of_sentence, experts}});
    for_each_sequence(batch, [&](std::size_t s, index_t first, index_t end) {
      for (std::size_t l = 0; l < layers; ++l) {
        const auto layer = static_cast<index_t>(l);
        double& sum = entropy_sums[(first_sentence + s) * layers + l];
        std::int64_t* const counts = choices.data() + (first_sentence + s) * of_sentence + l * experts;
        for (index_t t = first; t < end; ++t) {
          sum += entropy(probs[layer].row(t), shape.experts);
          for (index_t i = 0; i < shape.chosen; ++i) ++counts[chosen[layer](t, i)];
        }
      }
    });
    if (how_far != pass::routing) add_cross_entropies(model, batch, measured.cross_entropies.data() + first_sentence);
  };
  forward_in_batches(shape, parameters, whole, how_far, pool, visit);

  double tokens = 0;
  for (std::size_t i = 0; i < sentences.size(); ++i) {
    tokens += static_cast<double>(sentences[i]->length());
    for (std::size_t l = 0; l < layers; ++l) measured.entropies[l] += entropy_sums[i * layers + l];
    for (std::size_t e = 0; e < of_sentence; ++e) measured.expert_use[e] += static_cast<double>(choices[i * of_sentence + e]);
  }
  if (tokens == 0) return measured;
  for (double& each : measured.entropies) each /= tokens;
  for (double& each : measured.expert_use) each /= tokens * shape.chosen;
  return measured;
}

std::vector<double> cross_entropies(const model_shape& shape, std::span<const float> parameters,
                                    std::span<const continued_sentence> sentences, sara::thread_pool& pool) {
  std::vector<double> sums(sentences.size());
  forward_in_batches(shape, parameters, sentences, pass::evaluation, pool,
                     [&](const moe_model<float>& model, const packed_batch& batch, std::size_t first) {
                       add_cross_entropies(model, batch, sums.data() + first);
                     });
  return sums;
}

double bits_a_byte(std::span<const double> cross_entropies, std::span<const encoded_sentence* const> sentences) {
  double nats = 0, bytes = 0;
  for (std::size_t i = 0; i < sentences.size(); ++i) {
    nats += cross_entropies[i];
    bytes += static_cast<double>(sentences[i]->text.size());
  }
  return nats / std::numbers::ln2 / bytes;
}

}   // namespace sara_finetune
