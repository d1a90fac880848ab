// The model's forward against its formulas, what it may not depend on, and that it learns. Its gradient: gradient.cpp.
#include "sara_finetune/model/model.hpp"

#include "catch.hpp"
#include "naive_model.hpp"
#include "sara_finetune/model/optimizer.hpp"
#include "small_model.hpp"

namespace {

using namespace sara_finetune;

double furthest(std::span<const double> a, std::span<const double> b) {
  double most = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

}   // namespace

TEST_CASE("moe_model: forward equals the formulas, a token at a time", "[sara_finetune]") {
  for (const int chosen : {1, 2, 5}) {
    model_shape shape = small::shape();
    shape.chosen = chosen;
    const packed_batch batch = small::batch_of(shape, {5, 1, 0, 53, 9}, 1);
    const std::vector<double> parameters = small::parameters(shape, 2);
    const naive::result expected = naive::forward(shape, parameters, batch);
    moe_model<double> model(shape);
    const double sum = model.forward(parameters, batch);

    double weighted = 0;
    for (std::size_t t = 0; t < batch.tokens.size(); ++t) weighted += batch.target_weights[t] * expected.cross_entropies[t];
    CHECK(sum == Approx(weighted).epsilon(1e-12));
    CHECK(furthest(model.cross_entropies(), expected.cross_entropies) < 1e-10);
    const auto logits = model.router_logits(), probs = model.router_probs();
    const auto indices = model.chosen();
    REQUIRE(expected.logits.size() == static_cast<std::size_t>(shape.layers * batch.token_count()));
    std::vector<std::int64_t> counts(static_cast<std::size_t>(shape.layers * shape.experts));
    std::vector<double> sums(counts.size());
    double off_logits = 0, off_probs = 0;
    bool same_chosen = true;
    for (index_t l = 0; l < shape.layers; ++l)
      for (index_t t = 0; t < batch.token_count(); ++t) {
        const auto at = static_cast<std::size_t>(l * batch.token_count() + t);
        const naive::row p = naive::softmax(expected.logits[at]);
        for (index_t e = 0; e < shape.experts; ++e) {
          const auto i = static_cast<std::size_t>(e);
          off_logits = std::max(off_logits, std::abs(logits[l](t, e) - expected.logits[at][i]));
          off_probs = std::max(off_probs, std::abs(probs[l](t, e) - p[i]));
          sums[static_cast<std::size_t>(l * shape.experts + e)] += p[i];
        }
        for (index_t k = 0; k < shape.chosen; ++k) {
          const int e = expected.chosen[at][static_cast<std::size_t>(k)];
          same_chosen = same_chosen && indices[l](t, k) == e;
          ++counts[static_cast<std::size_t>(l * shape.experts + e)];
        }
      }
    CHECK(off_logits < 1e-10);
    CHECK(off_probs < 1e-10);
    CHECK(same_chosen);
    CHECK(model.balance().counts == counts);
    CHECK(furthest(model.balance().probability_sums, sums) < 1e-9);
    CHECK(model.balance().tokens == batch.token_count());
  }
}

TEST_CASE("moe_model: float is double, rounded", "[sara_finetune]") {
  model_shape shape = small::shape();
  shape.chosen = shape.experts;   // no choice for rounding to turn
  const packed_batch batch = small::batch_of(shape, {17, 40}, 3);
  const std::vector<double> exact = small::parameters(shape, 4);
  const std::vector<float> rounded(exact.begin(), exact.end());
  moe_model<double> model(shape);
  moe_model<float> of_float(shape);
  const std::vector<double> same(rounded.begin(), rounded.end());
  CHECK(of_float.forward(rounded, batch) == Approx(model.forward(same, batch)).epsilon(1e-5));

  std::vector<double> gradient(exact.size());
  std::vector<float> gradient_of_float(exact.size());
  model.backward(same, batch, {.loss_scale = 0.5}, gradient);
  of_float.backward(rounded, batch, {.loss_scale = 0.5f}, gradient_of_float);
  double square = 0, off = 0;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    square += gradient[i] * gradient[i];
    off += (gradient[i] - static_cast<double>(gradient_of_float[i])) * (gradient[i] - static_cast<double>(gradient_of_float[i]));
  }
  CHECK(square > 0);
  CHECK(std::sqrt(off / square) < 1e-4);
}

