// The routing histograms, soft (of the logits' softmax) and hard (of the chosen experts), and their backwards.
//
// Bytes: soft T an element of logits, its backward T + G; hard 4 (index) + 4 (weight) a slot, its backward 4 (index) + 4 (gradient).
#include <sara/eigen.hpp>
#include <sara/routing_histogram.hpp>

#include <map>

#include "expected.hpp"
#include "measure.hpp"
#include "random_data.hpp"

namespace benchmarks {
namespace {

constexpr index_t k = 8;   // of the hard histograms

std::size_t size_of(index_t i) { return static_cast<std::size_t>(i); }

// The histograms of random_logits<T>(.., 1), kept for the other executors.
template <class T> const std::vector<double>& expect_histograms(const routing_shape& s) {
  static std::map<routing_shape, std::vector<double>> known;
  auto& want = known[s];
  if (want.empty())
    want = expect_routing(s, random_logits<T>(s.elements(), 1), random_distributions(s.layers * s.sequences, s.experts, 2)).histograms;
  return want;
}

template <class T, class Executor> void time_soft(benchmark::State& state, const Executor& exec, int threads, const routing_shape& s) {
  const auto logits = random_logits<T>(s.elements(), 1);
  std::vector<float> histograms(size_of(s.layers * s.sequences * s.experts), -1.0f);
  const double elements = static_cast<double>(logits.size());
  measure(
      state, {elements, elements * sizeof(T), 4e-6, threads},
      [&] {
        sara::routing_histogram_into(
            exec,
            sara::routing_histogram_inputs<T>{.logits = sara::layers_view<const T>(logits.data(), s.layers, s.tokens(), s.experts),
                                              .sequences = sara::sequences_view::uniform(s.sequences, s.length)},
            {.histograms = sara::layers_view<float>(histograms.data(), s.layers, s.sequences, s.experts)});
      },
      [&] { return largest_error(histograms, expect_histograms<T>(s)); });
}

template <class T, class Executor>
void time_soft_backward(benchmark::State& state, const Executor& exec, int threads, const routing_shape& s) {
  const auto logits = random_logits<T>(s.elements(), 1);
  const auto slopes = random_logits<float>(s.layers * s.sequences * s.experts, 2);
  auto gradient = random_logits<T>(s.elements(), 3);
  const double elements = static_cast<double>(logits.size());
  measure(
      state, {elements, elements * 2 * sizeof(T), std::is_same_v<T, float> ? 4e-6 : 8e-3, threads},
      [&] {
        sara::routing_histogram_backward_into(
            exec,
            sara::routing_histogram_backward_inputs<T>{
                .logits = sara::layers_view<const T>(logits.data(), s.layers, s.tokens(), s.experts),
                .sequences = sara::sequences_view::uniform(s.sequences, s.length),
                .grad_histograms = sara::layers_view<const float>(slopes.data(), s.layers, s.sequences, s.experts)},
            {.grad_logits = sara::layers_view<T>(gradient.data(), s.layers, s.tokens(), s.experts)});
      },
      [&] {
        const auto z = as_double(logits), g = as_double(slopes);
        const auto experts = size_of(s.experts);
        std::vector<double> want;
        for (std::size_t t = 0; t < size_of(s.layers * s.tokens()); ++t) {
          const auto p = oracle::softmax(&z[t * experts], experts);
          const auto row = oracle::softmax_backward(p.data(), &g[t / size_of(s.length) * experts], experts);
          for (const double x : row) want.push_back(x / static_cast<double>(s.length));
        }
        return largest_error(gradient, want);
      });
}

// The chosen experts of random logits, by the oracle.
std::vector<std::int32_t> random_choices(const routing_shape& s) {
  const auto logits = as_double(random_logits<float>(s.elements(), 1));
  std::vector<std::int32_t> indices;
  for (std::size_t at = 0; at < logits.size(); at += size_of(s.experts))
    for (const auto e : oracle::top_k(&logits[at], size_of(s.experts), size_of(k))) indices.push_back(static_cast<std::int32_t>(e));
  return indices;
}

template <class Executor> void time_hard(benchmark::State& state, const Executor& exec, int threads, const routing_shape& s) {
  const auto indices = random_choices(s);
  const auto weights = random_distributions(s.layers * s.tokens(), k, 2);
  std::vector<float> histograms(size_of(s.layers * s.sequences * s.experts), -1.0f);
  const double slots = static_cast<double>(indices.size());
  measure(
      state, {slots, slots * 8, 4e-6, threads},
      [&] {
        sara::hard_routing_histogram_into(exec,
                                          sara::hard_routing_histogram_inputs<float>{
                                              .indices = sara::layers_view<const std::int32_t>(indices.data(), s.layers, s.tokens(), k),
                                              .experts = s.experts,
                                              .sequences = sara::sequences_view::uniform(s.sequences, s.length),
                                              .weights = sara::layers_view<const float>(weights.data(), s.layers, s.tokens(), k)},
                                          {.histograms = sara::layers_view<float>(histograms.data(), s.layers, s.sequences, s.experts)});
      },
      [&] {
        std::vector<double> want(histograms.size(), 0.0);
        for (std::size_t i = 0; i < indices.size(); ++i)
          want[i / size_of(k * s.length) * size_of(s.experts) + size_of(indices[i])] +=
              static_cast<double>(weights[i]) / static_cast<double>(s.length);
        return largest_error(histograms, want);
      });
}

template <class Executor> void time_hard_backward(benchmark::State& state, const Executor& exec, int threads, const routing_shape& s) {
  const auto indices = random_choices(s);
  const auto slopes = random_logits<float>(s.layers * s.sequences * s.experts, 2);
  std::vector<float> gradient(indices.size(), -1.0f);
  const double slots = static_cast<double>(indices.size());
  measure(
      state, {slots, slots * 8, 4e-6, threads},
      [&] {
        sara::hard_routing_histogram_backward_into(
            exec,
            sara::hard_routing_histogram_backward_inputs<float>{
                .indices = sara::layers_view<const std::int32_t>(indices.data(), s.layers, s.tokens(), k),
                .sequences = sara::sequences_view::uniform(s.sequences, s.length),
                .grad_histograms = sara::layers_view<const float>(slopes.data(), s.layers, s.sequences, s.experts)},
            {.grad_weights = sara::layers_view<float>(gradient.data(), s.layers, s.tokens(), k)});
      },
      [&] {
        std::vector<double> want(indices.size());
        for (std::size_t i = 0; i < indices.size(); ++i)
          want[i] = static_cast<double>(slopes[i / size_of(k * s.length) * size_of(s.experts) + size_of(indices[i])]) /
                    static_cast<double>(s.length);
        return largest_error(gradient, want);
      });
}

template <class T> void add_soft(const routing_shape& s, const std::vector<cpu_case>& cases) {
  const std::string tail = std::string(std::is_same_v<T, float> ? "/fp32/" : "/bf16/") + text(s) + "/";
  for (const cpu_case& c : cases)
    add("routing_histogram" + tail + text(c), [=](benchmark::State& state) { time_soft<T>(state, c.executor(), c.count(), s); });
  add("routing_histogram" + tail + "eigen", [=](benchmark::State& state) { time_soft<T>(state, sara::eigen_executor{}, 1, s); });
  for (const cpu_case& c : cases)
    add("routing_histogram_backward" + tail + text(c),
        [=](benchmark::State& state) { time_soft_backward<T>(state, c.executor(), c.count(), s); });
  add("routing_histogram_backward" + tail + "eigen",
      [=](benchmark::State& state) { time_soft_backward<T>(state, sara::eigen_executor{}, 1, s); });
}

void add_hard(const routing_shape& s, const std::vector<cpu_case>& cases) {
  const std::string tail = "/fp32/" + text(s) + "/k:" + std::to_string(k) + "/";
  for (const cpu_case& c : cases)
    add("hard_routing_histogram" + tail + text(c), [=](benchmark::State& state) { time_hard(state, c.executor(), c.count(), s); });
  add("hard_routing_histogram" + tail + "eigen", [=](benchmark::State& state) { time_hard(state, sara::eigen_executor{}, 1, s); });
  for (const cpu_case& c : cases)
    add("hard_routing_histogram_backward" + tail + text(c),
        [=](benchmark::State& state) { time_hard_backward(state, c.executor(), c.count(), s); });
  add("hard_routing_histogram_backward" + tail + "eigen",
      [=](benchmark::State& state) { time_hard_backward(state, sara::eigen_executor{}, 1, s); });
}

}   // namespace
}   // namespace benchmarks

int main(int argc, char** argv) {
  using namespace benchmarks;
  add_soft<float>({1, 8, 1024, 128}, every_cpu_case());
  add_soft<float>({1, 8, 4096, 256}, {{.threads = threading::one}, {}});
  add_soft<sara::bf16>({1, 8, 1024, 128}, {{.threads = threading::one}, {}});
  add_hard({1, 8, 1024, 128}, {{.threads = threading::one}, {}});
  return run(argc, argv);
}
