// What the README says of executors, run: `docs_executors README.md`. They agree bit by bit, and a mistake's sentence is the README's.
#include <sara/js_routing.hpp>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

// The quickstart's batch.
const std::vector<float> logits = {2, 0, 1, -1, 1, 1, 0, 0, 3, 0, 0, 1, 0, 2, 0, 1, 1, 3, -1, 0};
const std::vector<std::int32_t> cu_seqlens = {0, 3, 5};
const std::vector<float> anchors = {0.1f, 0.6f, 0.2f, 0.1f, 0.4f, 0.1f, 0.4f, 0.1f};
const sara::js_routing_inputs<float> batch{.logits = sara::matrix_view{logits.data(), 5, 4},
                                           .sequences = sara::sequences_view::packed(cu_seqlens),
                                           .anchors = sara::matrix_view{anchors.data(), 2, 4}};

std::vector<float> gradient_by(const sara::cpu_executor& exec) {
  std::vector<float> grad(logits.size(), -1.0f);
  sara::js_routing_into(exec, batch, {.grad_logits = sara::matrix_view{grad.data(), 5, 4}});
  return grad;
}

std::string sentence_of_a_mistake() {
  std::vector<float> grad(16);
  try {
    sara::js_routing_into(sara::cpu_executor{}, batch, {.grad_logits = sara::matrix_view{grad.data(), 4, 4}});
  } catch (const sara::invalid_argument& mistake) {
    return mistake.what();
  }
  return "no mistake was found";
}

}   // namespace

int main(int, char** argv) {
  // clang-format off
// [executors]
sara::cpu_executor spawning{.threads = 8};               // threads spawned in the call
sara::thread_pool pool;                                  // or kept between calls
sara::cpu_executor pooled{.pool = pool};
auto omp = [](int n, sara::worker_task task) {           // or any callable object of yours
  #pragma omp parallel for num_threads(n)
  for (int i = 0; i < n; ++i) task(i);
};
sara::cpu_executor with_openmp{.pool = omp};
// [executors]
  // clang-format on
  const std::vector<float> want = gradient_by(sara::cpu_executor{.threads = 1});
  for (const auto& exec : {spawning, pooled, with_openmp})
    if (gradient_by(exec) != want) return std::puts("an executor differs"), 1;

  std::ifstream file(argv[1]);
  const std::string readme{std::istreambuf_iterator<char>(file), {}}, sentence = sentence_of_a_mistake();
  if (readme.find("`" + sentence + "`") == std::string::npos) return std::printf("README.md does not say: %s\n", sentence.c_str()), 1;
}
