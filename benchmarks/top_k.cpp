// The choice of the k best experts of each token, and its backward.
//
// Bytes of one token: forward experts * T (scores) + k * (4 (index) + 4 (weight)); backward experts * 4 (grad_values) + k * (4 + 4).
#include <sara/eigen.hpp>
#include <sara/top_k.hpp>

#include "expected.hpp"
#include "measure.hpp"
#include "random_data.hpp"

namespace benchmarks {
namespace {

struct shape {
  index_t tokens, experts, k;
};

std::string text(shape s) { return std::to_string(s.tokens) + "x" + std::to_string(s.experts) + "/k:" + std::to_string(s.k); }

template <class T, class Executor> void time_forward(benchmark::State& state, const Executor& exec, int threads, shape s) {
  const auto scores = random_logits<T>(s.tokens * s.experts, 1);
  std::vector<std::int32_t> indices(static_cast<std::size_t>(s.tokens * s.k), -1);
  std::vector<float> weights(indices.size(), -1.0f);
  const double bytes = static_cast<double>(s.tokens) * static_cast<double>(s.experts * index_t{sizeof(T)} + s.k * 8);
  measure(
      state, {static_cast<double>(scores.size()), bytes, 0.0, threads},   // a choice is right or wrong
      [&] {
        sara::top_k_into(
            exec, sara::top_k_inputs<T>{.scores = sara::matrix_view{scores.data(), s.tokens, s.experts}},
            {.indices = sara::matrix_view{indices.data(), s.tokens, s.k}, .weights = sara::matrix_view{weights.data(), s.tokens, s.k}});
      },
      [&] {
        const auto z = as_double(scores);
        double wrong = 0;
        for (index_t t = 0; t < s.tokens; ++t) {
          const double* const row = &z[static_cast<std::size_t>(t * s.experts)];
          const auto want = oracle::top_k(row, static_cast<std::size_t>(s.experts), static_cast<std::size_t>(s.k));
          for (index_t i = 0; i < s.k; ++i) {
            const auto at = static_cast<std::size_t>(t * s.k + i);
            const auto expert = want[static_cast<std::size_t>(i)];
            wrong += indices[at] != expert || static_cast<double>(weights[at]) != row[expert];
          }
        }
        return wrong;
      });
  state.counters["us/token"] = benchmark::Counter(
      static_cast<double>(s.tokens) * 1e-6,
      static_cast<benchmark::Counter::Flags>(benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert));
}

template <class Executor> void time_backward(benchmark::State& state, const Executor& exec, int threads, shape s) {
  const auto scores = random_logits<float>(s.tokens * s.experts, 1), grad_weights = random_logits<float>(s.tokens * s.k, 2);
  const auto z = as_double(scores);
  std::vector<std::int32_t> indices;
  std::vector<double> want(scores.size(), 0.0);
  for (index_t t = 0; t < s.tokens; ++t)
    for (const auto e :
         oracle::top_k(&z[static_cast<std::size_t>(t * s.experts)], static_cast<std::size_t>(s.experts), static_cast<std::size_t>(s.k))) {
      want[static_cast<std::size_t>(t * s.experts + e)] = static_cast<double>(grad_weights[indices.size()]);
      indices.push_back(static_cast<std::int32_t>(e));
    }
  auto grad_values = random_logits<float>(s.tokens * s.experts, 3);
  const double bytes = static_cast<double>(s.tokens) * static_cast<double>(s.experts * 4 + s.k * 8);
  measure(
      state, {static_cast<double>(scores.size()), bytes, 0.0, threads},
      [&] {
        sara::top_k_backward_into(exec,
                                  sara::top_k_backward_inputs<float>{.indices = sara::matrix_view{indices.data(), s.tokens, s.k},
                                                                     .grad_weights = sara::matrix_view{grad_weights.data(), s.tokens, s.k}},
                                  {.grad_values = sara::matrix_view{grad_values.data(), s.tokens, s.experts}});
      },
      [&] { return largest_error(grad_values, want); });
}

template <class T> void add_forward(shape s, const std::vector<cpu_case>& cases, const char* storage) {
  const std::string head = std::string("top_k/") + storage + "/" + text(s) + "/";
  for (const cpu_case& c : cases) add(head + text(c), [=](benchmark::State& state) { time_forward<T>(state, c.executor(), c.count(), s); });
  add(head + "eigen", [=](benchmark::State& state) { time_forward<T>(state, sara::eigen_executor{}, 1, s); });
}

void add_backward(shape s, const std::vector<cpu_case>& cases) {
  const std::string head = "top_k_backward/fp32/" + text(s) + "/";
  for (const cpu_case& c : cases) add(head + text(c), [=](benchmark::State& state) { time_backward(state, c.executor(), c.count(), s); });
  add(head + "eigen", [=](benchmark::State& state) { time_backward(state, sara::eigen_executor{}, 1, s); });
}

}   // namespace
}   // namespace benchmarks

int main(int argc, char** argv) {
  using namespace benchmarks;
  add_forward<float>({8192, 128, 8}, every_cpu_case(), "fp32");
  add_forward<float>({8192, 64, 6}, {{.threads = threading::one}, {}}, "fp32");
  add_forward<float>({8192, 256, 8}, {{.threads = threading::one}, {}}, "fp32");
  add_forward<float>({8192, 16, 2}, {{}}, "fp32");
  add_forward<float>({8192, 60, 4}, {{}}, "fp32");
  add_forward<sara::bf16>({8192, 128, 8}, {{}}, "bf16");
  add_backward({8192, 128, 8}, {{.threads = threading::one}, {}});
  return run(argc, argv);
}
