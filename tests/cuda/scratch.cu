// The workspace: its size from shapes alone, small beside the logits, and what is said of one that is too small.
#include <sara/routing_histogram.hpp>

#include "batch.cuh"
#include "catch.hpp"

using namespace device_tests;

namespace {

// The workspace of a call on a batch that is not there.
template <class T, class G>
double percent_of_logits(sara::index_t layers, sara::index_t tokens, sara::index_t sequences, sara::index_t experts) {
  T* const nowhere = nullptr;
  const sara::js_routing_inputs<T> in{.logits = sara::layers_view<const T>(nowhere, layers, tokens, experts),
                                      .sequences = sara::sequences_view::uniform(sequences, tokens / sequences),
                                      .anchors = sara::layers_view<const float>(static_cast<float*>(nullptr), layers, sequences, experts)};
  const sara::js_routing_outputs<T, G> out{.grad_logits = sara::layers_view<G>(static_cast<G*>(nullptr), layers, tokens, experts)};
  return 100.0 * static_cast<double>(sara::js_routing_workspace_bytes(in, out)) /
         static_cast<double>(layers * tokens * experts * sizeof(T));
}

}   // namespace

TEST_CASE("the workspace is below 1 % of the logits from 200,000 rows on, at a mean length of 1024 and more", "[cuda]") {
  for (const sara::index_t length : {1024, 4096})
    for (const sara::index_t experts : {60, 128, 256, 384}) {
      CAPTURE(length, experts);
      CHECK(percent_of_logits<sara::bf16, sara::bf16>(48, 8192, 8192 / length, experts) < 1);
      CHECK(percent_of_logits<sara::bf16, float>(25, 8192, 8192 / length, experts) < 1);
      CHECK(percent_of_logits<float, float>(48, 65536, 65536 / length, experts) < 1);
      CHECK(percent_of_logits<sara::bf16, sara::bf16>(1, 1 << 20, (1 << 20) / length, experts) < 1);
    }
}

TEST_CASE("the workspace does not depend on where the layers lie", "[cuda]") {
  constexpr sara::index_t layers = 5, tokens = 64, experts = 16;
  float* const somewhere = nullptr;
  const auto bytes = [&](const sara::layers_view<float>& logits) {
    const sara::js_routing_inputs<float> in{.logits = logits,
                                            .sequences = sara::sequences_view::uniform(2, tokens / 2),
                                            .anchors = sara::layers_view<const float>(somewhere, layers, 2, experts)};
    return sara::js_routing_workspace_bytes(in, sara::js_routing_outputs<float>{.grad_logits = logits});
  };
  std::vector<sara::matrix_view<float>> regular, irregular;
  for (sara::index_t l = 0; l < layers; ++l) {
    regular.emplace_back(somewhere + l * tokens * experts, tokens, experts);
    irregular.emplace_back(somewhere + l * l * tokens * experts, tokens, experts);
  }
  const std::size_t block = bytes(sara::layers_view(somewhere, layers, tokens, experts));
  CHECK(bytes(regular) == block);
  CHECK(bytes(irregular) == block);
}

TEST_CASE("a workspace that is too small is refused, and nothing is written", "[cuda]") {
  const stream on;
  batch b(21);
  const auto before = b.bytes();
  const std::size_t bytes = sara::js_routing_workspace_bytes(b.inputs(), b.outputs());
  const device_vector<char> memory(bytes, 1);
  std::string said;
  try {
    sara::js_routing_into(sara::cuda_executor{on, {memory.data(), bytes - 1}}, b.inputs(), b.outputs());
  } catch (const sara::invalid_argument& e) {
    said = e.what();
  }
  CHECK(said ==
        "sara::js_routing_into: exec.scratch must have at least " + std::to_string(bytes) + " bytes, but has " + std::to_string(bytes - 1));
  on.wait();
  CHECK((b.bytes() == before));
}

TEST_CASE("the query of a hard histogram that names no output measures for all of them", "[cuda]") {
  constexpr sara::index_t layers = 3, tokens = 200, k = 2, experts = 9, sequences = 2;
  const std::int32_t* const chosen = nullptr;
  float* const values = nullptr;
  std::int64_t* const counts = nullptr;
  // In no order, so that they need a table.
  const auto list_of = [](auto* data) {
    return std::vector{sara::matrix_view(data, sequences, experts), sara::matrix_view(data + 100, sequences, experts),
                       sara::matrix_view(data + 50, sequences, experts)};
  };
  const auto float_list = list_of(values);
  const auto count_list = list_of(counts);
  sara::hard_routing_histogram_inputs<float> in{.indices = sara::layers_view(chosen, layers, tokens, k),
                                                .experts = experts,
                                                .sequences = sara::sequences_view::uniform(sequences, tokens / sequences)};
  for (const bool weighted : {false, true}) {
    if (weighted) in.weights = sara::layers_view<const float>(values, layers, tokens, k);
    const std::size_t unnamed = sara::hard_routing_histogram_workspace_bytes(in);
    const auto bytes = [&](const sara::hard_routing_histogram_outputs<float>& out) {
      return sara::hard_routing_histogram_workspace_bytes(in, out);
    };
    CHECK(unnamed == bytes({.histograms = float_list, .sums = float_list, .counts = count_list}));
    CHECK(unnamed > bytes({.histograms = float_list, .sums = float_list}));
    CHECK(bytes({.sums = float_list}) > bytes({.token_mass = sara::vector_view(values, sequences)}));
  }
  const sara::hard_routing_histogram_backward_inputs<float> back{
      .indices = in.indices,
      .sequences = in.sequences,
      .grad_histograms = sara::layers_view<const float>(values, layers, sequences, experts)};
  CHECK(sara::hard_routing_histogram_backward_workspace_bytes(back) ==
        sara::hard_routing_histogram_backward_workspace_bytes(back, {.grad_weights = float_list}));
}
