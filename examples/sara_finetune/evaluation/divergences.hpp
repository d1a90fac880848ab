// How far apart histograms are, and which ones are compared.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "measure.hpp"

namespace sara_finetune {

// Numbers of sentences in two measured lists, or in one.
struct compared_sentences {
  index_t p = 0, q = 0;
  friend bool operator==(const compared_sentences&, const compared_sentences&) = default;
};

struct mean_divergence {
  std::vector<double> plain = {};        // [layers], nats, in [0, ln 2]; empty if nothing was compared
  std::vector<double> normalized = {};   // [layers], in [0, 1]
};

// The mean over `pairs` of the divergence between a histogram of `p` and one of `q`. Throws unless both are of one model shape and have the
// sentences.
mean_divergence compare(const measured_sentences& p, const measured_sentences& q, std::span<const compared_sentences> pairs);

// D = JS(p, q) / F, F = 1/2 KL(p || U) + 1/2 KL(q || U), U the uniform distribution (arXiv 2510.04694): in [0, 1], 0 where both are
// uniform.
double normalized_divergence(double js, std::span<const double> p, std::span<const double> q);

// A permutation without a fixed point, the same everywhere for the same seed; empty for a size below 2.
std::vector<index_t> derangement(index_t size, std::uint64_t seed);

// At place i stands p[i] with its translation q[i], or with itself. Compares each p[i] with one q of another place in every round, drawn at
// random; where the same sentence stands at both places, nothing.
std::vector<compared_sentences> strangers(std::span<const index_t> p, std::span<const index_t> q, std::uint64_t seed, int rounds = 8);

}   // namespace sara_finetune
