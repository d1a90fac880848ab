// What the README says of a trainer, run: bf16 logits of layers that live apart, padding, an fp32 gradient that is added to, anchors made of
// the English side. Held to the same in double.
#include <sara/js_routing.hpp>
#include <sara/routing_histogram.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

int main() {
  constexpr int layers = 3, experts = 16, sentences = 4, length = 7, tokens = sentences * length;
  constexpr double lambda = 0.5;
  const sara::cpu_executor cpu{.threads = 2};

  std::mt19937 bits(1);
  std::normal_distribution<float> normal(0, 2);
  const auto random = [&](sara::index_t rows) {
    std::vector<sara::bf16> values(static_cast<std::size_t>(rows * experts));
    for (sara::bf16& z : values) sara::store_value(z, normal(bits));
    return values;
  };
  const std::vector<std::int32_t> english_seqlens = {0, 5, 6, 14, 20};
  std::vector<std::vector<sara::bf16>> english(layers), swahili(layers);
  std::vector<std::vector<float>> grads(layers, std::vector<float>(tokens * experts, 0.25f));
  std::vector<sara::matrix_view<const sara::bf16>> english_logits, layer_logits;
  std::vector<sara::matrix_view<float>> layer_grads;
  for (std::size_t l = 0; l < layers; ++l) {
    english[l] = random(20);
    swahili[l] = random(tokens);
    english_logits.emplace_back(english[l].data(), 20, experts);
    layer_logits.emplace_back(swahili[l].data(), tokens, experts);
    layer_grads.emplace_back(grads[l].data(), tokens, experts);
  }
  std::vector<float> mask(tokens, 1), anchors(layers * sentences * experts);
  for (const std::size_t t : {5u, 6u, 13u, 27u}) {
    mask[t] = 0;
    for (auto& layer : swahili) sara::store_value(layer[t * experts], NAN);   // never read
  }
  float loss = 0;

  // clang-format off
// [trainer]
// Once: how each layer routed each English sentence. Logits are [tokens, experts] matrices, one for each layer of the window.
sara::routing_histogram_into(
    cpu,
    sara::routing_histogram_inputs<sara::bf16>{.logits = english_logits,            // std::vector<sara::matrix_view<const sara::bf16>>
                                               .sequences = sara::sequences_view::packed(english_seqlens)},
    {.histograms = sara::layers_view{anchors.data(), layers, sentences, experts}});

// In each step: the same sentences in Swahili, padded to one length.
sara::js_routing_into(
    cpu,
    sara::js_routing_inputs<sara::bf16>{.logits = layer_logits,
                                        .sequences = sara::sequences_view::uniform(sentences, length),
                                        .anchors = sara::layers_view{anchors.data(), layers, sentences, experts},
                                        .token_weights = mask},                     // 0: padding
    sara::js_routing_outputs<sara::bf16, float>{.loss = {&loss, 1},                 // fp32 gradients of bf16 logits
                                                .grad_logits = layer_grads},        // std::vector<sara::matrix_view<float>>
    {.scale = lambda, .mode = sara::gradient_mode::accumulate});                    // added to what the other losses left there
// [trainer]
  // clang-format on

  // The same in double: one block, a gradient of its own.
  std::vector<double> there, here, weights(mask.begin(), mask.end()), gradient(layers * tokens * experts);
  for (const auto& layer : english)
    for (const sara::bf16 z : layer) there.push_back(static_cast<double>(sara::load_value(z)));
  for (const auto& layer : swahili)
    for (const sara::bf16 z : layer) here.push_back(static_cast<double>(sara::load_value(z)));
  std::vector<double> exact_anchors(anchors.size());
  sara::routing_histogram_into(cpu,
                               sara::routing_histogram_inputs<double>{.logits = sara::layers_view{there.data(), layers, 20, experts},
                                                                      .sequences = sara::sequences_view::packed(english_seqlens)},
                               {.histograms = sara::layers_view{exact_anchors.data(), layers, sentences, experts}});
  double want = 0;
  sara::js_routing_into(cpu,
                        sara::js_routing_inputs<double>{.logits = sara::layers_view{here.data(), layers, tokens, experts},
                                                        .sequences = sara::sequences_view::uniform(sentences, length),
                                                        .anchors = sara::layers_view{exact_anchors.data(), layers, sentences, experts},
                                                        .token_weights = weights},
                        {.loss = {&want, 1}, .grad_logits = sara::layers_view{gradient.data(), layers, tokens, experts}},
                        {.scale = lambda});

  double largest = 0, worst = 0;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    const double got = static_cast<double>(grads[i / (tokens * experts)][i % (tokens * experts)]) - 0.25;
    largest = std::max(largest, std::abs(gradient[i]));
    worst = std::max(worst, std::abs(got - gradient[i]));
  }
  if (!(std::abs(static_cast<double>(loss) - want) <= 1e-6 * want))
    return std::printf("the loss is %g, not %g\n", static_cast<double>(loss), want), 1;
  if (!(worst <= 3e-8 && largest > 1e-3)) return std::printf("the gradient is %g off, of %g\n", worst, largest), 1;
}
