// A minimal Mixture-of-Experts language model, forward and backward.
//
//   x = embedding of the tokens
//   for each layer:  x += attention(RMSNorm(x));  x += mixture(RMSNorm(x))
//   logits = RMSNorm(x) embedding^T
//
// A model object is the memory of one batch (or shard of a batch) at a time; parameters and gradients belong to the caller. Shards of a
// batch may run at the same time, each with a model object and a gradient of its own: cross-entropies, gradients and balance statistics
// add up, and the balance loss sees the whole batch where all shards' backwards are given slopes from the added statistics.
#pragma once

#include <span>

#include "attention.hpp"
#include "balance.hpp"
#include "cross_entropy.hpp"
#include "mixture.hpp"

namespace sara_finetune {

// How far a forward goes: to the last router's logits, to the cross-entropies, or on to what backward() needs.
enum class pass { routing, evaluation, training };

// What a gradient is of: loss_scale times the forward's sum of cross-entropies, plus what reaches the routers.
template <class Scalar> struct gradient_sources {
  Scalar loss_scale = 1;
  std::span<const Scalar> balance_slopes = {};        // [layers, experts], see balance.hpp; absent: 0
  sara::layers_view<const Scalar> grad_logits = {};   // [window, tokens, experts], of the routers' logits; absent: 0
  index_t window_begin = 0;                           // the layer of grad_logits[0]
};

template <class Scalar> class moe_model {
 public:
  explicit moe_model(const model_shape& shape) : shape_(shape), blocks_(blocks(shape)), positions_(shape.context, shape.head_width()) {
    for (int l = 0; l < shape.layers; ++l) layers_.emplace_back(shape);
  }

  const model_shape& shape() const { return shape_; }

  // Returns the sum over tokens of target weight times cross-entropy (0 for pass::routing).
  double forward(std::span<const Scalar> parameters, const packed_batch& batch, pass how_far = pass::training);

  // Of the last forward, with the same parameters and batch. Adds to `gradient`.
  void backward(std::span<const Scalar> parameters, const packed_batch& batch, const gradient_sources<Scalar>& sources,
                std::span<Scalar> gradient);

  // Of the last forward. A window of layers: `count` of them from `first`; all without arguments.
  sara::layers_view<const Scalar> router_logits(index_t first = 0, index_t count = -1) const {
    return window(router_logits_, first, count);
  }
  sara::layers_view<const Scalar> router_probs(index_t first = 0, index_t count = -1) const { return window(router_probs_, first, count); }
  sara::layers_view<const std::int32_t> chosen() const { return {chosen_.data(), shape_.layers, tokens_, shape_.chosen}; }
  std::span<const Scalar> cross_entropies() const {   // [tokens]; 0 where the target has no weight
    if (passed_ == pass::routing) throw std::runtime_error("cross_entropies: the last forward stopped at the routing");
    return {cross_entropy_.losses(), static_cast<std::size_t>(tokens_)};
  }
  const balance_statistics& balance() const { return balance_; }

 private:
  struct layer_memory {
    explicit layer_memory(const model_shape& shape) : attention(shape), experts(shape) {}

    buffer<Scalar> x, attention_input, between, mixture_input;   // [tokens, width]
    rms_norm<Scalar> of_attention, of_mixture;
    causal_attention<Scalar> attention;
    mixture<Scalar> experts;
  };
  layer_memory& at(index_t l) { return layers_[static_cast<std::size_t>(l)]; }

  void grow() {
    router_logits_.grown(shape_.layers * tokens_ * shape_.experts);
    router_probs_.grown(shape_.layers * tokens_ * shape_.experts);
    chosen_.grown(shape_.layers * tokens_ * shape_.chosen);
    cross_entropy_.reserve(tokens_);
  }

  // S: const Scalar to read.
  template <class S> static routing_rows<S> routing(moe_model& m, index_t l) {
    const index_t experts = m.shape_.experts, rows = l * m.tokens_;
    return {map_rows<S>(m.router_logits_.data() + rows * experts, m.tokens_, experts),
            map_rows<S>(m.router_probs_.data() + rows * experts, m.tokens_, experts), m.chosen_.data() + rows * m.shape_.chosen,
            m.balance_.counts.data() + l * experts, m.balance_.probability_sums.data() + l * experts};
  }

  sara::layers_view<const Scalar> window(const buffer<Scalar>& of, index_t first, index_t count) const {
    if (count < 0) count = shape_.layers - first;
    if (first < 0 || first + count > shape_.layers)
      throw std::runtime_error("a window of layers must lie within the model's " + std::to_string(shape_.layers) + ", but is " +
                               std::to_string(count) + " from layer " + std::to_string(first));
    return {of.data() + first * tokens_ * shape_.experts, count, tokens_, shape_.experts};
  }

  static void check_size(const char* name, std::size_t size, index_t wanted) {
    if (static_cast<index_t>(size) != wanted)
      throw std::runtime_error(std::string(name) + " must have " + std::to_string(wanted) + " entries for this model shape, but has " +
                               std::to_string(size));
  }
  void check_backward(std::span<const Scalar> parameters, const packed_batch& batch, const gradient_sources<Scalar>& sources,
                      std::span<Scalar> gradient) const {
    if (passed_ != pass::training) throw std::runtime_error("backward: the last forward must have been of pass::training");
    check_size("parameters", parameters.size(), parameter_count(blocks_));
    check_size("gradient", gradient.size(), parameter_count(blocks_));
    check_size("tokens", batch.tokens.size(), tokens_);
    if (!sources.balance_slopes.empty()) check_size("balance_slopes", sources.balance_slopes.size(), shape_.layers * shape_.experts);
    if (!sources.grad_logits.given()) return;
    window(router_logits_, sources.window_begin, sources.grad_logits.layers());
    const index_t rows = sources.grad_logits.rows(), columns = sources.grad_logits.columns();
    if (rows != tokens_ || columns != shape_.experts)
      throw std::runtime_error("grad_logits must be [" + std::to_string(tokens_) + " tokens, " + std::to_string(shape_.experts) +
                               " experts] in each layer, but is [" + std::to_string(rows) + ", " + std::to_string(columns) + "]");
  }

  model_shape shape_;
  std::vector<parameter_block> blocks_;
  rotary<Scalar> positions_;
  std::vector<layer_memory> layers_;
  rms_norm<Scalar> final_norm_;
  tied_cross_entropy<Scalar> cross_entropy_;
  buffer<Scalar> last_, output_;                  // [tokens, width]: after the last layer, and normalised
  buffer<Scalar> router_logits_, router_probs_;   // [layers, tokens, experts]
  buffer<std::int32_t> chosen_;                   // [layers, tokens, k]
  balance_statistics balance_;
  buffer<Scalar> grad_, grad_input_;   // [tokens, width]: of the residual stream, and of what is read from it
  attention_scratch<Scalar> attention_scratch_;
  mixture_scratch<Scalar> mixture_scratch_;
  pass passed_ = pass::routing;
  index_t tokens_ = 0;
};

// Outside of the class: a function defined within it is compiled wherever it is called, whatever the last line says.
template <class Scalar> double moe_model<Scalar>::forward(std::span<const Scalar> parameters, const packed_batch& batch, pass how_far) {
  batch.check(shape_, how_far != pass::routing);
  check_size("parameters", parameters.size(), parameter_count(blocks_));
  passed_ = how_far;
  tokens_ = batch.token_count();
  balance_.reset(shape_, tokens_);
  grow();
  if (tokens_ == 0) return 0;

  const index_t width = shape_.width;
  const auto embedding = map_rows(parameters.data(), shape_.vocabulary, width);
  auto embedded = layers_.front().x.grown(tokens_, width);
  for (index_t t = 0; t < tokens_; ++t) embedded.row(t) = embedding.row(batch.tokens.data()[t]);

  for (index_t l = 0; l < shape_.layers; ++l) {
    layer_memory& layer = at(l);
    const layer_blocks<const Scalar> weights(blocks_, l, parameters.data());
    layer.of_attention.forward(layer.x.read(tokens_, width), weights.attention_norm, layer.attention_input.grown(tokens_, width));
    auto between = layer.between.grown(tokens_, width);
    between = layer.x.rows(tokens_, width);
    layer.attention.forward(weights, positions_, batch, layer.attention_input.read(tokens_, width), between);

    layer.of_mixture.forward(read_only(between), weights.mixture_norm, layer.mixture_input.grown(tokens_, width));
    layer.experts.route(weights, layer.mixture_input.read(tokens_, width), routing<Scalar>(*this, l), mixture_scratch_);
    if (how_far == pass::routing && l + 1 == shape_.layers) return 0;
    auto next = (l + 1 < shape_.layers ? at(l + 1).x : last_).grown(tokens_, width);
    next = between;
    layer.experts.forward(weights, layer.mixture_input.read(tokens_, width), next, mixture_scratch_);
  }
  final_norm_.forward(last_.read(tokens_, width), parameters.data() + blocks_.back().offset, output_.grown(tokens_, width));
  return cross_entropy_.forward(embedding, output_.read(tokens_, width), batch, how_far == pass::training);
}

template <class Scalar>
void moe_model<Scalar>::backward(std::span<const Scalar> parameters, const packed_batch& batch, const gradient_sources<Scalar>& sources,
                                 std::span<Scalar> gradient) {
  check_backward(parameters, batch, sources, gradient);
  if (tokens_ == 0) return;
  const index_t width = shape_.width;
  auto grad_embedding = map_rows(gradient.data(), shape_.vocabulary, width);
  grad_embedding += sources.loss_scale * map_rows(cross_entropy_.grad_embedding(), shape_.vocabulary, width);
  auto grad_output = grad_input_.grown(tokens_, width), grad = grad_.grown(tokens_, width);
  grad_output = sources.loss_scale * map_rows(cross_entropy_.grad_hidden(), tokens_, width);
  grad.setZero();
  final_norm_.backward(last_.read(tokens_, width), parameters.data() + blocks_.back().offset, read_only(grad_output), grad,
                       gradient.data() + blocks_.back().offset);

  for (index_t l = shape_.layers; l-- > 0;) {
    layer_memory& layer = at(l);
    const layer_blocks<const Scalar> weights(blocks_, l, parameters.data());
    layer_blocks<Scalar> to(blocks_, l, gradient.data());
    auto grad_input = grad_input_.grown(tokens_, width);

    const Scalar* const slopes = sources.balance_slopes.empty() ? nullptr : sources.balance_slopes.data() + l * shape_.experts;
    const index_t in_window = l - sources.window_begin;
    const bool of_logits = in_window >= 0 && in_window < sources.grad_logits.layers();
    layer.experts.backward(weights, layer.mixture_input.read(tokens_, width), routing<const Scalar>(*this, l), read_only(grad), slopes,
                           of_logits ? sources.grad_logits[in_window] : sara::matrix_view<const Scalar>{}, grad_input, to,
                           mixture_scratch_);
    layer.of_mixture.backward(layer.between.read(tokens_, width), weights.mixture_norm, read_only(grad_input), grad, to.mixture_norm);

    layer.attention.backward(weights, positions_, batch, layer.attention_input.read(tokens_, width), read_only(grad), grad_input, to,
                             attention_scratch_);
    layer.of_attention.backward(layer.x.read(tokens_, width), weights.attention_norm, read_only(grad_input), grad, to.attention_norm);
  }
  for (index_t t = 0; t < tokens_; ++t) grad_embedding.row(batch.tokens.data()[t]) += grad.row(t);
}

extern template class moe_model<float>;   // in model.cpp

}   // namespace sara_finetune
