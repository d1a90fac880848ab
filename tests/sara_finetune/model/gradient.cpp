// The whole model's gradient against central differences: cross-entropy, balance loss and SARA loss, each parameter block.
#include <sara/js_routing.hpp>

#include <optional>

#include "catch.hpp"
#include "small_model.hpp"

namespace {

using namespace sara_finetune;

struct weights_of_losses {
  double cross_entropy, balance, sara;
};

// Loss and gradient of a small batch, as a trainer puts them together.
class objective {
 public:
  static constexpr index_t window_begin = 1, window_layers = 2;

  objective(const model_shape& shape, const weights_of_losses& weights, const std::vector<int>& lengths)
      : shape_(shape), weights_(weights), model_(shape), batch_(small::batch_of(shape, lengths, 21)) {
    for (const float weight : batch_.target_weights) total_ += static_cast<double>(weight);
    random_bits random(22);
    for (index_t row = 0; row < window_layers * batch_.sequence_count(); ++row) {
      std::vector<double> anchor(static_cast<std::size_t>(shape.experts));
      double sum = 0;
      for (double& each : anchor) sum += each = std::exp(random.normal());
      for (const double each : anchor) anchors_.push_back(each / sum);
    }
    grad_logits_.resize(static_cast<std::size_t>(window_layers * batch_.token_count() * shape.experts));
  }

  double loss(const std::vector<double>& parameters) {
    const double sum = model_.forward(parameters, batch_);
    return weights_.cross_entropy * sum / total_ + weights_.balance * balance_loss(shape_, model_.balance()) +
           sara::js_routing(cpu_, routing(), {.scale = weights_.sara});
  }

  std::vector<double> gradient(const std::vector<double>& parameters) {
    model_.forward(parameters, batch_);
    std::vector<double> slopes, gradient(parameters.size());
    balance_slopes_into(shape_, model_.balance(), weights_.balance, slopes);
    const sara::layers_view<double> grad_logits{grad_logits_.data(), window_layers, batch_.token_count(), shape_.experts};
    sara::js_routing_into(cpu_, routing(), {.grad_logits = grad_logits}, {.scale = weights_.sara});
    model_.backward(
        parameters, batch_,
        {.loss_scale = weights_.cross_entropy / total_, .balance_slopes = slopes, .grad_logits = grad_logits, .window_begin = window_begin},
        gradient);
    return gradient;
  }

  // Of the last loss: each token's set of experts in each layer.
  std::vector<std::vector<std::int32_t>> chosen_sets() const {
    std::vector<std::vector<std::int32_t>> sets;
    for (index_t l = 0; l < shape_.layers; ++l)
      for (index_t t = 0; t < batch_.token_count(); ++t) {
        const std::int32_t* const first = model_.chosen()[l].row(t);
        sets.emplace_back(first, first + shape_.chosen);
        std::sort(sets.back().begin(), sets.back().end());
      }
    return sets;
  }

 private:
  sara::js_routing_inputs<double> routing() const {
    return {.logits = model_.router_logits(window_begin, window_layers),
            .sequences = sara::sequences_view::packed(batch_.cu_seqlens),
            .anchors = {anchors_.data(), window_layers, batch_.sequence_count(), shape_.experts}};
  }

  sara::cpu_executor cpu_{.threads = 1};
  model_shape shape_;
  weights_of_losses weights_;
  moe_model<double> model_;
  packed_batch batch_;
  double total_ = 0;
  std::vector<double> anchors_, grad_logits_;
};

// One block's share of the check.
struct block_check {
  double norm = 0;   // of its gradient
  double off = 0;    // how far from central differences
  int held = 0, left_out = 0;
};

class differences {
 public:
  differences(const model_shape& shape, const weights_of_losses& weights, const std::vector<int>& lengths)
      : objective_(shape, weights, lengths), parameters_(small::parameters(shape, 23)), gradient_(objective_.gradient(parameters_)) {
    objective_.loss(parameters_);
    sets_ = objective_.chosen_sets();
  }

  // `off`: the largest difference of slopes, along random directions of length 1.
  block_check along_directions(const parameter_block& block) {
    block_check result{.norm = of(block).norm()};
    random_bits random(static_cast<std::uint64_t>(block.offset) + 24);
    std::vector<double> direction(static_cast<std::size_t>(block.size()));
    const auto as_vector = map_row(direction.data(), block.size()).matrix();
    for (int i = 0; i < 4; ++i) {
      for (double& each : direction) each = random.normal();
      map_row(direction.data(), block.size()) /= as_vector.norm();
      if (const auto slope = slope_along(block, direction, result))
        result.off = std::max(result.off, std::abs(of(block).dot(as_vector) - *slope));
    }
    return result;
  }

