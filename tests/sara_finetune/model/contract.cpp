// What model, shape and batch refuse, and in which words.
#include "catch.hpp"
#include "small_model.hpp"

using namespace sara_finetune;
using small::complaint;

TEST_CASE("model_shape: refuses what no model can be", "[sara_finetune]") {
  const auto refused = [](const model_shape& shape) { return complaint([&] { moe_model<float> model(shape); }); };
  CHECK(refused({}) == "");
  CHECK(refused({.vocabulary = 1}) == "model shape: vocabulary must be at least 2, but is 1");
  CHECK(refused({.layers = 0}) == "model shape: layers must be at least 1, but is 0");
  CHECK(refused({.heads = -4}) == "model shape: heads must be at least 1, but is -4");
  CHECK(refused({.width = 98}) == "model shape: width must be a multiple of heads (4), but is 98");
  CHECK(refused({.width = 12}) == "model shape: width / heads must be even, as rotary positions turn pairs, but is 3");
  CHECK(refused({.experts = 3, .chosen = 4}) == "model shape: chosen must be at most experts (3), but is 4");
  CHECK(refused({.hidden = 0}) == "model shape: hidden must be at least 1, but is 0");
  CHECK(refused({.context = 0}) == "model shape: context must be at least 1, but is 0");
}

TEST_CASE("moe_model: broken batches and calls are one sentence", "[sara_finetune]") {
  const model_shape shape = small::shape();
  const packed_batch batch = small::batch_of(shape, {5, 6}, 19);
  const std::vector<double> parameters = small::parameters(shape, 20);
  moe_model<double> model(shape);
  const auto refused = [&](const auto& change) {
    packed_batch broken = batch;
    change(broken);
    return complaint([&] { model.forward(parameters, broken); });
  };
  CHECK(refused([](packed_batch&) {}) == "");
  CHECK(refused([](packed_batch& b) { b.cu_seqlens.clear(); }) ==
        "batch: cu_seqlens must begin with 0 and end with the number of tokens, 11, but is empty");
  CHECK(refused([](packed_batch& b) { b.cu_seqlens.back() = 10; }) ==
        "batch: cu_seqlens must begin with 0 and end with the number of tokens, 11, but goes from 0 to 10");
  CHECK(refused([](packed_batch& b) {
          b.cu_seqlens = {0, 12, 11};
        }) == "batch: sequence 1 must have 0 to 60 tokens (the context), but has -1");
  CHECK(refused([&](packed_batch& b) {
          b = small::batch_of(shape, {3, 61}, 1);
        }) == "batch: sequence 1 must have 0 to 60 tokens (the context), but has 61");
  CHECK(refused([](packed_batch& b) { b.tokens[4] = 19; }) == "batch: tokens[4] must be a token below 19 (the vocabulary), but is 19");
  CHECK(refused([](packed_batch& b) { b.targets[5] = -1; }) == "batch: targets[5] must be a token below 19 (the vocabulary), but is -1");
  CHECK(refused([](packed_batch& b) { b.targets[4] = -1; }) == "");   // has no weight
  CHECK(refused([](packed_batch& b) { b.targets.pop_back(); }) == "batch: targets must have 11 entries, but has 10");
  CHECK(refused([](packed_batch& b) { b.target_weights.clear(); }) == "batch: target_weights must have 11 entries, but has 0");
  CHECK(refused([](packed_batch& b) { b.target_weights[0] = -1; }) ==
        "batch: target_weights[0] must be finite and at least 0, but is -1.000000");

  std::vector<double> gradient(parameters.size());
  const auto backward = [&](const gradient_sources<double>& sources) {
    return complaint([&] { model.backward(parameters, batch, sources, gradient); });
  };
  model.forward(parameters, batch);
  std::vector<double> some(100);
  CHECK(backward({}) == "");
  CHECK(backward({.balance_slopes = std::span(some).first(19)}) == "balance_slopes must have 20 entries for this model shape, but has 19");
  CHECK(backward({.grad_logits = {some.data(), 1, 10, 5}}) == "grad_logits must be [11 tokens, 5 experts] in each layer, but is [10, 5]");
  CHECK(backward({.grad_logits = {some.data(), 1, 11, 5}, .window_begin = 4}) ==
        "a window of layers must lie within the model's 4, but is 1 from layer 4");
  model.forward(parameters, batch, pass::evaluation);
  CHECK(backward({}) == "backward: the last forward must have been of pass::training");
  CHECK(complaint([&] { model.forward(std::span(parameters).first(7), batch); }).starts_with("parameters must have "));
  model.forward(parameters, batch, pass::routing);
  CHECK(complaint([&] { model.cross_entropies(); }) == "cross_entropies: the last forward stopped at the routing");
}
