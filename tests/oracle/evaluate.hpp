// A problem posed to sara::js_routing in storage T with a gradient in storage G, and its answer.
#pragma once

#include <sara/js_routing.hpp>

#include "blocks.hpp"
#include "executors.hpp"
#include "instances.hpp"
#include "routing.hpp"

namespace oracle {

struct posing {   // how a problem is posed
  placement logits = {}, others = {}, grad = {};
  sara::gradient_mode mode = sara::gradient_mode::overwrite;
  std::vector<double> buffer = {};   // what the gradient's buffer holds before the call; absent: NaN
};

// The problem's numbers rounded to what storage T holds, so that the oracle and the call are asked the same question.
template <class T> problem rounded_to(problem in) {
  const auto round = [](std::vector<double>& v, auto storage) { v = as_doubles(as_storage<decltype(storage)>(v)); };
  const auto round_one = [](std::optional<double>& x) {
    if (x) x = static_cast<double>(static_cast<sara::arithmetic_t<T>>(*x));
  };
  round(in.logits, T{});
  for (auto* v : {&in.anchors, &in.token_weights, &in.sequence_weights, &in.layer_weights, &in.histograms, &in.token_mass})
    round(*v, sara::arithmetic_t<T>{});
  for (auto* x : {&in.total_layer_weight, &in.total_sequence_weight, &in.upstream}) round_one(*x);
  return in;
}

// The inputs of a call, and the memory behind them.
template <class T> class arguments {
  using A = sara::arithmetic_t<T>;

 public:
  explicit arguments(const problem& in, const posing& how = {})
      : what_(in),
        logits(in.layers, in.tokens, in.experts, how.logits, in.logits),
        anchors(in.layers, in.anchor_count, in.experts, how.others, in.anchors),
        token_weights(as_storage<A>(in.token_weights)),
        sequence_weights(as_storage<A>(in.sequence_weights)),
        layer_weights(as_storage<A>(in.layer_weights)),
        token_mass(as_storage<A>(in.token_mass)) {
    if (!in.histograms.empty()) histograms = block<A>(in.layers, in.sequences, in.experts, how.others, in.histograms);
    offsets.assign(in.offsets.begin(), in.offsets.end());
    narrow_offsets.assign(in.offsets.begin(), in.offsets.end());
    anchor_rows.assign(in.anchor_rows.begin(), in.anchor_rows.end());
    narrow_anchor_rows.assign(in.anchor_rows.begin(), in.anchor_rows.end());
    for (const auto& x : {in.total_layer_weight, in.total_sequence_weight, in.upstream}) ones.push_back(static_cast<A>(x.value_or(0)));
  }
  arguments(const arguments&) = delete;
  arguments& operator=(const arguments&) = delete;

  sara::sequences_view sequences() const {
    const auto batch = static_cast<sara::index_t>(what_.sequences), length = static_cast<sara::index_t>(what_.length);
    if (what_.layout == layout::uniform) return sara::sequences_view::uniform(batch, length);
    if (what_.layout == layout::interleaved) return sara::sequences_view::interleaved(length, batch);
    return what_.wide_integers ? sara::sequences_view::packed(offsets) : sara::sequences_view::packed(narrow_offsets);
  }

  sara::js_routing_inputs<T> inputs() const {
    sara::js_routing_inputs<T> in{.logits = logits.view(), .sequences = sequences(), .anchors = anchors.view()};
    if (!what_.anchor_rows.empty())
      in.anchor_rows = what_.wide_integers ? sara::integers_view(anchor_rows) : sara::integers_view(narrow_anchor_rows);
    in.token_weights = token_weights;
    in.sequence_weights = sequence_weights;
    in.layer_weights = layer_weights;
    if (what_.total_layer_weight) in.total_layer_weight = sara::vector_view(&ones[0], 1);
    if (what_.total_sequence_weight) in.total_sequence_weight = sara::vector_view(&ones[1], 1);
    if (what_.upstream) in.upstream = sara::vector_view(&ones[2], 1);
    if (!what_.histograms.empty()) in.histograms = histograms.view();
    in.token_mass = token_mass;
    return in;
  }

 private:
  problem what_;

 public:
  block<T> logits;
  block<A> anchors, histograms;
  std::vector<A> token_weights, sequence_weights, layer_weights, token_mass, ones;
  std::vector<std::int64_t> offsets, anchor_rows;
  std::vector<std::int32_t> narrow_offsets, narrow_anchor_rows;
};

// Every output of a call, filled with NaN beforehand, and the memory behind them.
template <class T, class G = T> class answers {
  using A = sara::arithmetic_t<T>;

 public:
  explicit answers(const problem& in, const posing& how = {})
      : loss(1, std::numeric_limits<A>::quiet_NaN()),
        token_mass(in.sequences, std::numeric_limits<A>::quiet_NaN()),
        divergence(1, in.layers, in.sequences, {.row_padding = how.others.row_padding}),
        histograms(in.layers, in.sequences, in.experts, how.others),
        grad(in.layers, in.tokens, in.experts, how.grad) {
    if (!how.buffer.empty()) grad.set(how.buffer);
  }
  answers(const answers&) = delete;
  answers& operator=(const answers&) = delete;

  sara::js_routing_outputs<T, G> outputs() {
    return {.loss = loss,
            .divergence = divergence.matrix(),
            .histograms = histograms.view(),
            .token_mass = token_mass,
            .grad_logits = grad.view()};
  }
  bool padding_is_untouched() const {
    return divergence.padding_is_untouched() && histograms.padding_is_untouched() && grad.padding_is_untouched();
  }

  bool same_bits_as(const answers& other) const {
    return same_bits(loss, other.loss) && same_bits(token_mass, other.token_mass) &&
           same_bits(divergence.memory(), other.divergence.memory()) && same_bits(histograms.memory(), other.histograms.memory()) &&
           same_bits(grad.memory(), other.grad.memory());
  }

  std::vector<A> loss, token_mass;
  block<A> divergence, histograms;
  block<G> grad;
};

// All outputs of one call, in double.
template <class T, class G = T, class Executor> result<double> evaluate(const Executor& exec, const problem& in, const posing& how = {}) {
  const arguments<T> given(in, how);
  answers<T, G> got(in, how);
  sara::js_routing_into(exec, given.inputs(), got.outputs(), {.scale = in.scale, .mode = how.mode});
  if (!got.padding_is_untouched()) throw std::logic_error("the call wrote between the rows of an output");
  result<double> out;
  out.loss = static_cast<double>(got.loss[0]);
  out.divergence = as_doubles(got.divergence.values());
  out.histograms = as_doubles(got.histograms.values());
  out.token_mass = as_doubles(got.token_mass);
  out.grad = as_doubles(got.grad.values());
  return out;
}

}   // namespace oracle
