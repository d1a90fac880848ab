// The README's first program: two sequences, four experts, loss and gradient; then a few steps downhill.
// The tables are laid out by hand.
// clang-format off
// [quickstart]
#include <sara/js_routing.hpp>

#include <cstdint>
#include <cstdio>
#include <vector>

int main() {
  constexpr int tokens = 5, experts = 4, sequences = 2;
  std::vector<float> logits = {2, 0, 1, -1,  1, 1, 0, 0,  3, 0, 0, 1,    // sequence 0: three tokens
                               0, 2, 0, 1,   1, 3, -1, 0};               // sequence 1: two tokens
  const std::vector<std::int32_t> cu_seqlens = {0, 3, 5};
  const std::vector<float> anchors = {0.1f, 0.6f, 0.2f, 0.1f,            // how the English sentences were routed
                                      0.4f, 0.1f, 0.4f, 0.1f};
  std::vector<float> grad(logits.size());
  float loss = 0;

  const sara::cpu_executor cpu;                                          // all cores, the best instruction set it finds
  const sara::js_routing_inputs<float> batch{.logits = sara::matrix_view{logits.data(), tokens, experts},
                                             .sequences = sara::sequences_view::packed(cu_seqlens),
                                             .anchors = sara::matrix_view{anchors.data(), sequences, experts}};

  for (int step = 0; step < 5; ++step) {
    sara::js_routing_into(cpu, batch, {.loss = {&loss, 1}, .grad_logits = sara::matrix_view{grad.data(), tokens, experts}});
    std::printf("step %d: loss %.4f\n", step, static_cast<double>(loss));
    for (std::size_t i = 0; i < logits.size(); ++i) logits[i] -= 20 * grad[i];
  }
}
// [quickstart]
