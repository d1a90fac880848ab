#include "trainer.hpp"

#include <sara/js_routing.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "parallel.hpp"

namespace sara_finetune {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

constexpr index_t parameters_at_once = 1 << 16;   // a piece of the merge: fixed, because sums of its parts are added in their order

}   // namespace

trainer::trainer(const model_shape& shape, const trainer_options& options, sara::thread_pool& pool)
    : shape_(shape), options_(options), pool_(&pool), blocks_(blocks(shape)) {
  if (options.micro_batches < 1)
    throw std::runtime_error("micro-batches must be at least 1, but are " + std::to_string(options.micro_batches));
  parts_.reserve(static_cast<std::size_t>(options.micro_batches));
  for (index_t i = 0; i < options.micro_batches; ++i) parts_.emplace_back(shape);
}

step_figures trainer::step(std::span<const training_sequence> batch, const objective& of, double learning_rate) {
  deal(batch);
  const auto count = static_cast<index_t>(parts_.size());
  const auto anchored =
      std::count_if(batch.begin(), batch.end(), [&](const training_sequence& s) { return of.anchors && s.anchor_row >= 0; });
  for_each(*pool_, count, [&](index_t i, int) { forward(parts_[static_cast<std::size_t>(i)], of, static_cast<float>(anchored)); });

  step_figures seen;
  balance_statistics whole;
  for (const micro_batch& part : parts_) {
    seen.cross_entropy += part.cross_entropy;
    seen.divergence += part.sara_loss;
    seen.tokens += part.model.balance().tokens;
    whole += part.model.balance();
  }
  const double targets = static_cast<double>(seen.tokens);   // each token predicts one
  seen.cross_entropy /= targets;
  seen.balance = balance_loss(shape_, whole);
  seen.loss = seen.cross_entropy + of.balance_weight * seen.balance + of.lambda * seen.divergence;
  balance_slopes_into(shape_, whole, of.balance_weight, balance_slopes_);
  if (std::isfinite(seen.loss)) {
    for_each(*pool_, count, [&](index_t i, int) { backward(parts_[static_cast<std::size_t>(i)], of, static_cast<float>(1 / targets)); });
    const auto begin = std::chrono::steady_clock::now();
    merge_gradients();
    const std::span<float> gradient = parts_.front().gradient;
    seen.gradient_norm = clip_gradient(gradient, options_.clip);
    if (std::isfinite(seen.gradient_norm))
      adamw_step<float>(options_.adamw, learning_rate, blocks_, std::span<const float>(gradient), parameters, state);
    seen.seconds += seconds_since(begin);
  }
  for (const micro_batch& part : parts_) {
    seen.seconds += part.seconds;
    seen.sara_seconds += part.sara_seconds;
  }
  return seen;
}

// The longest first, each to the part that has the fewest tokens.
void trainer::deal(std::span<const training_sequence> batch) {
  if (batch.empty()) throw std::runtime_error("a step needs at least one sequence, but its batch is empty");
  for (micro_batch& part : parts_) {
    part.sequences = {};
    part.anchor_rows.clear();
  }
  std::vector<std::size_t> order(batch.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return batch[a].sentence->length() > batch[b].sentence->length(); });
  for (const std::size_t i : order) {
    auto least = std::min_element(parts_.begin(), parts_.end(), [](const micro_batch& a, const micro_batch& b) {
      return a.sequences.token_count() < b.sequences.token_count();
    });
    append(least->sequences, *batch[i].sentence);
    least->anchor_rows.push_back(batch[i].anchor_row);
  }
}

void trainer::forward(micro_batch& part, const objective& of, float total_sequence_weight) {
  const auto begin = std::chrono::steady_clock::now();
  part.cross_entropy = part.model.forward(parameters, part.sequences, pass::training);
  part.sara_loss = part.sara_seconds = 0;
  part.anchored = of.anchors && total_sequence_weight > 0 && part.sequences.token_count() > 0;
  if (part.anchored) {
    const auto sara_begin = std::chrono::steady_clock::now();
    const bool trains = of.lambda > 0;
    const index_t tokens = part.sequences.token_count(), experts = shape_.experts, of_a_row = shape_.layers * experts;
    const float total_layer_weight = static_cast<float>(of.window_layers);
    if (trains) part.grad_logits.resize(static_cast<std::size_t>(of.window_layers * tokens * experts));
    float loss = 0;
    // The anchors' file is [samples, layers, experts]: strides make it the window's layers of rows.
    const sara::js_routing_inputs<float> inputs{
        .logits = part.model.router_logits(of.window_begin, of.window_layers),
        .sequences = sara::sequences_view::packed(part.sequences.cu_seqlens),
        .anchors = {of.anchors + of.window_begin * experts, of.window_layers, of.anchor_rows, experts, of_a_row, experts},
        .anchor_rows = part.anchor_rows,
        .total_layer_weight = {&total_layer_weight, 1},
        .total_sequence_weight = {&total_sequence_weight, 1}};
    sara::js_routing_outputs<float> outputs{.loss = {&loss, 1}};
    if (trains) outputs.grad_logits = {part.grad_logits.data(), of.window_layers, tokens, experts};
    sara::cpu_executor exec{.threads = 1};
    const std::size_t bytes = sara::js_routing_workspace_bytes(exec, inputs, outputs);
    if (part.scratch.size() < bytes) part.scratch.resize(bytes);
    exec.scratch = {part.scratch.data(), part.scratch.size()};
    sara::js_routing_into(exec, inputs, outputs, {.scale = trains ? of.lambda : 1});
    part.sara_loss = trains ? loss / of.lambda : static_cast<double>(loss);
    part.sara_seconds = seconds_since(sara_begin);
  }
  part.seconds = seconds_since(begin);
}

void trainer::backward(micro_batch& part, const objective& of, float loss_scale) {
  const auto begin = std::chrono::steady_clock::now();
  part.gradient.assign(parameters.size(), 0.0f);
  gradient_sources<float> sources{.loss_scale = loss_scale, .balance_slopes = balance_slopes_, .window_begin = of.window_begin};
  if (part.anchored && of.lambda > 0)
    sources.grad_logits = {part.grad_logits.data(), of.window_layers, part.sequences.token_count(), shape_.experts};
  part.model.backward(parameters, part.sequences, sources, part.gradient);
  part.seconds += seconds_since(begin);
}

// Into the first part's, in the parts' order.
void trainer::merge_gradients() {
  const auto size = static_cast<index_t>(parameters.size());
  for_each(*pool_, (size + parameters_at_once - 1) / parameters_at_once, [&](index_t piece, int) {
    const index_t begin = piece * parameters_at_once, count = std::min(parameters_at_once, size - begin);
    auto sum = map_row(parts_.front().gradient.data() + begin, count);
    for (std::size_t i = 1; i < parts_.size(); ++i) sum += map_row(parts_[i].gradient.data() + begin, count);
  });
}

}   // namespace sara_finetune
