// eigen_executor with scalars that no kernel knows: long double, to its own precision, and AutoDiffScalar, whose derivatives
// must be the gradients that the library computes.
#include <Eigen/Core>
#include <unsupported/Eigen/AutoDiff>

#include <sara/eigen.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using sara::matrix_view;

constexpr std::size_t tokens = 6, experts = 5, sequences = 2, inputs = tokens * experts;
using derivatives = Eigen::Matrix<double, static_cast<int>(inputs), 1>;
using dual = Eigen::AutoDiffScalar<derivatives>;
const sara::eigen_executor exec;
const auto batch = sara::sequences_view::uniform(sequences, 3);

// Values that each derive to themselves.
std::vector<dual> variables(const std::vector<double>& v) {
  std::vector<dual> out;
  for (std::size_t i = 0; i < v.size(); ++i) out.emplace_back(v[i], derivatives(derivatives::Unit(static_cast<Eigen::Index>(i))));
  return out;
}
std::vector<dual> constants(const std::vector<double>& v) { return {v.begin(), v.end()}; }

double worst(const derivatives& got, const std::vector<double>& want) {
  return oracle::relative_error(std::vector<double>(got.data(), got.data() + got.size()), want);
}

struct data {
  std::vector<double> logits, anchors, weights;
  explicit data(unsigned seed) {
    oracle::source from(seed);
    logits = from.normals(inputs, 1.5);
    anchors = oracle::distributions(from, sequences, experts);
    weights = from.uniforms(tokens, 0, 2);
    weights[4] = 0;
  }
};

std::vector<double> gradient_in_double(const data& d, const std::vector<double>& logits) {
  std::vector<double> grad(inputs);
  sara::js_routing_into(exec,
                        sara::js_routing_inputs<double>{.logits = matrix_view{logits.data(), tokens, experts},
                                                        .sequences = batch,
                                                        .anchors = matrix_view{d.anchors.data(), sequences, experts},
                                                        .token_weights = d.weights},
                        {.grad_logits = matrix_view{grad.data(), tokens, experts}}, {.scale = 1.5});
  return grad;
}

}   // namespace

TEST_CASE("eigen: the derivatives of js_routing's loss are its gradient; those of its gradient are its differences", "[eigen]") {
  const data d(1);
  const auto z = variables(d.logits), anchors = constants(d.anchors), weights = constants(d.weights);
  std::vector<dual> loss(1), grad(inputs);
  sara::js_routing_into(exec,
                        sara::js_routing_inputs<dual>{.logits = matrix_view{z.data(), tokens, experts},
                                                      .sequences = batch,
                                                      .anchors = matrix_view{anchors.data(), sequences, experts},
                                                      .token_weights = weights},
                        {.loss = loss, .grad_logits = matrix_view{grad.data(), tokens, experts}}, {.scale = 1.5});
  std::vector<double> values;
  for (const dual& g : grad) values.push_back(g.value());
  CHECK(oracle::relative_error(values, gradient_in_double(d, d.logits)) <= 1e-14);
  CHECK(worst(loss[0].derivatives(), values) <= 1e-13);
  auto zeros = values;
  for (double& x : zeros) x = 0;
  CHECK(worst(loss[0].derivatives(), zeros) > 1);   // the comparison is not of nothing

  for (const std::size_t i : {std::size_t{0}, std::size_t{7}, inputs - 1}) {   // rows of the Hessian
    const auto want =
        oracle::central_differences([&](const std::vector<double>& logits) { return gradient_in_double(d, logits)[i]; }, d.logits);
    CHECK(worst(grad[i].derivatives(), want) <= 1e-8);
  }
}

