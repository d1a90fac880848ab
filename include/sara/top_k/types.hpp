// Inputs, outputs and options of top_k and its backward, and the checks of their contracts. Rules of choice: sara/top_k.hpp.
#pragma once

#include "../core/checks.hpp"
#include "../core/executor.hpp"

namespace sara {

// T: storage of the scores; V: storage of the values the weights are gathered from.
template <class T, class V = arithmetic_t<T>> struct top_k_inputs {
  matrix_view<const T> scores;        // [tokens, experts]; decides who is chosen
  matrix_view<const V> values = {};   // [tokens, experts]; absent: the scores themselves, or (options.softmax) their softmax
};

// I: int16, int32 or int64. k is the number of columns of `indices` and `weights`.
template <class T, class I = std::int32_t> struct top_k_outputs {
  static_assert(std::is_same_v<I, std::int16_t> || std::is_same_v<I, std::int32_t> || std::is_same_v<I, std::int64_t>,
                "expert indices are int16, int32 or int64");
  matrix_view<I> indices = {};                 // [tokens, k], best first
  matrix_view<arithmetic_t<T>> weights = {};   // [tokens, k]
};

struct top_k_options {
  bool renormalize = false;   // divide a token's weights by their sum (a sum of 0 leaves them 0)
  double scale = 1;           // multiplies the weights, after renormalisation
  bool softmax = false;       // gather the weights from the softmax of the scores over all experts, which nobody writes; no values then
};

template <class V, class I = std::int32_t> struct top_k_backward_inputs {
  matrix_view<const I> indices;                           // [tokens, k]; -1 or >= experts: not routed
  matrix_view<const arithmetic_t<V>> grad_weights = {};   // [tokens, k]
  matrix_view<const V> values = {};                       // [tokens, experts]; read only with options.renormalize
};

template <class V, class G = V> struct top_k_backward_outputs {
  matrix_view<G> grad_values = {};   // [tokens, experts]; 0 (overwrite) or untouched off the chosen experts
};

struct top_k_backward_options {
  bool renormalize = false;   // as in the forward call
  double scale = 1;           // as in the forward call
  gradient_mode mode = gradient_mode::overwrite;
};

inline namespace SARA_ABI {

// Tells `places` each argument, inputs before outputs.
template <class Places, class T, class V, class I>
void place_top_k(Places& places, const top_k_inputs<T, V>& in, const top_k_outputs<T, I>& out) {
  places.input("scores", in.scores);
  places.input("values", in.values);
  places.output("indices", out.indices);
  places.output("weights", out.weights);
}

template <class T, class V, class I>
void check_top_k(const char* function, const top_k_inputs<T, V>& in, const top_k_outputs<T, I>& out, const top_k_options& options) {
  const call_checks check{function};
  check.required("scores", in.scores);
  check.require(!options.softmax || !in.values.given(),
                "values must be absent with options.softmax, which weighs by the scores, but was given");
  const index_t tokens = in.scores.rows(), experts = in.scores.columns();
  check.at_least_one("scores", "expert (column)", experts);
  constexpr index_t most = static_cast<index_t>(std::numeric_limits<I>::max());
  if (experts - 1 > most)
    fail(function, sentence("scores must have experts (columns) that the index type counts, from 0 to ")
                       << most << ", but has " << experts);
  const index_t k = out.indices.given() ? out.indices.columns() : out.weights.columns();
  if (out.indices.given() || out.weights.given())
    if (k < 1 || k > experts)
      fail(function, sentence() << (out.indices.given() ? "indices" : "weights") << " must have between 1 and " << experts
                                << " (experts) columns, but has " << k);
  check.shape("scores", in.scores, "[tokens, experts]", tokens, experts);
  check.shape("values", in.values, "[tokens, experts]", tokens, experts);
  check.shape("indices", out.indices, "[tokens, k]", tokens, k);
  check.shape("weights", out.weights, "[tokens, k]", tokens, k);
  overlap_checks<4> places(function);
  place_top_k(places, in, out);
}

template <class Places, class V, class I, class G>
void place_top_k_backward(Places& places, const top_k_backward_inputs<V, I>& in, const top_k_backward_outputs<V, G>& out) {
  places.input("indices", in.indices);
  places.input("grad_weights", in.grad_weights);
  places.input("values", in.values);
  places.output("grad_values", out.grad_values);
}

template <class V, class I, class G>
void check_top_k_backward(const char* function, const top_k_backward_inputs<V, I>& in, const top_k_backward_outputs<V, G>& out,
                          const top_k_backward_options& options) {
  static_assert(std::is_same_v<arithmetic_t<V>, arithmetic_t<G>>, "grad_values and values share their arithmetic type");
  const call_checks check{function};
  check.required("indices", in.indices);
  check.required("grad_weights", in.grad_weights);
  check.required("grad_values", out.grad_values);
  const index_t tokens = out.grad_values.rows(), experts = out.grad_values.columns(), k = in.indices.columns();
  check.at_least_one("grad_values", "expert (column)", experts);
  if (k < 1 || k > experts) fail(function, sentence("indices must have between 1 and ") << experts << " (experts) columns, but has " << k);
  check.require(!options.renormalize || in.values.given(), "values is required with options.renormalize, but was not given");
  check.shape("indices", in.indices, "[tokens, k]", tokens, k);
  check.shape("grad_weights", in.grad_weights, "[tokens, k]", tokens, k);
  check.shape("values", in.values, "[tokens, experts]", tokens, experts);
  check.shape("grad_values", out.grad_values, "[tokens, experts]", tokens, experts);
  overlap_checks<4> places(function);
  place_top_k_backward(places, in, out);
}

}   // namespace SARA_ABI
}   // namespace sara
