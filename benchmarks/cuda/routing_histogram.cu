// The routing histograms on the GPU, soft (of the logits' softmax) and hard (of the chosen experts), and their backwards.
//
// Bytes: soft T an element of logits, its backward 2 T; hard 4 (index) + 4 (weight) a slot, its backward 4 (index) + 4 (gradient).
#include <cuda_bf16.h>
#include <sara/routing_histogram.hpp>

#include "measure.cuh"
#include "problem.hpp"

namespace benchmarks {
namespace {

using bf16 = __nv_bfloat16;

constexpr index_t k = 8;   // of the hard histograms

template <class T> constexpr const char* storage_name = std::is_same_v<T, float> ? "fp32" : "bf16";

template <class T> timed_call soft(const batch_shape& s) {
  const double bytes = static_cast<double>(s.elements()) * sizeof(T);
  const index_t sets = sets_for(bytes);
  struct memory {
    explicit memory(const batch_shape& shape) : problem(shape) {}
    routing_problem<T> problem;
    device_array<T> logits;
    device_array<float> histograms;
    std::size_t scratch_bytes = 0;
    device_array<char> scratch;
  };
  const auto m = std::make_shared<memory>(s);
  const index_t units = s.layers * m->problem.sequences;
  m->logits = device_array<T>(m->problem.logits, sets);
  m->histograms = device_array<float>(units * s.experts * sets);
  const auto in = [=](index_t set) {
    return sara::routing_histogram_inputs<T>{
        .logits = sara::layers_view<const T>(m->logits.data() + set * s.elements(), s.layers, s.tokens, s.experts),
        .sequences = m->problem.view(nullptr)};
  };
  const auto out = [=](index_t set) {
    return sara::routing_histogram_outputs<T>{
        .histograms = sara::layers_view<float>(m->histograms.data() + set * units * s.experts, s.layers, m->problem.sequences, s.experts)};
  };
  m->scratch_bytes = sara::routing_histogram_workspace_bytes(in(0), out(0));
  m->scratch = device_array<char>(static_cast<index_t>(m->scratch_bytes) * sets);
  return {
      .bytes = bytes,
      .tolerance = tolerance_of<float>,
      .sets = sets,
      .run =
          [=](index_t set, cudaStream_t stream) {
            const sara::workspace scratch{m->scratch.data() + static_cast<std::size_t>(set) * m->scratch_bytes, m->scratch_bytes};
            sara::routing_histogram_into(sara::cuda_executor{stream, scratch}, in(set), out(set));
          },
      .error =
          [=](index_t set) { return largest_error(m->histograms.read(set * units * s.experts, units * s.experts), m->problem.histograms); },
      .also = {{"scratch %", 100 * static_cast<double>(m->scratch_bytes) / bytes}}};
}

template <class T> timed_call soft_backward(const batch_shape& s) {
  const double bytes = static_cast<double>(s.elements()) * 2 * sizeof(T);
  const index_t sets = sets_for(bytes), sequences = s.tokens / s.length;
  struct memory {
    device_array<T> logits, gradient;
    device_array<float> slopes;
    std::vector<double> want;
    std::size_t scratch_bytes = 0;
    device_array<char> scratch;
  };
  const auto m = std::make_shared<memory>();
  const auto logits = random_logits<T>(s.elements(), 1);
  const auto slopes = random_logits<float>(s.layers * sequences * s.experts, 2);
  m->want.resize(logits.size());
  each_at_once(s.layers * sequences, [&](index_t unit) {
    const auto experts = static_cast<std::size_t>(s.experts), length = static_cast<std::size_t>(s.length),
               u = static_cast<std::size_t>(unit);
    const std::vector<double> g(slopes.begin() + static_cast<std::ptrdiff_t>(u * experts),
                                slopes.begin() + static_cast<std::ptrdiff_t>((u + 1) * experts));
    for (std::size_t t = u * length; t < (u + 1) * length; ++t) {
      std::vector<double> z(experts);
      for (std::size_t e = 0; e < experts; ++e) z[e] = static_cast<double>(sara::load_value(logits[t * experts + e]));
      const auto p = oracle::softmax(z.data(), experts);
      const auto row = oracle::softmax_backward(p.data(), g.data(), experts);
      for (std::size_t e = 0; e < experts; ++e) m->want[t * experts + e] = row[e] / static_cast<double>(length);
    }
  });
  m->logits = device_array<T>(logits, sets);
  m->slopes = device_array<float>(slopes);
  m->gradient = device_array<T>(s.elements() * sets);
  const auto in = [=](index_t set) {
    return sara::routing_histogram_backward_inputs<T>{
        .logits = sara::layers_view<const T>(m->logits.data() + set * s.elements(), s.layers, s.tokens, s.experts),
        .sequences = sara::sequences_view::uniform(sequences, s.length),
        .grad_histograms = sara::layers_view<const float>(m->slopes.data(), s.layers, sequences, s.experts)};
  };
  const auto out = [=](index_t set) {
    return sara::routing_histogram_backward_outputs<T>{
        .grad_logits = sara::layers_view<T>(m->gradient.data() + set * s.elements(), s.layers, s.tokens, s.experts)};
  };
  m->scratch_bytes = sara::routing_histogram_backward_workspace_bytes(in(0), out(0));
  m->scratch = device_array<char>(static_cast<index_t>(m->scratch_bytes) * sets);
  return {.bytes = bytes,
          .tolerance = tolerance_of<T>,
          .sets = sets,
          .run =
              [=](index_t set, cudaStream_t stream) {
                const sara::workspace scratch{m->scratch.data() + static_cast<std::size_t>(set) * m->scratch_bytes, m->scratch_bytes};
                sara::routing_histogram_backward_into(sara::cuda_executor{stream, scratch}, in(set), out(set));
              },
          .error = [=](index_t set) { return largest_error(m->gradient.read(set * s.elements(), s.elements()), m->want); }};
}

// k distinct experts a token, by chance.
std::vector<std::int32_t> random_choices(const batch_shape& s) {
  std::mt19937_64 bits(1);
  std::vector<std::int32_t> experts(static_cast<std::size_t>(s.experts)), indices;
  for (std::size_t e = 0; e < experts.size(); ++e) experts[e] = static_cast<std::int32_t>(e);
  indices.reserve(static_cast<std::size_t>(s.layers * s.tokens * k));
  for (index_t t = 0; t < s.layers * s.tokens; ++t)
    for (std::size_t i = 0; i < k; ++i) {
      std::swap(experts[i], experts[i + bits() % (experts.size() - i)]);
      indices.push_back(experts[i]);
    }
  return indices;
}

struct hard_memory {
  device_array<std::int32_t> indices;
  device_array<float> of_slots, of_experts;   // weights, histograms; backward: their gradients
  std::vector<double> want;
  std::size_t scratch_bytes = 0;
  device_array<char> scratch;
};

timed_call hard(const batch_shape& s) {
  const index_t slots = s.layers * s.tokens * k, sequences = s.tokens / s.length, rows = s.layers * sequences * s.experts;
  const double bytes = static_cast<double>(slots) * 8;
  const index_t sets = sets_for(bytes);
  const auto m = std::make_shared<hard_memory>();
  const auto indices = random_choices(s);
  const auto weights = random_distributions(s.layers * s.tokens, k, 2);
  m->want.resize(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < indices.size(); ++i)
    m->want[i / static_cast<std::size_t>(k * s.length) * static_cast<std::size_t>(s.experts) + static_cast<std::size_t>(indices[i])] +=
        static_cast<double>(weights[i]) / static_cast<double>(s.length);
  m->indices = device_array<std::int32_t>(indices, sets);
  m->of_slots = device_array<float>(weights, sets);
  m->of_experts = device_array<float>(rows * sets);
  const auto in = [=](index_t set) {
    return sara::hard_routing_histogram_inputs<float>{
        .indices = sara::layers_view<const std::int32_t>(m->indices.data() + set * slots, s.layers, s.tokens, k),
        .experts = s.experts,
        .sequences = sara::sequences_view::uniform(sequences, s.length),
        .weights = sara::layers_view<const float>(m->of_slots.data() + set * slots, s.layers, s.tokens, k)};
  };
  const auto out = [=](index_t set) {
    return sara::hard_routing_histogram_outputs<float>{
        .histograms = sara::layers_view<float>(m->of_experts.data() + set * rows, s.layers, sequences, s.experts)};
  };
  m->scratch_bytes = sara::hard_routing_histogram_workspace_bytes(in(0), out(0));
  m->scratch = device_array<char>(static_cast<index_t>(m->scratch_bytes) * sets);
  return {.bytes = bytes,
          .tolerance = tolerance_of<float>,
          .sets = sets,
          .run =
              [=](index_t set, cudaStream_t stream) {
                const sara::workspace scratch{m->scratch.data() + static_cast<std::size_t>(set) * m->scratch_bytes, m->scratch_bytes};
                sara::hard_routing_histogram_into(sara::cuda_executor{stream, scratch}, in(set), out(set));
              },
          .error = [=](index_t set) { return largest_error(m->of_experts.read(set * rows, rows), m->want); }};
}

timed_call hard_backward(const batch_shape& s) {
  const index_t slots = s.layers * s.tokens * k, sequences = s.tokens / s.length;
  const double bytes = static_cast<double>(slots) * 8;
  const index_t sets = sets_for(bytes);
  const auto m = std::make_shared<hard_memory>();
  const auto indices = random_choices(s);
  const auto slopes = random_logits<float>(s.layers * sequences * s.experts, 2);
  for (std::size_t i = 0; i < indices.size(); ++i)
    m->want.push_back(static_cast<double>(slopes[i / static_cast<std::size_t>(k * s.length) * static_cast<std::size_t>(s.experts) +
                                                 static_cast<std::size_t>(indices[i])]) /
                      static_cast<double>(s.length));
  m->indices = device_array<std::int32_t>(indices, sets);
  m->of_slots = device_array<float>(slots * sets);
  m->of_experts = device_array<float>(slopes);
  const auto in = [=](index_t set) {
    return sara::hard_routing_histogram_backward_inputs<float>{
        .indices = sara::layers_view<const std::int32_t>(m->indices.data() + set * slots, s.layers, s.tokens, k),
        .sequences = sara::sequences_view::uniform(sequences, s.length),
        .grad_histograms = sara::layers_view<const float>(m->of_experts.data(), s.layers, sequences, s.experts)};
  };
  const auto out = [=](index_t set) {
    return sara::hard_routing_histogram_backward_outputs<float>{
        .grad_weights = sara::layers_view<float>(m->of_slots.data() + set * slots, s.layers, s.tokens, k)};
  };
  m->scratch_bytes = sara::hard_routing_histogram_backward_workspace_bytes(in(0), out(0));
  m->scratch = device_array<char>(static_cast<index_t>(m->scratch_bytes) * sets);
  return {.bytes = bytes,
          .tolerance = tolerance_of<float>,
          .sets = sets,
          .run =
              [=](index_t set, cudaStream_t stream) {
                const sara::workspace scratch{m->scratch.data() + static_cast<std::size_t>(set) * m->scratch_bytes, m->scratch_bytes};
                sara::hard_routing_histogram_backward_into(sara::cuda_executor{stream, scratch}, in(set), out(set));
              },
          .error = [=](index_t set) { return largest_error(m->of_slots.read(set * slots, slots), m->want); }};
}

void add_all(const batch_size& size) {
  const batch_shape s{size.layers, size.tokens, 128, std::min<index_t>(1024, size.tokens)};
  add("routing_histogram/bf16/" + text(s), [=] { return soft<bf16>(s); });
  add("routing_histogram/fp32/" + text(s), [=] { return soft<float>(s); });
  add("routing_histogram_backward/bf16/" + text(s), [=] { return soft_backward<bf16>(s); });
  add("routing_histogram_backward/fp32/" + text(s), [=] { return soft_backward<float>(s); });
  add("hard_routing_histogram/fp32/" + text(s) + "/k:8", [=] { return hard(s); });
  add("hard_routing_histogram_backward/fp32/" + text(s) + "/k:8", [=] { return hard_backward(s); });
}

}   // namespace
}   // namespace benchmarks

int main(int argc, char** argv) { return benchmarks::run(argc, argv, benchmarks::add_all); }
