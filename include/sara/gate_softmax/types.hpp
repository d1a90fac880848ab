// Inputs, outputs and options of gate_softmax and its backward, and the checks of their contracts. Formulas: sara/gate_softmax.hpp.
#pragma once

#include "../core/data_checks.hpp"
#include "../core/executor.hpp"

namespace sara {

template <class T> struct gate_softmax_inputs {
  matrix_view<const T> logits;   // [tokens, experts]
};

// P: storage of the probabilities, any storage type of the same arithmetic (bf16 logits, fp32 probabilities).
template <class T, class P = T> struct gate_softmax_outputs {
  matrix_view<P> probs = {};                       // [tokens, experts]; may be exactly `logits` where P is T
  vector_view<arithmetic_t<T>> log_sum_exp = {};   // [tokens]
};

template <class P> struct gate_softmax_backward_inputs {
  matrix_view<const P> probs;                                 // [tokens, experts]
  matrix_view<const P> grad_probs = {};                       // [tokens, experts]; absent: 0
  vector_view<const arithmetic_t<P>> grad_log_sum_exp = {};   // [tokens]; absent: 0
};

template <class P, class G = P> struct gate_softmax_backward_outputs {
  matrix_view<G> grad_logits = {};   // [tokens, experts]; may be exactly `probs` or `grad_probs` under overwrite
};

struct gate_softmax_backward_options {
  double scale = 1;   // multiplies the gradient
  gradient_mode mode = gradient_mode::overwrite;
};

inline namespace SARA_ABI {

// Tells `places` each argument, inputs before outputs.
template <class Places, class T, class P>
void place_gate_softmax(Places& places, const gate_softmax_inputs<T>& in, const gate_softmax_outputs<T, P>& out) {
  places.input("logits", in.logits);
  places.output("probs", out.probs, std::is_same_v<T, P> ? "logits" : nullptr);
  places.output("log_sum_exp", out.log_sum_exp);
}

template <class T, class P>
void check_gate_softmax(const char* function, const gate_softmax_inputs<T>& in, const gate_softmax_outputs<T, P>& out) {
  static_assert(std::is_same_v<arithmetic_t<T>, arithmetic_t<P>>, "probs and logits share their arithmetic type");
  const call_checks check{function};
  check.required("logits", in.logits);
  const index_t tokens = in.logits.rows(), experts = in.logits.columns();
  check.at_least_one("logits", "expert (column)", experts);
  check.shape("logits", in.logits, "[tokens, experts]", tokens, experts);
  check.shape("probs", out.probs, "[tokens, experts]", tokens, experts);
  check.shape("log_sum_exp", out.log_sum_exp, "[tokens]", tokens);
  overlap_checks<3> places(function);
  place_gate_softmax(places, in, out);
}

// In a checked build: throws for a row without a softmax, and for probabilities. For executors that run on the host.
template <class T> void check_gate_softmax_data([[maybe_unused]] const char* function, [[maybe_unused]] const gate_softmax_inputs<T>& in) {
#if SARA_CHECKED
  data_checks{function}.logits(layers_view<const T>(in.logits), sequences_view::uniform(1, in.logits.rows()),
                               vector_view<const arithmetic_t<T>>{}, [](index_t, index_t) { return true; });
#endif
}

template <class P, class G>
void check_gate_softmax_backward(const char* function, const gate_softmax_backward_inputs<P>& in,
                                 const gate_softmax_backward_outputs<P, G>& out, const gate_softmax_backward_options& options) {
  static_assert(std::is_same_v<arithmetic_t<P>, arithmetic_t<G>>, "grad_logits and probs share their arithmetic type");
  const call_checks check{function};
  check.required("probs", in.probs);
  const index_t tokens = in.probs.rows(), experts = in.probs.columns();
  check.at_least_one("probs", "expert (column)", experts);
  check.shape("probs", in.probs, "[tokens, experts]", tokens, experts);
  check.shape("grad_probs", in.grad_probs, "[tokens, experts]", tokens, experts);
  check.shape("grad_log_sum_exp", in.grad_log_sum_exp, "[tokens]", tokens);
  check.shape("grad_logits", out.grad_logits, "[tokens, experts]", tokens, experts);
  const bool in_place = std::is_same_v<P, G> && options.mode == gradient_mode::overwrite;
  overlap_checks<2> of_probs(function), of_grad_probs(function), of_vectors(function);   // in place of either, so apart
  of_probs.input("probs", in.probs);
  of_probs.output("grad_logits", out.grad_logits, in_place ? "probs" : nullptr);
  of_grad_probs.input("grad_probs", in.grad_probs);
  of_grad_probs.output("grad_logits", out.grad_logits, in_place ? "grad_probs" : nullptr);
  of_vectors.input("grad_log_sum_exp", in.grad_log_sum_exp);
  of_vectors.output("grad_logits", out.grad_logits);
}

}   // namespace SARA_ABI
}   // namespace sara
