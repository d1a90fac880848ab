// The router's softmax and its backward, beside a copy.
//
// Bytes of one element: forward T (logits) + P (probs); backward P (probs) + P (grad_probs) + G (grad_logits).
#include <sara/eigen.hpp>
#include <sara/gate_softmax.hpp>

#include "expected.hpp"
#include "measure.hpp"
#include "random_data.hpp"

namespace benchmarks {
namespace {

struct shape {
  index_t tokens, experts;
};

template <class T> constexpr const char* storage_name = std::is_same_v<T, float> ? "fp32" : "bf16";
template <class T> constexpr double tolerance = std::is_same_v<T, float> ? 4e-6 : 8e-3;

template <class T, class Executor> void time_forward(benchmark::State& state, const Executor& exec, int threads, shape s) {
  const auto logits = random_logits<T>(s.tokens * s.experts, 1);
  auto probs = random_logits<T>(s.tokens * s.experts, 2);
  const double elements = static_cast<double>(logits.size());
  measure(
      state, {elements, elements * 2 * sizeof(T), tolerance<T>, threads},
      [&] {
        sara::gate_softmax_into(exec, sara::gate_softmax_inputs<T>{.logits = sara::matrix_view{logits.data(), s.tokens, s.experts}},
                                {.probs = sara::matrix_view{probs.data(), s.tokens, s.experts}});
      },
      [&] { return largest_error(probs, expect_softmax(logits, s.experts)); });
}

template <class T, class Executor> void time_backward(benchmark::State& state, const Executor& exec, int threads, shape s) {
  const auto exact = random_distributions(s.tokens, s.experts, 1);
  const std::vector<T> probs(exact.begin(), exact.end());
  const auto grad_probs = random_logits<T>(s.tokens * s.experts, 2);
  auto grad_logits = random_logits<T>(s.tokens * s.experts, 3);
  const double elements = static_cast<double>(probs.size());
  measure(
      state, {elements, elements * 3 * sizeof(T), tolerance<T>, threads},
      [&] {
        sara::gate_softmax_backward_into(
            exec,
            sara::gate_softmax_backward_inputs<T>{.probs = sara::matrix_view{probs.data(), s.tokens, s.experts},
                                                  .grad_probs = sara::matrix_view{grad_probs.data(), s.tokens, s.experts}},
            {.grad_logits = sara::matrix_view{grad_logits.data(), s.tokens, s.experts}});
      },
      [&] { return largest_error(grad_logits, expect_softmax_backward(probs, grad_probs, s.experts)); });
}

template <class T> void add_both(shape s, const std::vector<cpu_case>& cases) {
  const std::string tail = std::string("/") + storage_name<T> + "/" + std::to_string(s.tokens) + "x" + std::to_string(s.experts) + "/";
  for (const cpu_case& c : cases)
    add("gate_softmax" + tail + text(c), [=](benchmark::State& state) { time_forward<T>(state, c.executor(), c.count(), s); });
  add("gate_softmax" + tail + "eigen", [=](benchmark::State& state) { time_forward<T>(state, sara::eigen_executor{}, 1, s); });
  for (const cpu_case& c : cases)
    add("gate_softmax_backward" + tail + text(c), [=](benchmark::State& state) { time_backward<T>(state, c.executor(), c.count(), s); });
  add("gate_softmax_backward" + tail + "eigen", [=](benchmark::State& state) { time_backward<T>(state, sara::eigen_executor{}, 1, s); });
}

}   // namespace
}   // namespace benchmarks

int main(int argc, char** argv) {
  using namespace benchmarks;
  add_both<float>({8192, 128}, every_cpu_case());
  add_both<float>({32768, 256}, {{.threads = threading::one}, {}});
  add_both<sara::bf16>({8192, 128}, {{.threads = threading::one}, {}});
  add_both<float>({8192, 60}, {{}});
  add_both<float>({8192, 64}, {{}});
  return run(argc, argv);
}