TEST_CASE("moe_model: packed sequences are what each is alone", "[sara_finetune]") {
  const model_shape shape = small::shape();
  const packed_batch batch = small::batch_of(shape, {7, 60, 1, 0, 23}, 5);
  const std::vector<double> parameters = small::parameters(shape, 6);
  moe_model<double> packed(shape), alone(shape);
  packed.forward(parameters, batch);
  for (std::size_t s = 0; s < 5; ++s) {
    const packed_batch one = small::part_of(batch, s, s + 1);
    alone.forward(parameters, one);
    const auto first = static_cast<std::size_t>(batch.cu_seqlens[s]);
    CHECK(furthest(packed.cross_entropies().subspan(first, one.tokens.size()), alone.cross_entropies()) < 1e-12);
    double off = 0;
    for (index_t l = 0; l < shape.layers; ++l)
      for (index_t t = 0; t < one.token_count(); ++t)
        for (index_t e = 0; e < shape.experts; ++e)
          off = std::max(off, std::abs(alone.router_logits()[l](t, e) - packed.router_logits()[l](static_cast<index_t>(first) + t, e)));
    CHECK(off < 1e-12);
  }
}

TEST_CASE("moe_model: no token sees a later one", "[sara_finetune]") {
  const model_shape shape = small::shape();
  const packed_batch batch = small::batch_of(shape, {50, 30}, 7);
  const std::vector<double> parameters = small::parameters(shape, 8);
  moe_model<double> model(shape);
  model.forward(parameters, batch);
  const std::vector<double> before(model.cross_entropies().begin(), model.cross_entropies().end());
  for (const std::size_t changed : {1u, 20u, 46u, 47u, 60u}) {
    packed_batch other = batch;
    other.tokens[changed] = (other.tokens[changed] + 1) % shape.vocabulary;
    model.forward(parameters, other);
    const auto now = model.cross_entropies();
    const std::size_t end = changed < 50 ? 50 : 80;   // of its sequence
    double earlier = 0, elsewhere = 0;
    for (std::size_t t = 0; t < before.size(); ++t) {
      if (t < changed) earlier = std::max(earlier, std::abs(now[t] - before[t]));
      if (t >= end) elsewhere = std::max(elsewhere, std::abs(now[t] - before[t]));
    }
    CHECK(earlier < 1e-12);
    CHECK(elsewhere < 1e-12);
    CHECK(now[changed] != before[changed]);
    CHECK(std::abs(now[changed + 1] - before[changed + 1]) > 1e-6);   // and a later one sees an earlier
  }
}

TEST_CASE("moe_model: the shards of a batch add up to it", "[sara_finetune]") {
  const model_shape shape = small::shape();
  const packed_batch batch = small::batch_of(shape, {11, 60, 4, 29, 0, 18}, 9);
  const std::vector<double> parameters = small::parameters(shape, 10);
  moe_model<double> whole(shape);
  const double sum = whole.forward(parameters, batch);
  std::vector<double> slopes, gradient(parameters.size());
  balance_slopes_into(shape, whole.balance(), 0.7, slopes);
  whole.backward(parameters, batch, {.loss_scale = 0.01, .balance_slopes = slopes}, gradient);

  const packed_batch parts[] = {small::part_of(batch, 0, 2), small::part_of(batch, 2, 2), small::part_of(batch, 2, 6)};
  std::vector<moe_model<double>> models(3, moe_model<double>(shape));
  double sum_of_parts = 0;
  balance_statistics added;
  for (std::size_t i = 0; i < 3; ++i) {
    sum_of_parts += models[i].forward(parameters, parts[i]);
    added += models[i].balance();
  }
  std::vector<double> slopes_of_parts, gradient_of_parts(parameters.size());
  balance_slopes_into(shape, added, 0.7, slopes_of_parts);
  for (std::size_t i = 0; i < 3; ++i)
    models[i].backward(parameters, parts[i], {.loss_scale = 0.01, .balance_slopes = slopes_of_parts}, gradient_of_parts);
  CHECK(sum_of_parts == Approx(sum).epsilon(1e-12));
  CHECK(balance_loss(shape, added) == Approx(balance_loss(shape, whole.balance())).epsilon(1e-12));
  CHECK(furthest(gradient_of_parts, gradient) < 1e-10);
}