TEST_CASE("eigen: derivatives flow through every piece", "[eigen]") {
  const data d(2);
  oracle::source from(3);
  const auto z = variables(d.logits);
  std::vector<dual> probs(inputs), lse(tokens), h(sequences * experts), top(tokens * 2), divergence(sequences);
  std::vector<std::int32_t> chosen(tokens * 2);
  const std::vector<double> g = from.normals(inputs);

  // softmax
  sara::gate_softmax_into(exec, sara::gate_softmax_inputs<dual>{.logits = matrix_view{z.data(), tokens, experts}},
                          {.probs = matrix_view{probs.data(), tokens, experts}, .log_sum_exp = lse});
  dual sum = lse[1];
  for (std::size_t i = 0; i < inputs; ++i) sum += probs[i] * g[i];
  std::vector<double> p(inputs), lse_weight(tokens, 0), grad(inputs);
  for (std::size_t i = 0; i < inputs; ++i) p[i] = probs[i].value();
  lse_weight[1] = 1;
  sara::gate_softmax_backward_into(exec,
                                   sara::gate_softmax_backward_inputs<double>{.probs = matrix_view{p.data(), tokens, experts},
                                                                              .grad_probs = matrix_view{g.data(), tokens, experts},
                                                                              .grad_log_sum_exp = lse_weight},
                                   {.grad_logits = matrix_view{grad.data(), tokens, experts}});
  CHECK(worst(sum.derivatives(), grad) <= 1e-13);

  // top-k, renormalised
  sara::top_k_into(
      exec,
      sara::top_k_inputs<dual, dual>{.scores = matrix_view{z.data(), tokens, experts},
                                     .values = matrix_view<const dual>{probs.data(), tokens, experts}},
      sara::top_k_outputs<dual>{.indices = matrix_view{chosen.data(), tokens, 2}, .weights = matrix_view{top.data(), tokens, 2}},
      {.renormalize = true});
  dual chosen_sum = top[0] * g[0];
  for (std::size_t i = 1; i < top.size(); ++i) chosen_sum += top[i] * g[i];
  std::vector<double> grad_probs(inputs);
  sara::top_k_backward_into(exec,
                            sara::top_k_backward_inputs<double>{.indices = matrix_view<const std::int32_t>{chosen.data(), tokens, 2},
                                                                .grad_weights = matrix_view{g.data(), tokens, 2},
                                                                .values = matrix_view{p.data(), tokens, experts}},
                            {.grad_values = matrix_view{grad_probs.data(), tokens, experts}}, {.renormalize = true});
  sara::gate_softmax_backward_into(
      exec,
      sara::gate_softmax_backward_inputs<double>{.probs = matrix_view{p.data(), tokens, experts},
                                                 .grad_probs = matrix_view{grad_probs.data(), tokens, experts}},
      {.grad_logits = matrix_view{grad.data(), tokens, experts}});
  CHECK(worst(chosen_sum.derivatives(), grad) <= 1e-13);

  // histogram and divergence, both sides alive
  sara::routing_histogram_into(exec,
                               sara::routing_histogram_inputs<dual>{.logits = matrix_view{z.data(), tokens, experts}, .sequences = batch},
                               {.histograms = matrix_view{h.data(), sequences, experts}});
  const std::vector<dual> swapped{h[5], h[6], h[7], h[8], h[9], h[0], h[1], h[2], h[3], h[4]};
  sara::js_divergence_into(exec,
                           sara::js_divergence_inputs<dual>{.p = matrix_view<const dual>{h.data(), sequences, experts},
                                                            .q = matrix_view{swapped.data(), sequences, experts}},
                           {.divergence = divergence});
  const auto divergence_of = [&](const std::vector<double>& logits) {
    std::vector<double> q(sequences * experts), one(1);
    sara::routing_histogram_into(
        exec, sara::routing_histogram_inputs<double>{.logits = matrix_view{logits.data(), tokens, experts}, .sequences = batch},
        {.histograms = matrix_view{q.data(), sequences, experts}});
    sara::js_divergence_into(exec,
                             sara::js_divergence_inputs<double>{.p = matrix_view<const double>{q.data(), 1, experts},
                                                                .q = matrix_view<const double>{q.data() + experts, 1, experts}},
                             {.divergence = one});
    return one[0];
  };
  CHECK(std::abs(divergence[0].value() - divergence_of(d.logits)) <= 1e-15);
  CHECK(worst(divergence[0].derivatives(), oracle::central_differences(divergence_of, d.logits)) <= 1e-8);
}

