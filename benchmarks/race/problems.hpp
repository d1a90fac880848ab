// The problems of the race, with fresh random numbers in them and the oracle's results.
#pragma once

#include <cmath>
#include <numeric>
#include <random>

#include "../copy.hpp"
#include "../random_data.hpp"
#include "contestant.hpp"

namespace race {

// Solves a problem by the oracle: one layer of the call's mean at a time, on two threads.
inline void solve(routing_problem& p) {
  const auto layers = static_cast<std::size_t>(p.shape.layers), experts = static_cast<std::size_t>(p.shape.experts),
             sequences = static_cast<std::size_t>(p.shape.sequences), of_layer = p.logits.size() / layers;
  std::vector<double> losses(layers);
  p.gradient.resize(p.logits.size());
  const auto solve_layer = [&](std::size_t l) {
    const auto part = [](const std::vector<float>& all, std::size_t size, std::size_t i) {
      return std::vector<double>(all.begin() + static_cast<std::ptrdiff_t>(i * size),
                                 all.begin() + static_cast<std::ptrdiff_t>((i + 1) * size));
    };
    oracle::problem one;
    one.tokens = of_layer / experts;
    one.experts = experts;
    one.anchor_count = one.sequences = sequences;
    one.length = static_cast<std::size_t>(p.shape.length);
    one.layout = p.offsets.empty() ? oracle::layout::uniform : oracle::layout::packed;
    one.offsets = p.offsets;
    one.token_weights.assign(p.token_weights.begin(), p.token_weights.end());
    one.total_layer_weight = static_cast<double>(layers);
    one.anchors = part(p.anchors, sequences * experts, l);
    const auto solved = oracle::solve<double>(one, part(p.logits, of_layer, l));
    losses[l] = solved.loss;
    std::copy(solved.grad.begin(), solved.grad.end(), p.gradient.begin() + static_cast<std::ptrdiff_t>(l * of_layer));
  };
  auto half = [&](int worker) {
    for (auto l = static_cast<std::size_t>(worker); l < layers; l += 2) solve_layer(l);
  };
  benchmarks::two_threads()(2, sara::worker_task(half));
  p.loss = std::accumulate(losses.begin(), losses.end(), 0.0);
}

inline routing_problem make_problem(const routing_shape& s) {
  routing_problem p{.shape = s,
                    .logits = benchmarks::random_logits<float>(s.elements(), 1),
                    .anchors = benchmarks::random_distributions(s.layers * s.sequences, s.experts, 2)};
  solve(p);
  return p;
}

// With what a softmax alone is checked on.
inline void add_softmax(routing_problem& p) {
  p.grad_probs = benchmarks::random_logits<float>(p.shape.elements(), 3);
  p.probs = benchmarks::expect_softmax(p.logits, p.shape.experts);
  p.softmax_gradient = benchmarks::expect_softmax_backward(p.probs, p.grad_probs, p.shape.experts);
}

// Sequences of many lengths, the longest some twenty times as long as the shortest, with as many tokens as s has.
inline routing_problem make_ragged_problem(const routing_shape& s) {
  routing_problem p{.shape = s,
                    .logits = benchmarks::random_logits<float>(s.elements(), 1),
                    .anchors = benchmarks::random_distributions(s.layers * s.sequences, s.experts, 2)};
  std::mt19937_64 bits(4);
  std::normal_distribution<double> normal(0, 0.7);
  std::vector<double> ends{0};
  for (index_t i = 0; i < s.sequences; ++i) ends.push_back(ends.back() + std::exp(normal(bits)));
  for (const double end : ends) p.offsets.push_back(std::llround(end / ends.back() * static_cast<double>(s.tokens())));
  solve(p);
  return p;
}

// Of each sequence's tokens the last part has weight 0, as padding has.
inline routing_problem make_masked_problem(const routing_shape& s, double masked) {
  routing_problem p{.shape = s,
                    .logits = benchmarks::random_logits<float>(s.elements(), 1),
                    .anchors = benchmarks::random_distributions(s.layers * s.sequences, s.experts, 2)};
  for (index_t t = 0; t < s.tokens(); ++t)
    p.token_weights.push_back(static_cast<double>(t % s.length) < (1 - masked) * static_cast<double>(s.length) ? 1.0f : 0.0f);
  solve(p);
  return p;
}

// Anchors that are the histograms themselves but for a relative `distance`, an entry's sign being a coin's.
inline routing_problem make_near_problem(const routing_shape& s, double distance) {
  routing_problem p{.shape = s, .logits = benchmarks::random_logits<float>(s.elements(), 1)};
  std::mt19937_64 bits(5);
  const std::vector<double> probs = benchmarks::expect_softmax(p.logits, s.experts);
  const auto experts = static_cast<std::size_t>(s.experts), length = static_cast<std::size_t>(s.length);
  for (std::size_t first = 0; first < probs.size(); first += length * experts) {
    std::vector<double> anchor(experts);
    for (std::size_t i = 0; i < length * experts; ++i) anchor[i % experts] += probs[first + i];
    for (double& a : anchor) a *= bits() % 2 ? 1 + distance : 1 - distance;
    const double sum = std::accumulate(anchor.begin(), anchor.end(), 0.0);
    for (const double a : anchor) p.anchors.push_back(static_cast<float>(a / sum));
  }
  solve(p);
  return p;
}

inline top_k_problem make_top_k_problem(index_t tokens, index_t experts, index_t k) {
  top_k_problem p{.tokens = tokens, .experts = experts, .k = k, .scores = benchmarks::random_logits<float>(tokens * experts, 1)};
  const auto z = benchmarks::as_double(p.scores);
  for (std::size_t at = 0; at < z.size(); at += static_cast<std::size_t>(experts))
    for (const auto e : oracle::top_k(&z[at], static_cast<std::size_t>(experts), static_cast<std::size_t>(k)))
      p.want.push_back(z[at + static_cast<std::size_t>(e)]);
  return p;
}

}   // namespace race
