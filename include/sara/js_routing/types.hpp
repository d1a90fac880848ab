// Inputs, outputs and options of js_routing, and the checks of its contract. Formulas and promises: sara/js_routing.hpp.
#pragma once

#include "../core/data_checks.hpp"
#include "../core/executor.hpp"

namespace sara {

// A stands for arithmetic_t<T>: double for double, else float.
//
// | field                 | shape                                 | absent means                                              |
// |-----------------------|---------------------------------------|-----------------------------------------------------------|
// | logits                | [layers, tokens, experts]             | required                                                  |
// | sequences             | sequences over tokens                 | required                                                  |
// | anchors               | [layers, sequences or anchor rows, experts] | required                                            |
// | anchor_rows           | [sequences]                           | sequence s is held to row s of `anchors`                  |
// | token_weights         | [tokens]                              | 1 each                                                    |
// | sequence_weights      | [sequences]                           | 1 each                                                    |
// | layer_weights         | [layers]                              | 1 each                                                    |
// | total_layer_weight    | [1]                                   | sum of layer_weights                                      |
// | total_sequence_weight | [1]                                   | sum of the effective sequence weights                     |
// | upstream              | [1]                                   | 1; multiplies the gradient only                           |
// | histograms            | [layers, sequences, experts]          | computed from the logits                                  |
// | token_mass            | [sequences]                           | sum of each sequence's token weights                      |
template <class T> struct js_routing_inputs {
  using arithmetic = arithmetic_t<T>;

  layers_view<const T> logits;   // raw router logits, not probabilities
  sequences_view sequences = {};
  layers_view<const arithmetic> anchors = {};         // fixed target distributions, rows that sum to 1
  integers_view anchor_rows = {};                     // row of `anchors` for each sequence, -1 for none
  vector_view<const arithmetic> token_weights = {};   // 0 hides a token (padding): its logits are never read
  vector_view<const arithmetic> sequence_weights = {};
  vector_view<const arithmetic> layer_weights = {};
  vector_view<const arithmetic> total_layer_weight = {};   // of the global batch, where this call sees a part of it
  vector_view<const arithmetic> total_sequence_weight = {};
  vector_view<const arithmetic> upstream = {};     // loss scaling, autograd
  layers_view<const arithmetic> histograms = {};   // saved by a forward pass, or reduced over ranks: sweep 1 is skipped
  vector_view<const arithmetic> token_mass = {};   // only with histograms: the mass behind them
};

// An output that is not given is not wanted and costs nothing. G, the gradient's storage, is T or A.
template <class T, class G = T> struct js_routing_outputs {
  using arithmetic = arithmetic_t<T>;
  static_assert(std::is_same_v<G, T> || std::is_same_v<G, arithmetic>,
                "the gradient's element type is the logits' type or its arithmetic type");

  vector_view<arithmetic> loss = {};         // [1]
  matrix_view<arithmetic> divergence = {};   // [layers, sequences], unweighted JS, nats
  layers_view<arithmetic> histograms = {};   // [layers, sequences, experts]
  vector_view<arithmetic> token_mass = {};   // [sequences]
  layers_view<G> grad_logits = {};           // [layers, tokens, experts]
};

struct js_routing_options {
  double scale = 1;                                // lambda: multiplies loss and gradient
  gradient_mode mode = gradient_mode::overwrite;   // of grad_logits
};

inline namespace SARA_ABI {

// Tells `places` each argument, inputs before outputs.
template <class Places, class T, class G>
void place_js_routing(Places& places, const js_routing_inputs<T>& in, const js_routing_outputs<T, G>& out,
                      const js_routing_options& options) {
  places.input("logits", in.logits);
  places.input("sequences", in.sequences.offsets());
  places.input("anchors", in.anchors);
  places.input("anchor_rows", in.anchor_rows);
  places.input("token_weights", in.token_weights);
  places.input("sequence_weights", in.sequence_weights);
  places.input("layer_weights", in.layer_weights);
  places.input("total_layer_weight", in.total_layer_weight);
  places.input("total_sequence_weight", in.total_sequence_weight);
  places.input("upstream", in.upstream);
  places.input("histograms (input)", in.histograms);
  places.input("token_mass (input)", in.token_mass);
  places.output("loss", out.loss);
  places.output("divergence", out.divergence);
  places.output("histograms", out.histograms, "histograms (input)");
  places.output("token_mass", out.token_mass, "token_mass (input)");
  places.output("grad_logits", out.grad_logits, std::is_same_v<T, G> && options.mode == gradient_mode::overwrite ? "logits" : nullptr);
}

// Throws sara::invalid_argument unless the arguments fit together.
template <class T, class G>
void check_js_routing(const char* function, const js_routing_inputs<T>& in, const js_routing_outputs<T, G>& out,
                      const js_routing_options& options) {
  const batch_extents batch{in.logits.layers(), in.logits.rows(), in.logits.columns(), in.sequences};
  const call_checks check{function, &batch};
  check.required("logits", in.logits);
  check.required("sequences", in.sequences);
  check.required("anchors", in.anchors);
  const index_t layers = in.logits.layers(), tokens = in.logits.rows(), experts = in.logits.columns(), sequences = in.sequences.sequences();
  check.at_least_one("logits", "layer", layers);
  check.at_least_one("logits", "expert (column)", experts);
  check.shape(in.sequences, tokens);
  check.shape("logits", in.logits, "[layers, tokens, experts]", layers, tokens, experts);
  if (in.anchor_rows.given())
    check.shape("anchors", in.anchors, "[layers, anchor rows, experts]", layers, in.anchors.rows(), experts);
  else
    check.shape("anchors", in.anchors, "[layers, sequences, experts]", layers, sequences, experts);
  check.shape("anchor_rows", in.anchor_rows, "[sequences]", sequences);
  check.shape("token_weights", in.token_weights, "[tokens]", tokens);
  check.shape("sequence_weights", in.sequence_weights, "[sequences]", sequences);
  check.shape("layer_weights", in.layer_weights, "[layers]", layers);
  check.shape("total_layer_weight", in.total_layer_weight, "[1]", 1);
  check.shape("total_sequence_weight", in.total_sequence_weight, "[1]", 1);
  check.shape("upstream", in.upstream, "[1]", 1);
  check.shape("histograms (input)", in.histograms, "[layers, sequences, experts]", layers, sequences, experts);
  check.shape("token_mass (input)", in.token_mass, "[sequences]", sequences);
  check.require(!in.token_mass.given() || in.histograms.given(),
                "token_mass is an input only together with the histograms it belongs to, but they are not given");
  check.shape("loss", out.loss, "[1]", 1);
  check.shape("divergence", out.divergence, "[layers, sequences]", layers, sequences);
  check.shape("histograms", out.histograms, "[layers, sequences, experts]", layers, sequences, experts);
  check.shape("token_mass", out.token_mass, "[sequences]", sequences);
  check.shape("grad_logits", out.grad_logits, "[layers, tokens, experts]", layers, tokens, experts);

  overlap_checks<17> places(function);
  place_js_routing(places, in, out, options);
}

// In a checked build: throws unless the data make sense. For executors that run on the host.
template <class T>
void check_js_routing_data([[maybe_unused]] const char* function, [[maybe_unused]] const js_routing_inputs<T>& in,
                           [[maybe_unused]] bool reads_logits) {
#if SARA_CHECKED
  const data_checks check{function};
  const index_t sequences = in.sequences.sequences();
  check.offsets(in.sequences, in.logits.rows());
  check.weights("token_weights", in.token_weights);
  check.weights("sequence_weights", in.sequence_weights);
  check.weights("layer_weights", in.layer_weights);
  check.weights("total_layer_weight", in.total_layer_weight);
  check.weights("total_sequence_weight", in.total_sequence_weight);
  check.weights("token_mass", in.token_mass);
  for (index_t s = 0; in.anchor_rows.given() && s < sequences; ++s)
    if (in.anchor_rows[s] < -1 || in.anchor_rows[s] >= in.anchors.rows())
      check.bad(sentence("anchor_rows[") << s << "] must be -1 or one of the " << in.anchors.rows() << " rows of anchors, but is "
                                         << in.anchor_rows[s]);
  const auto anchor_row = [&](index_t s) { return in.anchor_rows.given() ? in.anchor_rows[s] : s; };
  const auto has_weight = [&](index_t l, index_t s) {
    return anchor_row(s) >= 0 && (!in.token_mass.given() || in.token_mass[s] != 0) &&
           (!in.sequence_weights.given() || in.sequence_weights[s] != 0) && (!in.layer_weights.given() || in.layer_weights[l] != 0);
  };
  if (reads_logits) check.logits(in.logits, in.sequences, in.token_weights, has_weight);
  for_each_sequence(in.sequences, in.logits.rows(), [&](index_t s, const token_range& rows) {
    bool has_mass = in.token_mass.given() ? in.token_mass[s] != 0 : !in.token_weights.given() && rows.count > 0;
    for (index_t i = 0; !in.token_mass.given() && in.token_weights.given() && i < rows.count; ++i)
      has_mass = has_mass || in.token_weights[rows.first + i * rows.step] != 0;
    for (index_t l = 0; has_mass && l < in.logits.layers(); ++l) {
      if (!has_weight(l, s)) continue;
      check.distribution("anchors", in.anchors[l].row(anchor_row(s)), in.anchors.columns(), anchor_row(s), l);
      if (in.histograms.given()) check.distribution("histograms (input)", in.histograms[l].row(s), in.histograms.columns(), s, l);
    }
  });
#endif
}

// The loss alone, returned to the host: js_routing_into without a gradient.
template <host_executor Executor, class T>
arithmetic_t<T> js_routing(const Executor& exec, const js_routing_inputs<T>& in, const js_routing_options& options = {}) {
  arithmetic_t<T> loss{};
  js_routing_into(exec, in, js_routing_outputs<T>{.loss = {&loss, 1}}, options);
  return loss;
}

}   // namespace SARA_ABI
}   // namespace sara