TEST_CASE("moe_model: a pass that stops early sees the same, and a model object may be used again", "[sara_finetune]") {
  const model_shape shape = small::shape();
  const packed_batch batch = small::batch_of(shape, {30, 41}, 11), other = small::batch_of(shape, {60, 60, 3}, 12);
  const std::vector<double> parameters = small::parameters(shape, 13);
  const auto logits_of = [&](const moe_model<double>& model) {
    const double* const first = model.router_logits()[0].data();
    return std::vector<double>(first, first + shape.layers * batch.token_count() * shape.experts);
  };
  moe_model<double> model(shape), used(shape);
  const double sum = model.forward(parameters, batch);
  std::vector<double> gradient(parameters.size()), again(parameters.size());
  model.backward(parameters, batch, {}, gradient);
  const std::vector<double> logits = logits_of(model);

  used.forward(parameters, other);
  CHECK(used.forward(parameters, batch) == sum);
  used.backward(parameters, batch, {}, again);
  CHECK(again == gradient);
  CHECK(used.forward(parameters, batch, pass::evaluation) == sum);
  packed_batch without_targets = batch;
  without_targets.targets.clear();
  without_targets.target_weights.clear();
  used.forward(parameters, other);
  CHECK(used.forward(parameters, without_targets, pass::routing) == 0);
  CHECK(logits_of(used) == logits);
  CHECK(used.balance().counts == model.balance().counts);
  CHECK(used.router_logits(1, 2)[0].data() == used.router_logits()[1].data());
  CHECK(used.router_logits(1, 2).layers() == 2);

  CHECK(used.forward(parameters, {.cu_seqlens = {0}}) == 0);   // no tokens at all
  std::vector<double> untouched(parameters.size(), 3);
  used.backward(parameters, {.cu_seqlens = {0}}, {}, untouched);
  CHECK(untouched == std::vector<double>(parameters.size(), 3));
}

TEST_CASE("moe_model: the same bits wherever the caller's memory lies", "[sara_finetune]") {
  const model_shape shape = small::shape();
  const packed_batch batch = small::batch_of(shape, {30, 1, 51}, 25);
  const std::vector<float> values = small::parameters<float>(shape, 26);
  const auto shifted_gradient = [&](std::size_t shift) {
    std::vector<float> memory(values.size() + shift), gradient(values.size() + 2 * shift);
    std::copy(values.begin(), values.end(), memory.begin() + static_cast<std::ptrdiff_t>(shift));
    const std::span<const float> parameters = std::span(memory).subspan(shift);
    moe_model<float> model(shape);
    model.forward(parameters, batch);
    std::vector<float> slopes;
    balance_slopes_into(shape, model.balance(), 0.5, slopes);
    model.backward(parameters, batch, {.loss_scale = 0.0123f, .balance_slopes = slopes}, std::span(gradient).subspan(2 * shift));
    return std::vector<float>(gradient.begin() + 2 * static_cast<std::ptrdiff_t>(shift), gradient.end());
  };
  const std::vector<float> expected = shifted_gradient(0);
  for (const std::size_t shift : {1u, 2u, 3u, 6u, 11u}) CHECK(shifted_gradient(shift) == expected);
}

TEST_CASE("rotary: scores depend on how far apart two positions are", "[sara_finetune]") {
  constexpr index_t head_width = 10;
  const rotary<double> positions(64, head_width);
  random_bits random(14);
  std::vector<double> query(head_width), key(head_width);
  for (double& each : query) each = random.normal();
  for (double& each : key) each = random.normal();
  const auto score = [&](index_t of_query, index_t of_key) {
    std::vector<double> q = query, k = key;
    positions.turn(q.data(), of_query, 1);
    positions.turn(k.data(), of_key, 1);
    return std::inner_product(q.begin(), q.end(), k.begin(), 0.0);
  };
  for (const index_t apart : {0, 1, 5, 31})
    for (const index_t shift : {1, 7, 32}) CHECK(score(apart + shift, shift) == Approx(score(apart, 0)).margin(1e-12));
  CHECK(std::abs(score(5, 0) - score(0, 0)) > 1e-3);
  CHECK(std::abs(score(5, 0) - score(0, 5)) > 1e-3);

  std::vector<double> there_and_back = query;
  positions.turn(there_and_back.data(), 41, 0.5);
  positions.turn_back(there_and_back.data(), 41, 2);
  CHECK(furthest(there_and_back, query) < 1e-12);
}

