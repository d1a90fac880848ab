// Gates composed of the pieces, down to a divergence of what they chose: the whole gradient against central differences and
// against the formula of the gate.
#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using sara::matrix_view;

constexpr std::size_t tokens = 5, experts = 7;

struct gate {
  std::string name;
  std::size_t k;   // experts: the softmax over all
  bool renormalize;
  double scale = 1;
};

// One sequence through a gate: the divergence of its chosen weights' histogram from `anchor`, and the gradient on the logits.
template <class Executor> class chain {
 public:
  chain(const Executor& exec, const gate& g, const std::vector<double>& anchor) : exec_(exec), gate_(g), anchor_(anchor) {}

  double loss(const std::vector<double>& logits) {
    sara::gate_softmax_into(exec_, sara::gate_softmax_inputs<double>{.logits = matrix_view{logits.data(), tokens, experts}},
                            {.probs = matrix_view{probs.data(), tokens, experts}});
    sara::top_k_into(exec_,
                     sara::top_k_inputs<double>{.scores = matrix_view{logits.data(), tokens, experts},
                                                .values = matrix_view{probs.data(), tokens, experts}},
                     {.indices = matrix_view{chosen.data(), tokens, gate_.k}, .weights = matrix_view{weights.data(), tokens, gate_.k}},
                     {.renormalize = gate_.renormalize, .scale = gate_.scale});
    sara::hard_routing_histogram_into(
        exec_,
        sara::hard_routing_histogram_inputs<double>{.indices = matrix_view<const std::int32_t>{chosen.data(), tokens, gate_.k},
                                                    .experts = experts,
                                                    .sequences = one,
                                                    .weights = matrix_view<const double>{weights.data(), tokens, gate_.k}},
        {.histograms = matrix_view{histogram.data(), 1, experts}});
    std::vector<double> divergence(1);
    sara::js_divergence_into(
        exec_,
        sara::js_divergence_inputs<double>{.p = matrix_view{anchor_.data(), 1, experts}, .q = matrix_view{histogram.data(), 1, experts}},
        {.divergence = divergence, .grad_q = matrix_view{slopes.data(), 1, experts}});
    return divergence[0];
  }

  std::vector<double> gradient(const std::vector<double>& logits) {
    loss(logits);
    std::vector<double> grad_weights(tokens * gate_.k), grad_probs(tokens * experts), grad(tokens * experts, NAN);
    const matrix_view<const std::int32_t> indices{chosen.data(), tokens, gate_.k};
    sara::hard_routing_histogram_backward_into(
        exec_,
        sara::hard_routing_histogram_backward_inputs<double>{
            .indices = indices, .sequences = one, .grad_histograms = matrix_view{slopes.data(), 1, experts}},
        {.grad_weights = matrix_view{grad_weights.data(), tokens, gate_.k}});
    sara::top_k_backward_into(exec_,
                              sara::top_k_backward_inputs<double>{.indices = indices,
                                                                  .grad_weights = matrix_view{grad_weights.data(), tokens, gate_.k},
                                                                  .values = matrix_view{probs.data(), tokens, experts}},
                              {.grad_values = matrix_view{grad_probs.data(), tokens, experts}},
                              {.renormalize = gate_.renormalize, .scale = gate_.scale});
    sara::gate_softmax_backward_into(
        exec_,
        sara::gate_softmax_backward_inputs<double>{.probs = matrix_view{probs.data(), tokens, experts},
                                                   .grad_probs = matrix_view{grad_probs.data(), tokens, experts}},
        {.grad_logits = matrix_view{grad.data(), tokens, experts}});
    return grad;
  }

  // The table of gates: renormalised, on the chosen set only, c w_j (g_j - sum w g); else c p_j (v_j - sum p v), v = g on the set.
  std::vector<double> formula(const std::vector<double>& logits) {
    loss(logits);
    std::vector<double> grad(tokens * experts, 0);
    for (std::size_t t = 0; t < tokens; ++t) {
      const auto p = oracle::softmax(logits.data() + t * experts, experts);
      std::vector<double> share = p, v(experts, 0);
      const auto set = oracle::top_k(logits.data() + t * experts, experts, gate_.k);
      for (const std::int64_t e : set) v[static_cast<std::size_t>(e)] = slopes[static_cast<std::size_t>(e)];
      if (gate_.renormalize) {
        double sum = 0;
        for (const std::int64_t e : set) sum += p[static_cast<std::size_t>(e)];
        share.assign(experts, 0);
        for (const std::int64_t e : set) share[static_cast<std::size_t>(e)] = p[static_cast<std::size_t>(e)] / sum;
      }
      const auto g = oracle::softmax_backward(share.data(), v.data(), experts);
      for (std::size_t e = 0; e < experts; ++e) grad[t * experts + e] = gate_.scale / tokens * g[e];
    }
    return grad;
  }

 private:
  const Executor& exec_;
  const gate& gate_;
  const std::vector<double>& anchor_;
  sara::sequences_view one = sara::sequences_view::uniform(1, tokens);
  std::vector<double> probs = std::vector<double>(tokens * experts), weights = std::vector<double>(tokens * experts),
                      histogram = std::vector<double>(experts), slopes = std::vector<double>(experts);
  std::vector<std::int32_t> chosen = std::vector<std::int32_t>(tokens * experts);
};

}   // namespace

