// The feed-forward: a mixture of SwiGLU experts behind Qwen3's gate (softmax over all experts, top-k, renormalised).
//
//   z = x W_router,  p = softmax(z),  w = the k largest p over their sum
//   y = sum over the chosen e of w_e (silu(x A_e) * x B_e) C_e         A | B: experts_in, C: experts_out
//
// Tokens are gathered by expert, so that an expert's products are of matrices. The weight multiplies what goes into C.
#pragma once

#include <sara/gate_softmax.hpp>
#include <sara/top_k.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "parameters.hpp"

namespace sara_finetune {

// One layer's part of what the model keeps of all layers side by side.
template <class Scalar> struct routing_rows {
  matrix_map<Scalar> logits, probs;   // [tokens, experts]
  std::int32_t* chosen;               // [tokens, k], best first
  std::int64_t* counts;               // [experts], slots that chose it
  double* probability_sums;           // [experts]
};

// Shared by the layers.
template <class Scalar> struct mixture_scratch {
  buffer<Scalar> rows, activated, out;                              // of one expert's tokens
  buffer<Scalar> grad_rows, grad_activated, grad_hidden, sigmoid;   // and their gradients
  buffer<Scalar> grad_weights, grad_probs, grad_logits;             // of the gate
  std::vector<std::byte> library;
};

// One layer's, with what its backward needs.
template <class Scalar> class mixture {
 public:
  explicit mixture(const model_shape& shape) : width_(shape.width), hidden_(shape.hidden), experts_(shape.experts), chosen_(shape.chosen) {}

  // Writes `routing`.
  void route(const layer_blocks<const Scalar>& layer, matrix_map<const Scalar> input, const routing_rows<Scalar>& routing,
             mixture_scratch<Scalar>& scratch) {
    const index_t tokens = input.rows();
    auto z = routing.logits, p = routing.probs;
    z.noalias() = input * layer.router;

    const sara::matrix_view<const Scalar> logits{z.data(), tokens, experts_}, probs{p.data(), tokens, experts_};
    const sara::gate_softmax_inputs<Scalar> of_softmax{.logits = logits};
    const sara::gate_softmax_outputs<Scalar> to_probs{.probs = {p.data(), tokens, experts_}};
    const sara::top_k_inputs<Scalar> of_top_k{.scores = logits, .values = probs};
    const sara::top_k_outputs<Scalar> to_chosen{.indices = {routing.chosen, tokens, chosen_},
                                                .weights = {weights_.grown(tokens * chosen_), tokens, chosen_}};
    sara::gate_softmax_into(with_scratch(sara::gate_softmax_workspace_bytes(on_this_thread, of_softmax, to_probs), scratch), of_softmax,
                            to_probs);
    sara::top_k_into(with_scratch(sara::top_k_workspace_bytes(on_this_thread, of_top_k, to_chosen), scratch), of_top_k, to_chosen,
                     {.renormalize = true});

    order_by_expert(routing.chosen, tokens);
    for (index_t e = 0; e < experts_; ++e) {
      routing.counts[e] = first_[static_cast<std::size_t>(e) + 1] - first_[static_cast<std::size_t>(e)];
      routing.probability_sums[e] = p.col(e).template cast<double>().sum();
    }
  }

  // Adds to `residual`; after route().
  void forward(const layer_blocks<const Scalar>& layer, matrix_map<const Scalar> input, matrix_map<Scalar> residual,
               mixture_scratch<Scalar>& scratch) {
    hidden_rows_.grown(input.rows() * chosen_, 2 * hidden_);
    for_each_expert([&](index_t e, const std::int32_t* slots, index_t count, index_t first) {
      const auto rows = gathered(input, slots, count, scratch.rows);
      auto hidden = map_rows(hidden_rows_.data() + first * 2 * hidden_, count, 2 * hidden_);
      hidden.noalias() = rows * layer.experts_in.middleRows(e * width_, width_);
      auto activated = scratch.activated.grown(count, hidden_);
      for (index_t i = 0; i < count; ++i) {
        const auto a = row_part(hidden, i, 0, hidden_), b = row_part(hidden, i, hidden_, hidden_);
        row_part(activated, i, 0, hidden_) = weights_.data()[slots[i]] * a * b / (1 + (-a).exp());
      }
      auto out = scratch.out.grown(count, width_);
      out.noalias() = activated * layer.experts_out.middleRows(e * hidden_, hidden_);
      scatter_add(read_only(out), slots, residual);
    });
  }

  // Writes grad_input; adds to `gradient`. slopes [experts] or null: of each probability, of every token. grad_logits or null: of a loss
  // of the router's logits.
  void backward(const layer_blocks<const Scalar>& layer, matrix_map<const Scalar> input, const routing_rows<const Scalar>& routing,
                matrix_map<const Scalar> grad_output, const Scalar* slopes, const sara::matrix_view<const Scalar>& grad_logits,
                matrix_map<Scalar> grad_input, layer_blocks<Scalar>& gradient, mixture_scratch<Scalar>& scratch) const {
    Scalar* const grad_weights = scratch.grad_weights.grown(input.rows() * chosen_);
    Scalar* const of_a_row = scratch.sigmoid.grown(hidden_);
    grad_input.setZero();
    for_each_expert([&](index_t e, const std::int32_t* slots, index_t count, index_t first) {
      const auto in = layer.experts_in.middleRows(e * width_, width_);
      const auto out = layer.experts_out.middleRows(e * hidden_, hidden_);
      const auto hidden = map_rows(hidden_rows_.data() + first * 2 * hidden_, count, 2 * hidden_);
      const auto grad_rows = gathered(grad_output, slots, count, scratch.grad_rows);
      auto activated = scratch.activated.grown(count, hidden_), grad_activated = scratch.grad_activated.grown(count, hidden_);
      auto grad_hidden = scratch.grad_hidden.grown(count, 2 * hidden_);
      grad_activated.noalias() = grad_rows * out.transpose();
      for (index_t i = 0; i < count; ++i) {
        const Scalar weight = weights_.data()[slots[i]];
        const auto a = row_part(hidden, i, 0, hidden_), b = row_part(hidden, i, hidden_, hidden_);
        const auto g = row_part(grad_activated, i, 0, hidden_);
        auto sigmoid = map_row(of_a_row, hidden_), h = row_part(activated, i, 0, hidden_);
        sigmoid = (1 + (-a).exp()).inverse();
        h = a * sigmoid * b;
        grad_weights[slots[i]] = (g * h).sum();
        h *= weight;
        row_part(grad_hidden, i, 0, hidden_) = weight * g * b * sigmoid * (1 + a * (1 - sigmoid));
        row_part(grad_hidden, i, hidden_, hidden_) = weight * g * a * sigmoid;
      }
      gradient.experts_out.middleRows(e * hidden_, hidden_).noalias() += activated.transpose() * grad_rows;
      const auto rows = gathered(input, slots, count, scratch.rows);
      gradient.experts_in.middleRows(e * width_, width_).noalias() += rows.transpose() * grad_hidden;
      auto grad_gathered = scratch.out.grown(count, width_);
      grad_gathered.noalias() = grad_hidden * in.transpose();
      scatter_add(read_only(grad_gathered), slots, grad_input);
    });
    gate_backward(layer, input, routing, slopes, grad_logits, grad_input, gradient, scratch);
  }

 private:
  static constexpr sara::cpu_executor on_this_thread{.threads = 1};

  static sara::cpu_executor with_scratch(std::size_t bytes, mixture_scratch<Scalar>& scratch) {
    if (scratch.library.size() < bytes) scratch.library.resize(bytes);
    return {.threads = 1, .scratch = {scratch.library.data(), scratch.library.size()}};
  }

  void gate_backward(const layer_blocks<const Scalar>& layer, matrix_map<const Scalar> input, const routing_rows<const Scalar>& routing,
                     const Scalar* slopes, const sara::matrix_view<const Scalar>& of_logits, matrix_map<Scalar> grad_input,
                     layer_blocks<Scalar>& gradient, mixture_scratch<Scalar>& scratch) const {
    const index_t tokens = input.rows();
    auto grad_probs = scratch.grad_probs.grown(tokens, experts_), grad_logits = scratch.grad_logits.grown(tokens, experts_);
    for (index_t t = 0; t < tokens; ++t) {
      auto to_probs = row_part(grad_probs, t, 0, experts_), to_logits = row_part(grad_logits, t, 0, experts_);
      if (slopes)
        to_probs = map_row(slopes, experts_);
      else
        to_probs.setZero();
      if (of_logits.given())
        to_logits = map_row(of_logits.row(t), experts_);
      else
        to_logits.setZero();
    }
    const sara::matrix_view<const Scalar> probs{routing.probs.data(), tokens, experts_};
    sara::top_k_backward_into(
        on_this_thread,
        sara::top_k_backward_inputs<Scalar>{
            .indices = {routing.chosen, tokens, chosen_}, .grad_weights = {scratch.grad_weights.data(), tokens, chosen_}, .values = probs},
        {.grad_values = {grad_probs.data(), tokens, experts_}}, {.renormalize = true, .mode = sara::gradient_mode::accumulate});
    sara::gate_softmax_backward_into(
        on_this_thread, sara::gate_softmax_backward_inputs<Scalar>{.probs = probs, .grad_probs = {grad_probs.data(), tokens, experts_}},
        {.grad_logits = {grad_logits.data(), tokens, experts_}}, {.mode = sara::gradient_mode::accumulate});
    gradient.router.noalias() += input.transpose() * grad_logits;
    grad_input.noalias() += grad_logits * layer.router.transpose();
  }

  // A slot is token k + rank. Of each expert they are in the order of their tokens.
  void order_by_expert(const std::int32_t* chosen, index_t tokens) {
    const index_t slots = tokens * chosen_;
    if (static_cast<index_t>(slots_.size()) < slots) slots_.resize(static_cast<std::size_t>(slots));
    first_.assign(static_cast<std::size_t>(experts_) + 1, 0);
    for (index_t i = 0; i < slots; ++i) ++first_[static_cast<std::size_t>(chosen[i]) + 1];
    for (std::size_t e = 1; e < first_.size(); ++e) first_[e] += first_[e - 1];
    next_.assign(first_.begin(), first_.end());
    for (index_t i = 0; i < slots; ++i)
      slots_[static_cast<std::size_t>(next_[static_cast<std::size_t>(chosen[i])]++)] = static_cast<std::int32_t>(i);
  }

  // visit(expert, its slots, how many, how many are before them), for experts that were chosen at all.
  template <class Visit> void for_each_expert(const Visit& visit) const {
    for (index_t e = 0; e < experts_; ++e) {
      const index_t first = first_[static_cast<std::size_t>(e)], count = first_[static_cast<std::size_t>(e) + 1] - first;
      if (count > 0) visit(e, slots_.data() + first, count, first);
    }
  }

  matrix_map<Scalar> gathered(matrix_map<const Scalar> from, const std::int32_t* slots, index_t count, buffer<Scalar>& into) const {
    auto rows = into.grown(count, width_);
    for (index_t i = 0; i < count; ++i) rows.row(i) = from.row(slots[i] / chosen_);
    return rows;
  }
  void scatter_add(matrix_map<const Scalar> rows, const std::int32_t* slots, matrix_map<Scalar> to) const {
    for (index_t i = 0; i < rows.rows(); ++i) to.row(slots[i] / chosen_) += rows.row(i);
  }

  index_t width_, hidden_, experts_, chosen_;
  std::vector<index_t> first_, next_;   // of each expert, among the slots by expert
  std::vector<std::int32_t> slots_;     // by expert
  buffer<Scalar> weights_;              // [tokens, k]
  buffer<Scalar> hidden_rows_;          // [slots by expert, 2 hidden]
};

}   // namespace sara_finetune
