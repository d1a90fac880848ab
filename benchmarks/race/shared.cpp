// This library, the oracle and the race's control for race/python.py, as C functions of a shared object. All in fp32.
#include <sara/gate_softmax.hpp>
#include <sara/js_routing.hpp>
#include <sara/top_k.hpp>

#include "heat.hpp"
#include "problems.hpp"

namespace {

// How many threads this library runs on: asked for once, before anything runs.
int& threads() {
  static int count = 2;
  return count;
}

sara::cpu_executor executor() {
  sara::cpu_executor exec{.threads = threads()};
  if (threads() == 2) {
    exec.pool = sara::parallel_for(benchmarks::two_threads());   // the control's, so that no more threads are there than run
  } else if (threads() > 2) {
    static sara::thread_pool pool(threads());
    exec.pool = sara::parallel_for(pool);
  }
  return exec;
}

}   // namespace

#define SARA_RACE_EXPORT extern "C" [[gnu::visibility("default")]]

SARA_RACE_EXPORT const char* race_instruction_set() { return sara::name_of(sara::best_instruction_set()); }
SARA_RACE_EXPORT void race_set_threads(int count) { threads() = count; }
SARA_RACE_EXPORT double race_control() { return race::control(); }
SARA_RACE_EXPORT void race_part_threads() { benchmarks::part_threads(); }
SARA_RACE_EXPORT void race_let_caller_roam() { benchmarks::let_caller_roam(); }
SARA_RACE_EXPORT double race_copy_bandwidth(std::size_t bytes) { return benchmarks::copy_bandwidth(bytes, std::min(threads(), 2)); }

// Of logits [layers, sequences, length, experts] and anchors [layers, sequences, experts].
SARA_RACE_EXPORT void race_loss(const float* logits, const float* anchors, std::int64_t layers, std::int64_t sequences, std::int64_t length,
                                std::int64_t experts, float* loss, float* gradient) {
  const std::int64_t tokens = sequences * length;
  sara::js_routing_into(executor(),
                        sara::js_routing_inputs<float>{.logits = sara::layers_view{logits, layers, tokens, experts},
                                                       .sequences = sara::sequences_view::uniform(sequences, length),
                                                       .anchors = sara::layers_view{anchors, layers, sequences, experts}},
                        {.loss = sara::vector_view{loss, 1}, .grad_logits = sara::layers_view{gradient, layers, tokens, experts}});
}
SARA_RACE_EXPORT void race_oracle(const float* logits, const float* anchors, std::int64_t layers, std::int64_t sequences,
                                  std::int64_t length, std::int64_t experts, double* loss, double* gradient) {
  race::routing_problem p{.shape = {layers, sequences, length, experts},
                          .logits = {logits, logits + layers * sequences * length * experts},
                          .anchors = {anchors, anchors + layers * sequences * experts}};
  race::solve(p);
  *loss = p.loss;
  std::copy(p.gradient.begin(), p.gradient.end(), gradient);
}
// Of rows [rows, experts].
SARA_RACE_EXPORT void race_softmax(const float* logits, std::int64_t rows, std::int64_t experts, float* probs) {
  sara::gate_softmax_into(executor(), sara::gate_softmax_inputs<float>{.logits = sara::matrix_view{logits, rows, experts}},
                          {.probs = sara::matrix_view{probs, rows, experts}});
}
SARA_RACE_EXPORT void race_softmax_backward(const float* probs, const float* grad_probs, std::int64_t rows, std::int64_t experts,
                                            float* gradient) {
  sara::gate_softmax_backward_into(executor(),
                                   sara::gate_softmax_backward_inputs<float>{.probs = sara::matrix_view{probs, rows, experts},
                                                                             .grad_probs = sara::matrix_view{grad_probs, rows, experts}},
                                   {.grad_logits = sara::matrix_view{gradient, rows, experts}});
}
SARA_RACE_EXPORT void race_top_k(const float* scores, std::int64_t rows, std::int64_t experts, std::int64_t k, std::int32_t* indices,
                                 float* weights) {
  sara::top_k_into(executor(), sara::top_k_inputs<float>{.scores = sara::matrix_view{scores, rows, experts}},
                   {.indices = sara::matrix_view{indices, rows, k}, .weights = sara::matrix_view{weights, rows, k}});
}
