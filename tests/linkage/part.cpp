// Compiled once for each set of flags.
#include "part.hpp"

#include <sara/js_routing.hpp>

namespace linkage {

static float run(const float* logits, const float* anchors, float* grad) {
  float loss = 0;
  sara::js_routing_into(sara::cpu_executor{.threads = 2},
                        sara::js_routing_inputs<float>{.logits = sara::matrix_view{logits, tokens, experts},
                                                       .sequences = sara::sequences_view::uniform(sequences, tokens / sequences),
                                                       .anchors = sara::matrix_view{anchors, sequences, experts}},
                        {.loss = sara::vector_view{&loss, 1}, .grad_logits = sara::matrix_view{grad, tokens, experts}});
  return loss;
}

static part here(PART, run);

}   // namespace linkage
