// Built without exceptions: a broken contract ends the program, with the sentence that would have been thrown.
#include <sara/js_routing.hpp>

int main() {
  float logits[4] = {}, anchors[2] = {0.5f, 0.5f}, grad[2];
  sara::js_routing_into(sara::cpu_executor{},
                        sara::js_routing_inputs<float>{.logits = sara::matrix_view{logits, 2, 2},
                                                       .sequences = sara::sequences_view::uniform(1, 2),
                                                       .anchors = sara::matrix_view{anchors, 1, 2}},
                        {.grad_logits = sara::matrix_view{grad, 1, 2}});
}