TEST_CASE("gates: softmax over all; softmax, top-k, renormalised; softmax, top-k, not renormalised", "[top_k]") {
  const gate gates[] = {{"softmax over all", experts, false},
                        {"softmax, top-3, renormalised", 3, true},
                        {"softmax, top-3", 3, false},
                        {"softmax, top-2, scaled", 2, true, 2.5}};
  oracle::source from(1);
  auto logits = from.normals(tokens * experts, 1.5);
  logits[experts + 2] = -std::numeric_limits<double>::infinity();
  const auto anchor = oracle::distributions(from, 1, experts);
  auto finite = logits;
  finite[experts + 2] = -3;
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    for (const gate& g : gates) {
      INFO(name << ", " << g.name);
      chain whole(exec, g, anchor);
      const auto got = whole.gradient(finite),
                 want = oracle::central_differences([&](const std::vector<double>&z) { return whole.loss(z); }, finite, 1e-4);
      CHECK(oracle::relative_error(got, want) <= 1e-8);
      CHECK(oracle::relative_error(got, whole.formula(finite)) <= 1e-13);
      const auto masked = whole.gradient(logits);   // a hidden expert, which a top-k may yet not need
      CHECK(oracle::relative_error(masked, whole.formula(logits)) <= 1e-13);
      CHECK(masked[experts + 2] == 0);
      for (std::size_t t = 0; t < tokens; ++t) {   // rows of softmax gates sum to 0
        double sum = 0;
        for (std::size_t e = 0; e < experts; ++e) sum += got[t * experts + e];
        CHECK(std::abs(sum) <= 1e-15);
      }
    }
  });
}

TEST_CASE("gates: top-k then softmax is softmax, top-k, renormalised", "[top_k]") {
  oracle::source from(2);
  const auto logits = from.normals(tokens * experts, 2);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    constexpr std::size_t k = 3;
    std::vector<double> probs(tokens * experts), weights(tokens * k), best(tokens * k), other(tokens * k);
    std::vector<std::int32_t> chosen(tokens * k);
    sara::gate_softmax_into(exec, sara::gate_softmax_inputs<double>{.logits = matrix_view{logits.data(), tokens, experts}},
                            {.probs = matrix_view{probs.data(), tokens, experts}});
    sara::top_k_into(exec,
                     sara::top_k_inputs<double>{.scores = matrix_view{logits.data(), tokens, experts},
                                                .values = matrix_view{probs.data(), tokens, experts}},
                     {.weights = matrix_view{weights.data(), tokens, k}}, {.renormalize = true});
    sara::top_k_into(exec, sara::top_k_inputs<double>{.scores = matrix_view{logits.data(), tokens, experts}},
                     {.indices = matrix_view{chosen.data(), tokens, k}, .weights = matrix_view{best.data(), tokens, k}});
    sara::gate_softmax_into(exec, sara::gate_softmax_inputs<double>{.logits = matrix_view{best.data(), tokens, k}},
                            {.probs = matrix_view{other.data(), tokens, k}});
    CHECK(oracle::relative_error(weights, other) <= 1e-14);
  });
}
