// Inputs, outputs and options of the routing histograms (soft and hard) and their backwards, and the checks of their contracts.
// Formulas: sara/routing_histogram.hpp.
#pragma once

#include "../core/data_checks.hpp"
#include "../core/executor.hpp"

namespace sara {

// Soft: of the softmax of the logits.
template <class T> struct routing_histogram_inputs {
  layers_view<const T> logits;   // [layers, tokens, experts]
  sequences_view sequences = {};
  vector_view<const arithmetic_t<T>> token_weights = {};   // [tokens]; absent: 1. A token of weight 0 is never read
};

template <class T> struct routing_histogram_outputs {
  layers_view<arithmetic_t<T>> histograms = {};   // [layers, sequences, experts], weighted means; 0 without mass
  layers_view<arithmetic_t<T>> sums = {};         // [layers, sequences, experts], weighted sums: what ranks add up
  vector_view<arithmetic_t<T>> token_mass = {};   // [sequences], sums of token weights
};

template <class T> struct routing_histogram_backward_inputs {
  layers_view<const T> logits;   // [layers, tokens, experts]
  sequences_view sequences = {};
  vector_view<const arithmetic_t<T>> token_weights = {};     // [tokens]; absent: 1
  vector_view<const arithmetic_t<T>> token_mass = {};        // [sequences]; absent: from token_weights (over ranks: the reduced mass)
  layers_view<const arithmetic_t<T>> grad_histograms = {};   // [layers, sequences, experts]
};

template <class T, class G = T> struct routing_histogram_backward_outputs {
  static_assert(std::is_same_v<G, T> || std::is_same_v<G, arithmetic_t<T>>,
                "the gradient's element type is the logits' type or its arithmetic type");
  layers_view<G> grad_logits = {};   // [layers, tokens, experts]; may be exactly `logits` under overwrite
};

// Hard: of the experts that were chosen. W: storage of the weights; I: int16, int32 or int64.
template <class W, class I = std::int32_t> struct hard_routing_histogram_inputs {
  static_assert(std::is_same_v<I, std::int16_t> || std::is_same_v<I, std::int32_t> || std::is_same_v<I, std::int64_t>,
                "expert indices are int16, int32 or int64");
  layers_view<const I> indices;   // [layers, tokens, k]; -1 or >= experts: not routed
  index_t experts = 0;
  sequences_view sequences = {};
  vector_view<const arithmetic_t<W>> token_weights = {};   // [tokens]; absent: 1
  layers_view<const W> weights = {};                       // [layers, tokens, k]; absent: 1
};

template <class W> struct hard_routing_histogram_outputs {
  layers_view<arithmetic_t<W>> histograms = {};   // [layers, sequences, experts], sums / token_mass; 0 without mass
  layers_view<arithmetic_t<W>> sums = {};         // [layers, sequences, experts], of token weight times weight
  vector_view<arithmetic_t<W>> token_mass = {};   // [sequences]
  layers_view<std::int64_t> counts = {};          // [layers, sequences, experts], slots of tokens of non-zero weight
};

template <class W, class I = std::int32_t> struct hard_routing_histogram_backward_inputs {
  layers_view<const I> indices;   // [layers, tokens, k]
  sequences_view sequences = {};
  vector_view<const arithmetic_t<W>> token_weights = {};     // [tokens]; absent: 1
  vector_view<const arithmetic_t<W>> token_mass = {};        // [sequences]; absent: from token_weights
  layers_view<const arithmetic_t<W>> grad_histograms = {};   // [layers, sequences, experts]
};

template <class W> struct hard_routing_histogram_backward_outputs {
  layers_view<W> grad_weights = {};   // [layers, tokens, k]
};

// Of both backwards.
struct routing_histogram_backward_options {
  double scale = 1;   // multiplies the gradient
  gradient_mode mode = gradient_mode::overwrite;
};

inline namespace SARA_ABI {

// Tells `places` each argument, inputs before outputs; so do its likes below.
template <class Places, class T>
void place_routing_histogram(Places& places, const routing_histogram_inputs<T>& in, const routing_histogram_outputs<T>& out) {
  places.input("logits", in.logits);
  places.input("sequences", in.sequences.offsets());
  places.input("token_weights", in.token_weights);
  places.output("histograms", out.histograms);
  places.output("sums", out.sums);
  places.output("token_mass", out.token_mass);
}

template <class T>
void check_routing_histogram(const char* function, const routing_histogram_inputs<T>& in, const routing_histogram_outputs<T>& out) {
  const batch_extents batch{in.logits.layers(), in.logits.rows(), in.logits.columns(), in.sequences};
  const call_checks check{function, &batch};
  check.required("logits", in.logits);
  check.required("sequences", in.sequences);
  const index_t layers = in.logits.layers(), tokens = in.logits.rows(), experts = in.logits.columns(), sequences = in.sequences.sequences();
  check.at_least_one("logits", "layer", layers);
  check.at_least_one("logits", "expert (column)", experts);
  check.shape(in.sequences, tokens);
  check.shape("logits", in.logits, "[layers, tokens, experts]", layers, tokens, experts);
  check.shape("token_weights", in.token_weights, "[tokens]", tokens);
  check.shape("histograms", out.histograms, "[layers, sequences, experts]", layers, sequences, experts);
  check.shape("sums", out.sums, "[layers, sequences, experts]", layers, sequences, experts);
  check.shape("token_mass", out.token_mass, "[sequences]", sequences);
  overlap_checks<6> places(function);
  place_routing_histogram(places, in, out);
}

// In a checked build: throws unless offsets, weights and logits make sense. For executors that run on the host, forward and backward.
template <class Inputs> void check_routing_histogram_data([[maybe_unused]] const char* function, [[maybe_unused]] const Inputs& in) {
#if SARA_CHECKED
  const data_checks check{function};
  check.weights("token_weights", in.token_weights);
  if constexpr (requires { in.token_mass; }) check.weights("token_mass", in.token_mass);
  if constexpr (requires { in.logits; }) {
    check.offsets(in.sequences, in.logits.rows());
    check.logits(in.logits, in.sequences, in.token_weights, [](index_t, index_t) { return true; });
  } else {
    check.offsets(in.sequences, in.indices.rows());
  }
#endif
}

template <class Places, class T, class G>
void place_routing_histogram_backward(Places& places, const routing_histogram_backward_inputs<T>& in,
                                      const routing_histogram_backward_outputs<T, G>& out,
                                      const routing_histogram_backward_options& options) {
  places.input("logits", in.logits);
  places.input("sequences", in.sequences.offsets());
  places.input("token_weights", in.token_weights);
  places.input("token_mass", in.token_mass);
  places.input("grad_histograms", in.grad_histograms);
  places.output("grad_logits", out.grad_logits, std::is_same_v<T, G> && options.mode == gradient_mode::overwrite ? "logits" : nullptr);
}

template <class T, class G>
void check_routing_histogram_backward(const char* function, const routing_histogram_backward_inputs<T>& in,
                                      const routing_histogram_backward_outputs<T, G>& out,
                                      const routing_histogram_backward_options& options) {
  const batch_extents batch{in.logits.layers(), in.logits.rows(), in.logits.columns(), in.sequences};
  const call_checks check{function, &batch};
  check.required("logits", in.logits);
  check.required("sequences", in.sequences);
  check.required("grad_histograms", in.grad_histograms);
  const index_t layers = in.logits.layers(), tokens = in.logits.rows(), experts = in.logits.columns(), sequences = in.sequences.sequences();
  check.at_least_one("logits", "layer", layers);
  check.at_least_one("logits", "expert (column)", experts);
  check.shape(in.sequences, tokens);
  check.shape("logits", in.logits, "[layers, tokens, experts]", layers, tokens, experts);
  check.shape("token_weights", in.token_weights, "[tokens]", tokens);
  check.shape("token_mass", in.token_mass, "[sequences]", sequences);
  check.shape("grad_histograms", in.grad_histograms, "[layers, sequences, experts]", layers, sequences, experts);
  check.shape("grad_logits", out.grad_logits, "[layers, tokens, experts]", layers, tokens, experts);
  overlap_checks<6> places(function);
  place_routing_histogram_backward(places, in, out, options);
}

template <class Places, class W, class I>
void place_hard_routing_histogram(Places& places, const hard_routing_histogram_inputs<W, I>& in,
                                  const hard_routing_histogram_outputs<W>& out) {
  places.input("indices", in.indices);
  places.input("sequences", in.sequences.offsets());
  places.input("token_weights", in.token_weights);
  places.input("weights", in.weights);
  places.output("histograms", out.histograms);
  places.output("sums", out.sums);
  places.output("token_mass", out.token_mass);
  places.output("counts", out.counts);
}

template <class W, class I>
void check_hard_routing_histogram(const char* function, const hard_routing_histogram_inputs<W, I>& in,
                                  const hard_routing_histogram_outputs<W>& out) {
  const call_checks check{function};
  check.required("indices", in.indices);
  check.required("sequences", in.sequences);
  if (in.experts < 1) fail(function, sentence("experts must be at least 1, but is ") << in.experts);
  const index_t layers = in.indices.layers(), tokens = in.indices.rows(), k = in.indices.columns(), sequences = in.sequences.sequences();
  check.shape("indices", in.indices, "[layers, tokens, k]", layers, tokens, k);
  check.shape(in.sequences, tokens);
  check.shape("token_weights", in.token_weights, "[tokens]", tokens);
  check.shape("weights", in.weights, "[layers, tokens, k]", layers, tokens, k);
  check.shape("histograms", out.histograms, "[layers, sequences, experts]", layers, sequences, in.experts);
  check.shape("sums", out.sums, "[layers, sequences, experts]", layers, sequences, in.experts);
  check.shape("token_mass", out.token_mass, "[sequences]", sequences);
  check.shape("counts", out.counts, "[layers, sequences, experts]", layers, sequences, in.experts);
  overlap_checks<8> places(function);
  place_hard_routing_histogram(places, in, out);
}

template <class Places, class W, class I>
void place_hard_routing_histogram_backward(Places& places, const hard_routing_histogram_backward_inputs<W, I>& in,
                                           const hard_routing_histogram_backward_outputs<W>& out) {
  places.input("indices", in.indices);
  places.input("sequences", in.sequences.offsets());
  places.input("token_weights", in.token_weights);
  places.input("token_mass", in.token_mass);
  places.input("grad_histograms", in.grad_histograms);
  places.output("grad_weights", out.grad_weights);
}

template <class W, class I>
void check_hard_routing_histogram_backward(const char* function, const hard_routing_histogram_backward_inputs<W, I>& in,
                                           const hard_routing_histogram_backward_outputs<W>& out) {
  const call_checks check{function};
  check.required("indices", in.indices);
  check.required("sequences", in.sequences);
  check.required("grad_histograms", in.grad_histograms);
  const index_t layers = in.indices.layers(), tokens = in.indices.rows(), k = in.indices.columns(), sequences = in.sequences.sequences();
  check.shape("indices", in.indices, "[layers, tokens, k]", layers, tokens, k);
  check.shape(in.sequences, tokens);
  check.shape("token_weights", in.token_weights, "[tokens]", tokens);
  check.shape("token_mass", in.token_mass, "[sequences]", sequences);
  check.shape("grad_histograms", in.grad_histograms, "[layers, sequences, experts]", layers, sequences, in.grad_histograms.columns());
  check.shape("grad_weights", out.grad_weights, "[layers, tokens, k]", layers, tokens, k);
  overlap_checks<6> places(function);
  place_hard_routing_histogram_backward(places, in, out);
}

}   // namespace SARA_ABI
}   // namespace sara
