// A captured call: nothing of the host's is read at a replay, nothing allocated, nothing waited for.
#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

#include "batch.cuh"
#include "catch.hpp"

using namespace device_tests;

namespace {

// The outputs of one call, made outside of any graph.
std::vector<char> called(batch& b, const stream& on, const sara::workspace& scratch) {
  b.forget();
  sara::js_routing_into(sara::cuda_executor{on, scratch}, b.inputs(), b.outputs());
  on.wait();
  return b.bytes();
}

}   // namespace

TEST_CASE("a graph of js_routing replays a thousand times, its lists long gone, on whatever the memory holds", "[cuda]") {
  const stream on;
  batch b(1);
  const std::size_t bytes = sara::js_routing_workspace_bytes(b.inputs(), b.outputs());
  const device_vector<char> memory(bytes, 1);
  const sara::workspace scratch{memory.data(), bytes};
  const auto want = called(b, on, scratch);

  const graph g(on, [&] { sara::js_routing_into(sara::cuda_executor{on, scratch}, b.inputs(), b.outputs()); });
  const auto list = b.list, grad_list = b.grad_list;
  for (auto* l : {&b.list, &b.grad_list}) std::fill(l->begin(), l->end(), sara::matrix_view<sara::bf16>{});
  b.forget();
  for (int i = 0; i < 1000; ++i) g.replay();
  on.wait();
  CHECK((b.bytes() == want));

  // Other logits and other sequences, of the same shapes.
  const batch other(2);
  b.logits.set(other.logits.get());
  b.offsets.set({0, 1, 60, 60, 149});
  b.forget();
  g.replay();
  on.wait();
  const auto replayed = b.bytes();
  b.list = list;
  b.grad_list = grad_list;
  CHECK((replayed == called(b, on, scratch)));
  CHECK((replayed != want));
}

TEST_CASE("a graph may take its scratch from the stream's pool", "[cuda]") {
  const stream on;
  batch b(3);
  const std::size_t bytes = sara::js_routing_workspace_bytes(b.inputs(), b.outputs());
  const device_vector<char> memory(bytes, 1);
  const auto want = called(b, on, {memory.data(), bytes});
  const graph g(on, [&] { sara::js_routing_into(sara::cuda_executor{on}, b.inputs(), b.outputs()); });
  for (int i = 0; i < 3; ++i) {
    b.forget();
    g.replay();
    on.wait();
    CHECK((b.bytes() == want));
  }
}

TEST_CASE("every piece may be captured", "[cuda]") {
  const stream on;
  constexpr sara::index_t tokens = 70, experts = 33, k = 4, sequences = 2;
  oracle::source from(5);
  const device_vector<float> logits(oracle::as_storage<float>(from.normals(tokens * experts, 2))),
      anchors(oracle::as_storage<float>(oracle::distributions(from, sequences, experts)));
  const device_vector<float> probs(tokens * experts, NAN), weights(tokens * k, NAN), grad_weights(tokens * k, NAN),
      grad_probs(tokens * experts, NAN), grad_logits(tokens * experts, NAN), soft(sequences * experts, NAN), hard(sequences * experts, NAN),
      slopes(sequences * experts, NAN), divergence(sequences, NAN);
  const device_vector<std::int32_t> indices(tokens * k, -7);
  const device_vector<char> memory(1 << 20, 1);
  const sara::cuda_executor exec{on, {memory.data(), memory.size()}};
  const auto matrix = [](const auto& v, sara::index_t rows, sara::index_t columns) { return sara::matrix_view(v.data(), rows, columns); };
  const sara::matrix_view<const float> z = matrix(logits, tokens, experts), p = matrix(probs, tokens, experts),
                                       g = matrix(slopes, sequences, experts);
  const sara::matrix_view<const std::int32_t> chosen = matrix(indices, tokens, k);
  const auto packed = sara::sequences_view::uniform(sequences, tokens / sequences);
  const std::vector<sara::matrix_view<const float>> layers{z};

  const auto all = [&] {
    sara::gate_softmax_into(exec, sara::gate_softmax_inputs<float>{.logits = z}, {.probs = matrix(probs, tokens, experts)});
    sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = z, .values = p},
                     {.indices = matrix(indices, tokens, k), .weights = matrix(weights, tokens, k)}, {.renormalize = true});
    sara::routing_histogram_into(exec, sara::routing_histogram_inputs<float>{.logits = layers, .sequences = packed},
                                 {.histograms = matrix(soft, sequences, experts)});
    sara::hard_routing_histogram_into(
        exec, sara::hard_routing_histogram_inputs<float>{.indices = chosen, .experts = experts, .sequences = packed},
        {.histograms = matrix(hard, sequences, experts)});
    sara::js_divergence_into(
        exec, sara::js_divergence_inputs<float>{.p = matrix(soft, sequences, experts), .q = matrix(anchors, sequences, experts)},
        {.divergence = sara::vector_view<float>(divergence.data(), sequences), .grad_p = matrix(slopes, sequences, experts)});
    sara::hard_routing_histogram_backward_into(
        exec, sara::hard_routing_histogram_backward_inputs<float>{.indices = chosen, .sequences = packed, .grad_histograms = g},
        {.grad_weights = matrix(grad_weights, tokens, k)});
    sara::top_k_backward_into(
        exec, sara::top_k_backward_inputs<float>{.indices = chosen, .grad_weights = matrix(grad_weights, tokens, k), .values = p},
        {.grad_values = matrix(grad_probs, tokens, experts)}, {.renormalize = true});
    sara::gate_softmax_backward_into(
        exec, sara::gate_softmax_backward_inputs<float>{.probs = p, .grad_probs = matrix(grad_probs, tokens, experts)},
        {.grad_logits = matrix(grad_logits, tokens, experts)});
    sara::routing_histogram_backward_into(
        exec, sara::routing_histogram_backward_inputs<float>{.logits = layers, .sequences = packed, .grad_histograms = g},
        {.grad_logits = matrix(grad_logits, tokens, experts)}, {.mode = sara::gradient_mode::accumulate});
  };
  all();
  on.wait();
  const auto want = grad_logits.get();
  REQUIRE(std::isfinite(want[0]));
  REQUIRE(oracle::largest(oracle::as_doubles(want)) > 0);
  const graph replayed(on, all);
  for (const auto* v : {&probs, &weights, &grad_weights, &grad_probs, &grad_logits, &soft, &hard, &slopes, &divergence})
    require_success(cudaMemset(v->data(), 0xff, v->size() * sizeof(float)));
  require_success(cudaDeviceSynchronize());
  replayed.replay();
  on.wait();
  CHECK(oracle::same_bits(grad_logits.get(), want));
}

TEST_CASE("the loss for the host is refused while the stream captures", "[cuda]") {
  const stream on;
  const batch b(6);
  const device_vector<char> memory(1 << 20, 1);
  std::string said;
  {
    const graph g(on, [&] {
      try {
        sara::js_routing(sara::cuda_executor{on, {memory.data(), memory.size()}}, b.inputs());
      } catch (const sara::invalid_argument& e) {
        said = e.what();
      }
    });
  }
  CHECK(said == "sara::js_routing: the stream captures a graph, and a loss for the host cannot be waited for: call js_routing_into");
}
