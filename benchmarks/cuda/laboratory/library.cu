// What the library ships: sara::js_routing_into, with all that its contract promises.
#include <sara/js_routing.hpp>

#include "laboratory.cuh"

namespace benchmarks::laboratory {

template <class T> design library(const batch<T>& b) {
  const index_t tokens = b.sequences * b.length;
  const sara::js_routing_inputs<T> in{.logits = sara::layers_view<const T>(b.logits, b.layers, tokens, experts),
                                      .sequences = sara::sequences_view::uniform(b.sequences, b.length),
                                      .anchors = sara::layers_view<const float>(b.anchors, b.layers, b.sequences, experts)};
  const sara::js_routing_outputs<T> out{.loss = {b.loss, 1}, .grad_logits = sara::layers_view<T>(b.gradient, b.layers, tokens, experts)};
  const std::size_t bytes = sara::js_routing_workspace_bytes(in, out);
  return {.name = "the library: js_routing_into", .scratch_bytes = bytes, .run = [=](cudaStream_t stream, void* scratch) {
            sara::js_routing_into(sara::cuda_executor{stream, sara::workspace{scratch, bytes}}, in, out);
          }};
}

template design library(const batch<bf16>&);
template design library(const batch<float>&);

}   // namespace benchmarks::laboratory
