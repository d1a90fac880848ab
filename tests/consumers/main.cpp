// Two tokens, two experts, one sequence: loss and gradient.
#include <sara/js_routing.hpp>

#include <vector>

int main() {
  const std::vector<float> logits{1, 0, 2, 0}, anchors{0.5f, 0.5f};
  std::vector<float> grad(4);
  const sara::js_routing_inputs<float> batch{.logits = sara::matrix_view{logits.data(), 2, 2},
                                             .sequences = sara::sequences_view::uniform(1, 2),
                                             .anchors = sara::matrix_view{anchors.data(), 1, 2}};
  sara::js_routing_into(sara::cpu_executor{}, batch, {.grad_logits = sara::matrix_view{grad.data(), 2, 2}});
  const float loss = sara::js_routing(sara::cpu_executor{}, batch);
  return loss > 0 && loss < 0.7f && grad[0] > 0 && grad[1] < 0 ? 0 : 1;
}
