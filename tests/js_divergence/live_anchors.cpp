// The loss from its pieces: equal to js_routing, and with an anchor that is itself computed from logits, both sides' gradients.
#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/js_routing.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::for_each_executor;
using sara::layers_view, sara::matrix_view;

// One batch of [layers, tokens, experts] logits with token weights.
struct side {
  std::size_t tokens;
  sara::sequences_view sequences;
  std::vector<double> logits, weights;
};

constexpr std::size_t layers = 2, sequences = 3, experts = 6, rows = layers * sequences;

template <class Executor> std::vector<double> histogram_of(const Executor& exec, const side& in, const std::vector<double>& logits) {
  std::vector<double> h(rows * experts);
  sara::routing_histogram_into(
      exec,
      sara::routing_histogram_inputs<double>{.logits = layers_view<const double>{logits.data(), layers, in.tokens, experts},
                                             .sequences = in.sequences,
                                             .token_weights = in.weights},
      {.histograms = layers_view<double>{h.data(), layers, sequences, experts}});
  return h;
}

template <class Executor>
std::vector<double> logits_gradient(const Executor& exec, const side& in, const std::vector<double>& grad_histograms) {
  std::vector<double> g(in.logits.size(), NAN);
  sara::routing_histogram_backward_into(
      exec,
      sara::routing_histogram_backward_inputs<double>{
          .logits = layers_view<const double>{in.logits.data(), layers, in.tokens, experts},
          .sequences = in.sequences,
          .token_weights = in.weights,
          .grad_histograms = layers_view<const double>{grad_histograms.data(), layers, sequences, experts}},
      {.grad_logits = layers_view<double>{g.data(), layers, in.tokens, experts}});
  return g;
}

// Mean over layers and sequences of JS, and its slopes if wanted.
template <class Executor>
double loss_of(const Executor& exec, const std::vector<double>& p, const std::vector<double>& q, std::vector<double>* grad_p = nullptr,
               std::vector<double>* grad_q = nullptr) {
  std::vector<double> divergence(rows);
  sara::js_divergence_outputs<double> out{.divergence = divergence};
  for (auto* g : {grad_p, grad_q})
    if (g) g->resize(rows * experts);
  if (grad_p) out.grad_p = matrix_view{grad_p->data(), rows, experts};
  if (grad_q) out.grad_q = matrix_view{grad_q->data(), rows, experts};
  sara::js_divergence_into(
      exec, sara::js_divergence_inputs<double>{.p = matrix_view{p.data(), rows, experts}, .q = matrix_view{q.data(), rows, experts}}, out,
      {.scale = 1.0 / rows});
  double sum = 0;
  for (const double d : divergence) sum += d / rows;
  return sum;
}

side some_side(unsigned seed, bool interleaved) {
  oracle::source from(seed);
  const std::size_t length = interleaved ? 4 : 5, tokens = sequences * length;
  side in{tokens,
          interleaved ? sara::sequences_view::interleaved(static_cast<sara::index_t>(length), static_cast<sara::index_t>(sequences))
                      : sara::sequences_view::uniform(static_cast<sara::index_t>(sequences), static_cast<sara::index_t>(length)),
          from.normals(layers * tokens * experts, 1.5), from.uniforms(tokens, 0, 2)};
  in.weights[1] = 0;
  return in;
}

}   // namespace

TEST_CASE("live anchors: both sides' gradients against central differences", "[js_divergence][precision]") {
  const side local = some_side(1, false), anchor = some_side(2, true);
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    const auto p = histogram_of(exec, anchor, anchor.logits), q = histogram_of(exec, local, local.logits);
    std::vector<double> grad_p, grad_q;
    loss_of(exec, p, q, &grad_p, &grad_q);
    const auto want_local = oracle::central_differences(
        [&](const std::vector<double>& z) { return loss_of(exec, p, histogram_of(exec, local, z)); }, local.logits);
    const auto want_anchor = oracle::central_differences(
        [&](const std::vector<double>& z) { return loss_of(exec, histogram_of(exec, anchor, z), q); }, anchor.logits);
    const auto got_local = logits_gradient(exec, local, grad_q), got_anchor = logits_gradient(exec, anchor, grad_p);
    CHECK(oracle::relative_error(got_local, want_local) <= 1e-8);
    CHECK(oracle::relative_error(got_anchor, want_anchor) <= 1e-8);
    CHECK(oracle::relative_error(got_anchor, want_local) > 1e-2);   // the sides are told apart
    for (const double factor : {0.0, 2.0, -1.0}) {
      auto wrong = got_anchor;
      for (double& x : wrong) x *= factor;
      CHECK(oracle::relative_error(wrong, want_anchor) > 0.5);
    }
  });
}

