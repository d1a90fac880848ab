#include <sara/eigen.hpp>
#include <sara/gate_softmax.hpp>
#include <sara/js_routing.hpp>
#include <sara/top_k.hpp>

#include <memory>

#include "../copy.hpp"
#include "contestant.hpp"

namespace race {
namespace {

using benchmarks::largest_error;

// `exec` lives as long as what it makes.
template <class Executor> contestant fused_loss(const std::string& name, const Executor& exec, const routing_problem& p) {
  struct results {
    std::vector<float> loss, gradient;
  };
  const auto r = std::make_shared<results>(results{std::vector<float>(1), std::vector<float>(p.logits.size(), 1.0f)});
  const routing_shape s = p.shape;
  return {name,
          [=, &p] {
            sara::js_routing_into(exec,
                                  sara::js_routing_inputs<float>{.logits = sara::matrix_view{p.logits.data(), s.tokens(), s.experts},
                                                                 .sequences = sara::sequences_view::uniform(s.sequences, s.length),
                                                                 .anchors = sara::matrix_view{p.anchors.data(), s.sequences, s.experts}},
                                  {.loss = r->loss, .grad_logits = sara::matrix_view{r->gradient.data(), s.tokens(), s.experts}});
          },
          [=, &p] {
            return errors{largest_error(r->loss, {p.want.loss}), largest_error(r->gradient, p.want.grad)};
          },
          false};
}

sara::cpu_executor pooled() {
  sara::cpu_executor exec{.threads = 2};
  exec.pool = sara::parallel_for(benchmarks::two_threads());
  return exec;
}

}   // namespace

std::vector<contestant> sara_contestants(const routing_problem& p) {
  const routing_shape s = p.shape;
  const sara::cpu_executor exec = pooled();
  std::vector<contestant> all;
  all.push_back(fused_loss("sara, loss and gradient", exec, p));
  all.push_back(fused_loss("sara, loss and gradient, spawning its threads", sara::cpu_executor{.threads = 2}, p));
  all.back().spawns = true;
  all.push_back(fused_loss("sara, loss and gradient, Eigen executor (one thread)", sara::eigen_executor{}, p));

  const auto probs = std::make_shared<std::vector<float>>(p.logits.size(), 1.0f);
  all.push_back({"sara, softmax forward alone",
                 [=, &p] {
                   sara::gate_softmax_into(
                       exec, sara::gate_softmax_inputs<float>{.logits = sara::matrix_view{p.logits.data(), s.tokens(), s.experts}},
                       {.probs = sara::matrix_view{probs->data(), s.tokens(), s.experts}});
                 },
                 [=, &p] {
                   return errors{largest_error(*probs, p.want_probs), -1};
                 }});

  const auto given = std::make_shared<std::vector<float>>(p.want_probs.begin(), p.want_probs.end());
  const auto gradient = std::make_shared<std::vector<float>>(p.logits.size(), 1.0f);
  all.push_back({"sara, softmax backward alone",
                 [=, &p] {
                   sara::gate_softmax_backward_into(exec,
                                                    sara::gate_softmax_backward_inputs<float>{
                                                        .probs = sara::matrix_view{given->data(), s.tokens(), s.experts},
                                                        .grad_probs = sara::matrix_view{p.grad_probs.data(), s.tokens(), s.experts}},
                                                    {.grad_logits = sara::matrix_view{gradient->data(), s.tokens(), s.experts}});
                 },
                 [=, &p] {
                   return errors{-1, largest_error(*gradient, p.want_softmax_gradient)};
                 }});
  return all;
}

std::vector<contestant> sara_contestants(const top_k_problem& p) {
  struct results {
    std::vector<std::int32_t> indices;
    std::vector<float> weights;
  };
  const auto size = static_cast<std::size_t>(p.tokens * p.k);
  const auto r = std::make_shared<results>(results{std::vector<std::int32_t>(size), std::vector<float>(size)});
  const sara::cpu_executor exec = pooled();
  return {{"sara, top-k",
           [=, &p] {
             sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = sara::matrix_view{p.scores.data(), p.tokens, p.experts}},
                              {.indices = sara::matrix_view{r->indices.data(), p.tokens, p.k},
                               .weights = sara::matrix_view{r->weights.data(), p.tokens, p.k}});
           },
           [=, &p] {
             for (std::size_t i = 0; i < size; ++i)   // an index that is not its weight's is no result
               if (p.scores[i / static_cast<std::size_t>(p.k) * static_cast<std::size_t>(p.experts) +
                            static_cast<std::size_t>(r->indices[i])] != r->weights[i])
                 return errors{INFINITY, -1};
             return errors{largest_error(r->weights, p.want), -1};
           }}};
}

}   // namespace race
