#include "divergences.hpp"

#include <sara/js_divergence.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "../training/random.hpp"

namespace sara_finetune {
namespace {

std::string shape_of(const measured_sentences& m) {
  return "[" + std::to_string(m.sentences) + " sentences, " + std::to_string(m.layers) + " layers, " + std::to_string(m.experts) +
         " experts]";
}

void check(const measured_sentences& p, const measured_sentences& q, std::span<const compared_sentences> pairs) {
  for (const measured_sentences* m : {&p, &q})
    if (static_cast<index_t>(m->histograms.size()) != m->sentences * m->layers * m->experts)
      throw std::runtime_error("compare: histograms must be " + shape_of(*m) + ", but have " + std::to_string(m->histograms.size()) +
                               " entries");
  if (p.layers != q.layers || p.experts != q.experts)
    throw std::runtime_error("compare: both sides must be of one model shape, but are " + shape_of(p) + " and " + shape_of(q));
  for (const compared_sentences& each : pairs)
    if (each.p < 0 || each.p >= p.sentences || each.q < 0 || each.q >= q.sentences)
      throw std::runtime_error("compare: sentences must be below " + std::to_string(p.sentences) + " and " + std::to_string(q.sentences) +
                               ", but are " + std::to_string(each.p) + " and " + std::to_string(each.q));
}

// [layers, experts], in double: the divergences then are too.
std::vector<double> histograms_of(const measured_sentences& m, index_t sentence) {
  const auto size = static_cast<std::size_t>(m.layers * m.experts), first = static_cast<std::size_t>(sentence) * size;
  std::vector<double> rows(size);
  for (std::size_t i = 0; i < size; ++i) rows[i] = static_cast<double>(m.histograms[first + i]);
  return rows;
}

// KL(q || U), with the masses subtracted, sum q - 1: that is 0 but for the histogram's rounding, and each term is then at least 0.
double divergence_from_uniform(std::span<const double> q) {
  const double experts = static_cast<double>(q.size());
  double sum = 0;
  for (const double share : q) {
    const double excess = share * experts - 1;
    sum += excess > -1 ? (1 + excess) * std::log1p(excess) - excess : 1;
  }
  return sum / experts;
}

}   // namespace

double normalized_divergence(double js, std::span<const double> p, std::span<const double> q) {
  // Single precision's rounding of uniform histograms makes some 1e-15: a quotient of two such has no meaning.
  constexpr double indistinguishable = 1e-13;
  const double furthest = (divergence_from_uniform(p) + divergence_from_uniform(q)) / 2;
  return furthest > indistinguishable ? std::min(1.0, js / furthest) : 0;
}

mean_divergence compare(const measured_sentences& p, const measured_sentences& q, std::span<const compared_sentences> pairs) {
  check(p, q, pairs);
  if (pairs.empty()) return {};
  const auto layers = static_cast<std::size_t>(p.layers), experts = static_cast<std::size_t>(p.experts);
  mean_divergence sums{.plain = std::vector<double>(layers), .normalized = std::vector<double>(layers)};
  std::vector<double> js(layers);
  for (const compared_sentences& each : pairs) {
    const std::vector<double> of_p = histograms_of(p, each.p), of_q = histograms_of(q, each.q);
    sara::js_divergence_into(
        sara::cpu_executor{.threads = 1},
        sara::js_divergence_inputs<double>{.p = {of_p.data(), p.layers, p.experts}, .q = {of_q.data(), p.layers, p.experts}},
        {.divergence = js});
    for (std::size_t l = 0; l < layers; ++l) {
      sums.plain[l] += js[l];
      sums.normalized[l] +=
          normalized_divergence(js[l], std::span(of_p).subspan(l * experts, experts), std::span(of_q).subspan(l * experts, experts));
    }
  }
  for (std::vector<double>* means : {&sums.plain, &sums.normalized})
    for (double& each : *means) each /= static_cast<double>(pairs.size());
  return sums;
}

std::vector<index_t> derangement(index_t size, std::uint64_t seed) {
  if (size < 2) return {};
  std::vector<index_t> at(static_cast<std::size_t>(size));
  std::iota(at.begin(), at.end(), index_t(0));
  random_bits random(seed);
  // Sattolo's shuffle (1986): one cycle through all.
  for (std::size_t i = at.size() - 1; i > 0; --i) std::swap(at[i], at[random.below(i)]);
  return at;
}

std::vector<compared_sentences> strangers(std::span<const index_t> p, std::span<const index_t> q, std::uint64_t seed, int rounds) {
  if (p.size() != q.size())
    throw std::runtime_error("strangers: expected as many places on either side, found " + std::to_string(p.size()) + " and " +
                             std::to_string(q.size()));
  std::vector<compared_sentences> pairs;
  for (int round = 0; round < rounds; ++round) {
    const std::vector<index_t> others = derangement(static_cast<index_t>(p.size()), mixed(seed, static_cast<std::uint64_t>(round)));
    for (std::size_t i = 0; i < others.size(); ++i) {
      const auto other = static_cast<std::size_t>(others[i]);
      if (p[i] != p[other] && q[i] != q[other]) pairs.push_back({.p = p[i], .q = q[other]});
    }
  }
  return pairs;
}

}   // namespace sara_finetune