TEST_CASE("eigen: long double keeps its own precision", "[eigen]") {
  constexpr long double tolerance = 1e-17L;   // double's would be 2e-16
  oracle::source from(4);
  for (const std::size_t n : {std::size_t{1}, std::size_t{5}, std::size_t{64}}) {
    const auto z = oracle::as<long double>(from.normals(4 * n, 2)), anchors = oracle::as<long double>(oracle::distributions(from, 2, n));
    std::vector<long double> probs(4 * n), lse(4), h(2 * n), grad(4 * n), divergence(2), loss(1), slopes(2 * n);
    sara::gate_softmax_into(exec, sara::gate_softmax_inputs<long double>{.logits = matrix_view{z.data(), 4, n}},
                            {.probs = matrix_view{probs.data(), 4, n}, .log_sum_exp = lse});
    sara::js_routing_into(exec,
                          sara::js_routing_inputs<long double>{.logits = matrix_view{z.data(), 4, n},
                                                               .sequences = sara::sequences_view::uniform(2, 2),
                                                               .anchors = matrix_view{anchors.data(), 2, n}},
                          {.loss = loss, .histograms = matrix_view{h.data(), 2, n}, .grad_logits = matrix_view{grad.data(), 4, n}});
    sara::js_divergence_into(exec,
                             sara::js_divergence_inputs<long double>{.p = matrix_view<const long double>{h.data(), 2, n},
                                                                     .q = matrix_view{anchors.data(), 2, n}},
                             {.divergence = divergence, .grad_p = matrix_view{slopes.data(), 2, n}});
    long double worst_prob = 0, worst_divergence = 0, worst_grad = 0, largest = 0;
    for (std::size_t t = 0; t < 4; ++t) {
      const auto p = oracle::softmax(z.data() + t * n, n);
      for (std::size_t e = 0; e < n; ++e) worst_prob = std::max(worst_prob, std::abs(p[e] - probs[t * n + e]));
      worst_prob = std::max(worst_prob, std::abs(oracle::log_sum_exp(z.data() + t * n, n) - lse[t]) / 8);
    }
    long double total = 0;
    for (std::size_t s = 0; s < 2; ++s) {
      const auto q = oracle::histogram(z.data() + s * 2 * n, n, {0, 1}).sums;
      std::vector<long double> mean;
      for (const long double x : q) mean.push_back(x / 2);
      const long double js = oracle::js_by_definition(mean.data(), anchors.data() + s * n, n);
      worst_divergence = std::max(worst_divergence, std::abs(js - divergence[s]));
      total += js / 2;
      const auto slope = oracle::js_slope_p(mean.data(), anchors.data() + s * n, n);
      for (std::size_t t = 2 * s; t < 2 * s + 2; ++t) {
        const auto g = oracle::softmax_backward(probs.data() + t * n, slope.data(), n);
        for (std::size_t e = 0; e < n; ++e) {
          worst_grad = std::max(worst_grad, std::abs(g[e] / 4 - grad[t * n + e]));
          largest = std::max(largest, std::abs(g[e] / 4));
        }
      }
    }
    INFO("experts " << n);
    CHECK(worst_prob <= tolerance);
    CHECK(worst_divergence <= tolerance);
    CHECK(std::abs(total - loss[0]) <= tolerance);
    CHECK(worst_grad <= tolerance);
    if (n > 1) CHECK(largest > 1e-3L);
  }
}

TEST_CASE("eigen: derivatives of a size known only when the program runs", "[eigen]") {
  using dynamic = Eigen::AutoDiffScalar<Eigen::VectorXd>;
  const data d(5);
  std::vector<dynamic> z, anchors, loss(1), grad(inputs);
  for (std::size_t i = 0; i < inputs; ++i)
    z.emplace_back(d.logits[i], Eigen::VectorXd(Eigen::VectorXd::Unit(static_cast<int>(inputs), static_cast<int>(i))));
  for (const double a : d.anchors) anchors.emplace_back(a, Eigen::VectorXd(Eigen::VectorXd::Zero(static_cast<int>(inputs))));
  sara::js_routing_into(exec,
                        sara::js_routing_inputs<dynamic>{.logits = matrix_view<const dynamic>{z.data(), tokens, experts},
                                                         .sequences = batch,
                                                         .anchors = matrix_view<const dynamic>{anchors.data(), sequences, experts}},
                        {.loss = loss, .grad_logits = matrix_view{grad.data(), tokens, experts}});
  std::vector<double> values;
  for (const dynamic& g : grad) values.push_back(g.value());
  CHECK(worst(derivatives(loss[0].derivatives()), values) <= 1e-13);
  CHECK(oracle::largest(values) > 1e-3);
}
