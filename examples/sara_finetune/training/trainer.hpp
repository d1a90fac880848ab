// One optimizer step over a batch that is cut into micro-batches: each has a model's memory and a gradient of its own, so any number of
// threads computes the same bits.
#pragma once

#include <sara/cpu/threads.hpp>

#include <cstdint>
#include <span>
#include <vector>

#include "../model/balance.hpp"
#include "../model/model.hpp"
#include "../model/optimizer.hpp"
#include "../text/dataset.hpp"

namespace sara_finetune {

struct training_sequence {
  const encoded_sentence* sentence = nullptr;
  std::int32_t anchor_row = -1;   // of objective::anchors; -1: cross-entropy and balance only
};

// L = L_CE + balance_weight L_LB + lambda L_JS, each a mean over the whole batch; L_JS over the window's layers and the sequences that have
// an anchor. With lambda 0 the divergence is measured, and nothing flows back from it.
struct objective {
  double balance_weight = 0.01, lambda = 0;
  index_t window_begin = 0, window_layers = 0;
  const float* anchors = nullptr;   // [anchor_rows, layers, experts], all of the model's layers; null: there is no L_JS
  index_t anchor_rows = 0;
};

struct trainer_options {
  index_t micro_batches = 4;
  adamw_options adamw = {};
  double clip = 1;
};

// What one step saw.
struct step_figures {
  double loss = 0, cross_entropy = 0, balance = 0;   // nats a token
  double divergence = 0;                             // nats; 0 where nothing is anchored
  double gradient_norm = 0;                          // before it is clipped
  std::int64_t tokens = 0;
  double seconds = 0;        // of all threads' work together,
  double sara_seconds = 0;   // and the SARA term's part of it
};

class trainer {
 public:
  trainer(const model_shape& shape, const trainer_options& options, sara::thread_pool& pool);

  // Changes parameters and state, unless loss or gradient are not finite: then both stay as they are, for the caller to see.
  step_figures step(std::span<const training_sequence> batch, const objective& of, double learning_rate);

  std::vector<float> parameters = {};
  adamw_state<float> state = {};

 private:
  struct micro_batch {
    explicit micro_batch(const model_shape& shape) : model(shape) {}

    moe_model<float> model;
    packed_batch sequences;
    std::vector<std::int32_t> anchor_rows;   // [sequences]
    std::vector<float> gradient, grad_logits;
    std::vector<std::byte> scratch;
    bool anchored = false;   // it has a part of L_JS
    double cross_entropy = 0, sara_loss = 0, seconds = 0, sara_seconds = 0;
  };

  void deal(std::span<const training_sequence> batch);
  void forward(micro_batch& part, const objective& of, float total_sequence_weight);
  void backward(micro_batch& part, const objective& of, float loss_scale);
  void merge_gradients();

  model_shape shape_;
  trainer_options options_;
  sara::thread_pool* pool_;
  std::vector<parameter_block> blocks_;
  std::vector<micro_batch> parts_;
  std::vector<float> balance_slopes_;
};

}   // namespace sara_finetune
