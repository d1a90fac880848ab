// What one writes without a library for it, and this library's Eigen executor: compiled twice, with -O2 as race::portable and with
// -O3 -march=native as race::native, which a shared object keeps apart.
#include <sara/eigen.hpp>
#include <sara/js_routing.hpp>

#include <cmath>
#include <memory>

#include "contestant.hpp"

namespace race {
namespace SARA_RACE_PLAIN {
namespace {

struct results {
  std::vector<float> gradient;
  float loss = 0;

  explicit results(const routing_problem& p) : gradient(p.logits.size(), 1.0f) {}
};

// The composition as four loops over arrays: softmax, mean, divergence, gradient.
void naive(const routing_problem& p, results& r, std::vector<float>& probs, std::vector<float>& histogram) {
  const routing_shape s = p.shape;
  const auto experts = static_cast<std::size_t>(s.experts), length = static_cast<std::size_t>(s.length);
  const std::size_t units = static_cast<std::size_t>(s.layers * s.sequences), rows = units * length;
  for (std::size_t t = 0; t < rows; ++t) {
    const float* const z = &p.logits[t * experts];
    float largest = z[0], sum = 0;
    for (std::size_t e = 1; e < experts; ++e) largest = std::max(largest, z[e]);
    for (std::size_t e = 0; e < experts; ++e) sum += probs[t * experts + e] = std::exp(z[e] - largest);
    for (std::size_t e = 0; e < experts; ++e) probs[t * experts + e] /= sum;
  }
  histogram.assign(units * experts, 0.0f);
  for (std::size_t t = 0; t < rows; ++t)
    for (std::size_t e = 0; e < experts; ++e) histogram[t / length * experts + e] += probs[t * experts + e] / static_cast<float>(length);
  float loss = 0;
  for (std::size_t i = 0; i < units * experts; ++i) {   // leaves the slopes in `histogram`
    const float a = p.anchors[i], q = histogram[i], middle = (a + q) / 2;
    loss += a * std::log(a / middle) + q * std::log(q / middle);
    histogram[i] = std::log(q / middle) / 2;
  }
  r.loss = loss / 2 / static_cast<float>(units);
  const float factor = 1 / static_cast<float>(units * length);
  for (std::size_t t = 0; t < rows; ++t) {
    const float* const slope = &histogram[t / length * experts];
    float mean = 0;
    for (std::size_t e = 0; e < experts; ++e) mean += probs[t * experts + e] * slope[e];
    for (std::size_t e = 0; e < experts; ++e) r.gradient[t * experts + e] = factor * probs[t * experts + e] * (slope[e] - mean);
  }
}

}   // namespace

[[gnu::visibility("default")]] contestant naive_contestant(const routing_problem& p) {
  const auto r = std::make_shared<results>(p);
  return {.library = "naive",
          .job = whole_job,
          .how = std::string("scalar loops, ") + SARA_RACE_FLAGS,
          .threads = 1,
          .run = [&p, r, probs = std::vector<float>(p.logits.size()),
                  histogram = std::vector<float>()]() mutable { naive(p, *r, probs, histogram); },
          .check = [&p, r] { return errors_of(r->loss, r->gradient.data(), p); }};
}

[[gnu::visibility("default")]] contestant eigen_contestant(const routing_problem& p) {
  const auto r = std::make_shared<results>(p);
  const routing_shape s = p.shape;
  return {.library = "sara",
          .job = whole_job,
          .how = std::string("Eigen executor, ") + SARA_RACE_FLAGS,
          .threads = 1,
          .run =
              [=, &p] {
                sara::js_routing_into(
                    sara::eigen_executor{},
                    sara::js_routing_inputs<float>{.logits = sara::layers_view{p.logits.data(), s.layers, s.tokens(), s.experts},
                                                   .sequences = sara::sequences_view::uniform(s.sequences, s.length),
                                                   .anchors = sara::layers_view{p.anchors.data(), s.layers, s.sequences, s.experts}},
                    {.loss = sara::vector_view{&r->loss, 1},
                     .grad_logits = sara::layers_view{r->gradient.data(), s.layers, s.tokens(), s.experts}});
              },
          .check = [&p, r] { return errors_of(r->loss, r->gradient.data(), p); }};
}

}   // namespace SARA_RACE_PLAIN
}   // namespace race