  // `off`: the Euclidean norm of the difference, over all entries.
  block_check entry_by_entry(const parameter_block& block) {
    block_check result{.norm = of(block).norm()};
    std::vector<double> direction(static_cast<std::size_t>(block.size()));
    for (index_t i = 0; i < block.size(); ++i) {
      direction[static_cast<std::size_t>(i)] = 1;
      if (const auto slope = slope_along(block, direction, result)) result.off = std::hypot(result.off, of(block)(i) - *slope);
      direction[static_cast<std::size_t>(i)] = 0;
    }
    return result;
  }

 private:
  Eigen::Map<const Eigen::RowVectorXd> of(const parameter_block& block) const { return {gradient_.data() + block.offset, block.size()}; }

  // By central differences; nothing where a token's set of experts changes within the step.
  std::optional<double> slope_along(const parameter_block& block, const std::vector<double>& direction, block_check& result) {
    constexpr double step = 1e-5;
    bool same_sets = true;
    const auto loss_at = [&](double distance) {
      std::vector<double> moved = parameters_;
      for (std::size_t i = 0; i < direction.size(); ++i) moved[static_cast<std::size_t>(block.offset) + i] += distance * direction[i];
      const double loss = objective_.loss(moved);
      same_sets = same_sets && objective_.chosen_sets() == sets_;
      return loss;
    };
    const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
    ++(same_sets ? result.held : result.left_out);
    return same_sets ? std::optional(slope) : std::nullopt;
  }

  objective objective_;
  std::vector<double> parameters_, gradient_;
  std::vector<std::vector<std::int32_t>> sets_;
};

// Blocks of which `reaches` is false must have no gradient at all.
void check_block(const parameter_block& block, const block_check& result, bool reaches) {
  INFO(block.name << ": norm " << result.norm << ", off by " << result.off << ", left out " << result.left_out << " of "
                  << result.left_out + result.held);
  CHECK(result.left_out <= result.held);
  if (reaches) {
    CHECK(result.norm > 1e-5);
    CHECK(result.off <= 1e-6 * result.norm);
  } else {
    CHECK(result.norm == 0);
    CHECK(result.off < 1e-9);
  }
}

template <class Reaches> void check_all(const model_shape& shape, const weights_of_losses& weights, const Reaches& reaches) {
  differences all(shape, weights, {9, 52, 1, 14});
  for (const parameter_block& block : blocks(shape)) check_block(block, all.along_directions(block), reaches(block.name));
}

bool begins_with_any(const std::string& name, std::initializer_list<const char*> beginnings) {
  return std::any_of(beginnings.begin(), beginnings.end(), [&](const char* each) { return name.starts_with(each); });
}

}   // namespace

TEST_CASE("moe_model: every entry of the gradient of all losses together is right", "[sara_finetune]") {
  const model_shape shape{.vocabulary = 11, .layers = 3, .width = 8, .heads = 2, .experts = 4, .chosen = 2, .hidden = 5, .context = 12};
  differences all(shape, {.cross_entropy = 1, .balance = 0.5, .sara = 3}, {7, 1, 12});
  int left_out = 0;
  for (const parameter_block& block : blocks(shape)) {
    const block_check result = all.entry_by_entry(block);
    check_block(block, result, true);
    left_out += result.left_out;
  }
  CHECK(left_out < parameter_count(blocks(shape)) / 100);
}

TEST_CASE("moe_model: the gradient of all losses together is right in every block", "[sara_finetune]") {
  check_all(small::shape(), {.cross_entropy = 1, .balance = 0.5, .sara = 3}, [](const std::string&) { return true; });
}

TEST_CASE("moe_model: so it is for one expert a token, and for all of them", "[sara_finetune]") {
  for (const int chosen : {1, 5}) {
    model_shape shape = small::shape();
    shape.chosen = chosen;
    check_all(shape, {.cross_entropy = 1, .balance = 0.5, .sara = 3}, [](const std::string&) { return true; });
  }
}

TEST_CASE("moe_model: the gradient of the SARA loss alone reaches all that leads to its window", "[sara_finetune]") {
  check_all(small::shape(), {.cross_entropy = 0, .balance = 0, .sara = 1}, [](const std::string& name) {
    return !begins_with_any(name, {"layer.2.experts", "layer.3", "final"});
  });
}

TEST_CASE("moe_model: the gradient of the balance loss alone reaches all that leads to a router", "[sara_finetune]") {
  check_all(small::shape(), {.cross_entropy = 0, .balance = 1, .sara = 0}, [](const std::string& name) {
    return !begins_with_any(name, {"layer.3.experts", "final"});
  });
}

TEST_CASE("moe_model: the gradient of the cross-entropy alone is right in every block", "[sara_finetune]") {
  check_all(small::shape(), {.cross_entropy = 1, .balance = 0, .sara = 0}, [](const std::string&) { return true; });
}
