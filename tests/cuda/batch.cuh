// A batch with everything in it, on the device: lists of layers, packed sequences, weights of all kinds, a bf16 gradient.
#pragma once

#include <sara/js_routing.hpp>

#include <cstring>

#include "device_vector.cuh"
#include "oracle/compare.hpp"
#include "oracle/problems.hpp"

#if !SARA_CHECKED   // compiled once, in oracle/device/js_routing.cu; a checked build is another set of functions
extern template void sara::js_routing_into<sara::bf16, sara::bf16>(const sara::cuda_executor&, const sara::js_routing_inputs<sara::bf16>&,
                                                                   const sara::js_routing_outputs<sara::bf16, sara::bf16>&,
                                                                   const sara::js_routing_options&);
extern template float sara::js_routing<sara::bf16>(const sara::cuda_executor&, const sara::js_routing_inputs<sara::bf16>&,
                                                   const sara::js_routing_options&);
#endif

namespace device_tests {

class batch {
 public:
  static constexpr sara::index_t layers = 3, tokens = 150, experts = 40, sequences = 4;

  explicit batch(std::uint64_t seed)
      : logits(oracle::as_storage<sara::bf16>(oracle::source(seed).normals(layers * tokens * experts, 2))),
        offsets(std::vector<std::int32_t>{0, 30, 30, 101, 150}),
        anchors(anchors_of(seed)),
        token_weights(oracle::as_storage<float>(oracle::source(seed + 1).uniforms(tokens, 0, 1))),
        sequence_weights(oracle::as_storage<float>(oracle::source(seed + 2).uniforms(sequences, 0.5, 2))),
        layer_weights(oracle::as_storage<float>(oracle::source(seed + 3).uniforms(layers, 0.5, 2))),
        loss(1, NAN),
        divergence(layers * sequences, NAN),
        histograms(layers * sequences * experts, NAN),
        token_mass(sequences, NAN),
        grad(static_cast<std::size_t>(layers * tokens * experts), sara::bf16(NAN)) {
    for (sara::index_t l = layers; l-- > 0;) {   // logits at one stride, backwards; gradients in no order, so that they need a table
      list.emplace_back(logits.data() + l * tokens * experts, tokens, experts);
      grad_list.emplace_back(grad.data() + (l + 1) % layers * tokens * experts, tokens, experts);
    }
  }

  sara::js_routing_inputs<sara::bf16> inputs() const {
    return {.logits = list,
            .sequences = sara::sequences_view::packed(sara::integers_view(offsets.data(), offsets.size())),
            .anchors = sara::layers_view<const float>(anchors.data(), layers, sequences, experts),
            .token_weights = sara::vector_view<const float>(token_weights.data(), tokens),
            .sequence_weights = sara::vector_view<const float>(sequence_weights.data(), sequences),
            .layer_weights = sara::vector_view<const float>(layer_weights.data(), layers)};
  }
  sara::js_routing_outputs<sara::bf16> outputs() const {
    return {.loss = sara::vector_view<float>(loss.data(), 1),
            .divergence = sara::matrix_view<float>(divergence.data(), layers, sequences),
            .histograms = sara::layers_view<float>(histograms.data(), layers, sequences, experts),
            .token_mass = sara::vector_view<float>(token_mass.data(), sequences),
            .grad_logits = grad_list};
  }

  // Every byte of the outputs.
  std::vector<char> bytes() const {
    std::vector<char> all;
    append(all, loss.get());
    append(all, divergence.get());
    append(all, histograms.get());
    append(all, token_mass.get());
    append(all, grad.get());
    return all;
  }
  void forget() {
    loss.set({NAN});
    divergence.set(std::vector<float>(divergence.size(), NAN));
    histograms.set(std::vector<float>(histograms.size(), NAN));
    token_mass.set(std::vector<float>(token_mass.size(), NAN));
    grad.set(std::vector<sara::bf16>(grad.size(), sara::bf16(NAN)));
  }

  device_vector<sara::bf16> logits;
  device_vector<std::int32_t> offsets;
  device_vector<float> anchors, token_weights, sequence_weights, layer_weights, loss, divergence, histograms, token_mass;
  device_vector<sara::bf16> grad;
  std::vector<sara::matrix_view<sara::bf16>> list, grad_list;

 private:
  static std::vector<float> anchors_of(std::uint64_t seed) {
    oracle::source from(seed + 4);
    return oracle::as_storage<float>(oracle::distributions(from, layers * sequences, experts));
  }
  template <class T> static void append(std::vector<char>& all, const std::vector<T>& some) {
    const auto* const first = reinterpret_cast<const char*>(some.data());
    all.insert(all.end(), first, first + some.size() * sizeof(T));
  }
};

}   // namespace device_tests
