#include <sara/gate_softmax.hpp>
#include <sara/js_routing.hpp>
#include <sara/top_k.hpp>

#include <memory>

#include "../copy.hpp"
#include "contestant.hpp"

namespace race {
namespace {

using benchmarks::largest_error;

struct results {
  std::vector<float> loss, gradient;

  explicit results(const routing_problem& p) : loss(1), gradient(p.logits.size(), 1.0f) {}
};

sara::cpu_executor executor_of(int threads, sara::instruction_set isa) {
  sara::cpu_executor exec{.threads = threads, .isa = isa};
  if (threads > 1) exec.pool = sara::parallel_for(benchmarks::two_threads());
  return exec;
}

contestant fused_loss(const std::string& how, const sara::cpu_executor& exec, const routing_problem& p, std::shared_ptr<results> r) {
  const routing_shape s = p.shape;
  return {.library = "sara",
          .job = whole_job,
          .how = how,
          .threads = exec.threads,
          .run =
              [=, &p] {
                sara::js_routing_into(
                    exec,
                    sara::js_routing_inputs<float>{.logits = sara::layers_view{p.logits.data(), s.layers, s.tokens(), s.experts},
                                                   .sequences = p.offsets.empty() ? sara::sequences_view::uniform(s.sequences, s.length)
                                                                                  : sara::sequences_view::packed(p.offsets),
                                                   .anchors = sara::layers_view{p.anchors.data(), s.layers, s.sequences, s.experts},
                                                   .token_weights = p.token_weights},
                    {.loss = r->loss, .grad_logits = sara::layers_view{r->gradient.data(), s.layers, s.tokens(), s.experts}});
              },
          .check = [=, &p] { return errors_of(r->loss[0], r->gradient.data(), p); }};
}

}   // namespace

contestant sara_contestant(const routing_problem& p, int threads) {
  const auto isa = sara::best_instruction_set();
  return fused_loss(sara::name_of(isa), executor_of(threads, isa), p, std::make_shared<results>(p));
}

std::vector<contestant> sara_contestants(const routing_problem& p) {
  const auto r = std::make_shared<results>(p);   // each is checked before the next one runs
  std::vector<contestant> all;
  for (const auto isa : {sara::instruction_set::avx512, sara::instruction_set::avx2, sara::instruction_set::vector128})
    if (sara::is_supported(isa))
      for (const int threads : {2, 1}) all.push_back(fused_loss(sara::name_of(isa), executor_of(threads, isa), p, r));
  const auto best = sara::best_instruction_set();
  all.push_back(fused_loss(sara::name_of(best) + std::string(", spawning its threads"), sara::cpu_executor{.threads = 2}, p, r));
  all.back().spawns = true;
  return all;
}

std::vector<contestant> sara_softmax_contestants(const routing_problem& p) {
  const routing_shape s = p.shape;
  const index_t rows = s.layers * s.tokens();
  const sara::cpu_executor exec = executor_of(2, sara::best_instruction_set());
  const auto probs = std::make_shared<std::vector<float>>(p.logits.size(), 1.0f);
  const auto given = std::make_shared<std::vector<float>>(p.probs.begin(), p.probs.end());
  const auto gradient = std::make_shared<std::vector<float>>(p.logits.size(), 1.0f);
  return {{.library = "sara",
           .job = softmax_forward,
           .how = "gate_softmax",
           .threads = 2,
           .run =
               [=, &p] {
                 sara::gate_softmax_into(exec,
                                         sara::gate_softmax_inputs<float>{.logits = sara::matrix_view{p.logits.data(), rows, s.experts}},
                                         {.probs = sara::matrix_view{probs->data(), rows, s.experts}});
               },
           .check =
               [=, &p] {
                 return errors{largest_error(*probs, p.probs), -1};
               }},
          {.library = "sara",
           .job = softmax_backward,
           .how = "gate_softmax_backward",
           .threads = 2,
           .run =
               [=, &p] {
                 sara::gate_softmax_backward_into(
                     exec,
                     sara::gate_softmax_backward_inputs<float>{.probs = sara::matrix_view{given->data(), rows, s.experts},
                                                               .grad_probs = sara::matrix_view{p.grad_probs.data(), rows, s.experts}},
                     {.grad_logits = sara::matrix_view{gradient->data(), rows, s.experts}});
               },
           .check =
               [=, &p] {
                 return errors{-1, largest_error(*gradient, p.softmax_gradient)};
               }}};
}

std::vector<contestant> sara_contestants(const top_k_problem& p) {
  struct chosen {
    std::vector<std::int32_t> indices;
    std::vector<float> weights;
  };
  const auto size = static_cast<std::size_t>(p.tokens * p.k);
  const auto r = std::make_shared<chosen>(chosen{std::vector<std::int32_t>(size), std::vector<float>(size)});
  const sara::cpu_executor exec = executor_of(2, sara::best_instruction_set());
  return {{.library = "sara",
           .job = top_k,
           .how = sara::name_of(exec.isa),
           .threads = 2,
           .run =
               [=, &p] {
                 sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = sara::matrix_view{p.scores.data(), p.tokens, p.experts}},
                                  {.indices = sara::matrix_view{r->indices.data(), p.tokens, p.k},
                                   .weights = sara::matrix_view{r->weights.data(), p.tokens, p.k}});
               },
           .check =
               [=, &p] {
                 for (std::size_t i = 0; i < size; ++i)   // an index that is not its weight's is no result
                   if (p.scores[i / static_cast<std::size_t>(p.k) * static_cast<std::size_t>(p.experts) +
                                static_cast<std::size_t>(r->indices[i])] != r->weights[i])
                     return errors{INFINITY, -1};
                 return errors{largest_error(r->weights, p.want), -1};
               }}};
}

}   // namespace race