TEST_CASE("moe_model: learns one batch by heart", "[sara_finetune]") {
  const model_shape shape{.vocabulary = 40, .layers = 2, .width = 32, .heads = 2, .experts = 4, .chosen = 2, .hidden = 24, .context = 16};
  const packed_batch batch = small::batch_of(shape, {16, 12, 9, 16}, 15);
  const std::vector<parameter_block> all = blocks(shape);
  std::vector<float> parameters = initialize<float>(shape, 16), gradient(parameters.size());
  moe_model<float> model(shape);
  adamw_state<float> state;
  float total = 0;
  for (const float weight : batch.target_weights) total += weight;
  double first = 0, last = 0;
  constexpr int steps = 120;
  std::vector<float> slopes;
  for (int step = 0; step < steps; ++step) {
    last = model.forward(parameters, batch) / static_cast<double>(total);
    if (step == 0) first = last;
    balance_slopes_into(shape, model.balance(), 0.01, slopes);
    std::fill(gradient.begin(), gradient.end(), 0.f);
    model.backward(parameters, batch, {.loss_scale = 1 / total, .balance_slopes = slopes}, gradient);
    clip_gradient<float>(gradient, 1);
    adamw_step<float>({}, learning_rate_at(step, steps, 0.05, 2e-2), all, gradient, parameters, state);
  }
  INFO("from " << first << " to " << last);
  CHECK(first == Approx(std::log(40)).epsilon(0.1));
  CHECK(last < first / 10);
}

TEST_CASE("initialize: deviations by block, the same for a seed", "[sara_finetune]") {
  const model_shape shape;
  const std::vector<float> parameters = initialize<float>(shape, 17);
  const std::vector<parameter_block> all = blocks(shape);
  REQUIRE(all.size() == 2 + 7 * 6);
  REQUIRE(parameter_count(all) == static_cast<index_t>(parameters.size()));
  index_t offset = 0;
  for (const parameter_block& block : all) {
    CHECK(block.offset == offset);
    offset += block.size();
    const bool is_norm = block.name.find("norm") != std::string::npos, is_out = block.name.find("_out") != std::string::npos;
    CHECK(block.decays == !is_norm);
    const auto values = map_row(parameters.data() + block.offset, block.size()).cast<double>().eval();
    const double deviation = is_out ? 0.02 / std::sqrt(12.0) : 0.02, count = static_cast<double>(block.size());
    if (is_norm) {
      CHECK((values == 1).all());
    } else {
      CHECK(std::abs(values.mean()) < 5 * deviation / std::sqrt(count));
      CHECK(std::sqrt(values.square().mean()) == Approx(deviation).epsilon(5 / std::sqrt(2 * count)));
      CHECK((values.abs() < deviation).cast<double>().mean() == Approx(0.6827).margin(3 / std::sqrt(count)));
    }
  }
  CHECK(initialize<float>(shape, 17) == parameters);
  CHECK(initialize<float>(shape, 18) != parameters);
  // Fixed, so that a run can be repeated elsewhere.
  random_bits random(1);
  CHECK(random.normal() == Approx(-0.034267321791851144).epsilon(1e-12));
}

TEST_CASE("balance_loss: 1 where experts are used equally, experts where one does all", "[sara_finetune]") {
  const model_shape shape{.layers = 2, .experts = 4, .chosen = 2};
  balance_statistics even{.tokens = 10, .counts = std::vector<std::int64_t>(8, 5), .probability_sums = std::vector<double>(8, 2.5)};
  CHECK(balance_loss(shape, even) == Approx(1));
  balance_statistics uneven = even;
  uneven.counts = {10, 10, 0, 0, 5, 5, 5, 5};
  uneven.probability_sums = {5, 5, 0, 0, 2.5, 2.5, 2.5, 2.5};
  CHECK(balance_loss(shape, uneven) == Approx((2 + 1) / 2.0));
  CHECK(balance_loss(shape, {.counts = std::vector<std::int64_t>(8), .probability_sums = std::vector<double>(8)}) == 0);
  balance_statistics foreign;
  foreign.reset({.layers = 3, .experts = 4}, 10);
  CHECK(small::complaint([&] { even += foreign; }) ==
        "balance statistics must be of one model to be added, but have 8 and 12 experts in all layers");
}