TEST_CASE("pieces: histogram, divergence and histogram's gradient make js_routing", "[js_divergence][precision]") {
  const side local = some_side(3, false);
  oracle::source from(4);
  const auto anchors = oracle::distributions(from, rows, experts);
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    std::vector<double> loss(1), grad(local.logits.size(), NAN), grad_q;
    sara::js_routing_into(
        exec,
        sara::js_routing_inputs<double>{.logits = layers_view<const double>{local.logits.data(), layers, local.tokens, experts},
                                        .sequences = local.sequences,
                                        .anchors = layers_view<const double>{anchors.data(), layers, sequences, experts},
                                        .token_weights = local.weights},
        {.loss = loss, .grad_logits = layers_view<double>{grad.data(), layers, local.tokens, experts}});
    const double piecewise = loss_of(exec, anchors, histogram_of(exec, local, local.logits), nullptr, &grad_q);
    CHECK(std::abs(piecewise - loss[0]) <= 1e-14);
    CHECK(oracle::relative_error(logits_gradient(exec, local, grad_q), grad) <= 1e-13);
  });
}

TEST_CASE("pieces: softmax, every expert chosen, hard histogram and their gradients make js_routing too", "[js_divergence][precision]") {
  const side local = some_side(5, true);
  oracle::source from(6);
  const auto anchors = oracle::distributions(from, rows, experts);
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    const std::size_t all = layers * local.tokens;   // rows of the gate
    std::vector<double> loss(1), grad(local.logits.size()), probs(grad.size()), weights(grad.size()), h(rows * experts), grad_q,
        grad_weights(grad.size()), grad_probs(grad.size()), got(grad.size());
    std::vector<std::int32_t> chosen(grad.size());
    const layers_view<const std::int32_t> indices{chosen.data(), layers, local.tokens, experts};
    sara::js_routing_into(
        exec,
        sara::js_routing_inputs<double>{.logits = layers_view<const double>{local.logits.data(), layers, local.tokens, experts},
                                        .sequences = local.sequences,
                                        .anchors = layers_view<const double>{anchors.data(), layers, sequences, experts},
                                        .token_weights = local.weights},
        {.loss = loss, .grad_logits = layers_view<double>{grad.data(), layers, local.tokens, experts}});

    sara::gate_softmax_into(exec, sara::gate_softmax_inputs<double>{.logits = matrix_view{local.logits.data(), all, experts}},
                            {.probs = matrix_view{probs.data(), all, experts}});
    sara::top_k_into(exec,
                     sara::top_k_inputs<double>{.scores = matrix_view{local.logits.data(), all, experts},
                                                .values = matrix_view{probs.data(), all, experts}},
                     {.indices = matrix_view{chosen.data(), all, experts}, .weights = matrix_view{weights.data(), all, experts}});
    sara::hard_routing_histogram_into(
        exec,
        sara::hard_routing_histogram_inputs<double>{.indices = indices,
                                                    .experts = experts,
                                                    .sequences = local.sequences,
                                                    .token_weights = local.weights,
                                                    .weights = layers_view<const double>{weights.data(), layers, local.tokens, experts}},
        {.histograms = layers_view<double>{h.data(), layers, sequences, experts}});
    CHECK(std::abs(loss_of(exec, anchors, h, nullptr, &grad_q) - loss[0]) <= 1e-14);
    sara::hard_routing_histogram_backward_into(exec,
                                               sara::hard_routing_histogram_backward_inputs<double>{
                                                   .indices = indices,
                                                   .sequences = local.sequences,
                                                   .token_weights = local.weights,
                                                   .grad_histograms = layers_view<const double>{grad_q.data(), layers, sequences, experts}},
                                               {.grad_weights = layers_view<double>{grad_weights.data(), layers, local.tokens, experts}});
    sara::top_k_backward_into(exec,
                              sara::top_k_backward_inputs<double>{.indices = matrix_view<const std::int32_t>{chosen.data(), all, experts},
                                                                  .grad_weights = matrix_view{grad_weights.data(), all, experts}},
                              {.grad_values = matrix_view{grad_probs.data(), all, experts}});
    sara::gate_softmax_backward_into(exec,
                                     sara::gate_softmax_backward_inputs<double>{.probs = matrix_view{probs.data(), all, experts},
                                                                                .grad_probs = matrix_view{grad_probs.data(), all, experts}},
                                     {.grad_logits = matrix_view{got.data(), all, experts}});
    CHECK(oracle::relative_error(got, grad) <= 1e-13);
  });
}
