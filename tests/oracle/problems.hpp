// Random problems from seeds: the same on every machine.
#pragma once

#include <random>

#include "routing.hpp"

namespace oracle {

// A seeded source of numbers that does not depend on the standard library's distributions.
class source {
 public:
  explicit source(std::uint64_t seed) : bits_(seed * 0x9e3779b97f4a7c15ull + 1) {}

  double uniform(double low = 0, double high = 1) { return low + (high - low) * static_cast<double>(bits_() >> 11) * 0x1p-53; }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(bits_() % n); }
  bool chance(double p) { return uniform() < p; }
  template <class C> auto pick(const C& from) { return *(std::begin(from) + static_cast<std::ptrdiff_t>(below(std::size(from)))); }
  double normal(double sigma = 1) {   // Box and Muller
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return sigma * radius * std::cos(6.283185307179586 * uniform());
  }
  std::vector<double> normals(std::size_t n, double sigma = 1) {
    std::vector<double> v(n);
    for (double& x : v) x = normal(sigma);
    return v;
  }
  std::vector<double> uniforms(std::size_t n, double low, double high) {
    std::vector<double> v(n);
    for (double& x : v) x = uniform(low, high);
    return v;
  }

 private:
  std::mt19937_64 bits_;
};

// [rows, experts], each row the softmax of normal numbers.
inline std::vector<double> distributions(source& from, std::size_t rows, std::size_t experts, double sigma = 1) {
  std::vector<double> out;
  for (std::size_t r = 0; r < rows; ++r) {
    const auto z = from.normals(experts, sigma);
    const auto p = softmax(z.data(), experts);
    out.insert(out.end(), p.begin(), p.end());
  }
  return out;
}

// Plain: every token counts once, uniform sequences, one anchor each, logits of spread `sigma`.
inline problem plain_problem(std::uint64_t seed, std::size_t layers, std::size_t sequences, std::size_t length, std::size_t experts,
                             double sigma = 2) {
  source from(seed);
  problem in;
  in.layers = layers;
  in.sequences = in.anchor_count = sequences;
  in.length = length;
  in.tokens = sequences * length;
  in.experts = experts;
  in.layout = layout::uniform;
  in.logits = from.normals(layers * in.tokens * experts, sigma);
  in.anchors = distributions(from, layers * sequences, experts);
  return in;
}

// Packed: the first `tokens` rows cut at random into `sequences` sequences, some empty; `slack`: rows before and after them too.
inline void pack(problem& in, source& from, std::size_t sequences, bool slack = false) {
  in.layout = layout::packed;
  in.sequences = sequences;
  in.offsets.resize(sequences + 1);
  for (auto& at : in.offsets) at = static_cast<std::int64_t>(from.below(in.tokens + 1));
  std::sort(in.offsets.begin(), in.offsets.end());
  if (!slack) {
    in.offsets.front() = 0;
    in.offsets.back() = sequences ? static_cast<std::int64_t>(in.tokens) : 0;
  }
}

// NaN into every number that has no weight and so must not be read: hidden tokens, rows of no sequence, all rows of a layer of weight
// 0 or of a sequence without weight, and anchors that no sequence of weight is held to.
inline void poison_what_has_no_weight(problem& in) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const auto effective_weight = masses(in).effective_weight;
  std::vector<bool> token_read(in.tokens), anchor_read(in.anchor_count);
  for (std::size_t s = 0; s < in.sequences; ++s) {
    if (effective_weight[s] == 0) continue;
    anchor_read[static_cast<std::size_t>(anchor_of(in, s))] = true;
    for (const std::size_t t : rows_of(in, s)) token_read[t] = weight_or_one(in.token_weights, t) != 0;
  }
  for (std::size_t l = 0; l < in.layers; ++l) {
    const bool layer_read = weight_or_one(in.layer_weights, l) != 0;
    for (std::size_t i = 0; i < in.tokens * in.experts; ++i)
      if (!layer_read || !token_read[i / in.experts]) in.logits[l * in.tokens * in.experts + i] = nan;
    for (std::size_t i = 0; i < in.anchor_count * in.experts; ++i)
      if (!layer_read || !anchor_read[i / in.experts]) in.anchors[l * in.anchor_count * in.experts + i] = nan;
  }
}

inline constexpr std::size_t expert_counts[] = {1, 2, 3, 7, 8, 9, 31, 32, 33, 60, 63, 64, 65, 96, 128, 129, 160, 257, 384, 385, 896, 1024};
inline constexpr std::size_t token_counts[] = {0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 33, 64, 100, 130, 257, 700, 1100, 4100};

// Any problem: every layout, mask, weight, total, anchor row, saved histogram and upstream by chance, at most about `budget` logits.
inline problem random_problem(std::uint64_t seed, std::size_t budget = 12000) {
  source from(seed);
  problem in;
  in.experts = expert_counts[seed % std::size(expert_counts)];
  do in.tokens = from.pick(token_counts);
  while (in.tokens * in.experts > budget);
  in.layers = 1 + from.below(std::max<std::size_t>(1, std::min<std::size_t>(4, budget / std::max<std::size_t>(1, in.tokens * in.experts))));
  in.wide_integers = from.chance(0.5);
  in.layout = from.pick(std::vector{layout::packed, layout::uniform, layout::interleaved});
  if (in.layout == layout::packed) {
    pack(in, from, from.below(7), from.chance(0.3));
  } else {
    in.sequences = 1 + from.below(6);
    in.length = in.tokens / in.sequences;
    in.tokens = in.length * in.sequences;
  }

  const double sigma = from.pick(std::vector{0.1, 1.0, 2.0, 3.0});
  in.logits = from.normals(in.layers * in.tokens * in.experts, sigma);
  if (from.chance(0.2))   // ties
    for (double& z : in.logits) z = std::round(z);
  for (std::size_t row = 0; row < in.layers * in.tokens; ++row) {
    double* const z = in.logits.data() + row * in.experts;
    if (from.chance(0.2)) {   // a softmax does not see this
      const double shift = from.uniform(-300, 300);
      for (std::size_t e = 0; e < in.experts; ++e) z[e] += shift;
    }
    if (in.experts > 1 && from.chance(0.1)) z[from.below(in.experts)] = -std::numeric_limits<double>::infinity();
  }

  in.anchor_count = in.sequences;
  if (in.sequences && from.chance(0.4)) {
    in.anchor_count = 1 + from.below(4);
    in.anchor_rows.resize(in.sequences);
    for (auto& row : in.anchor_rows) row = static_cast<std::int64_t>(from.below(in.anchor_count + 1)) - 1;
  }
  in.anchors = distributions(from, in.layers * in.anchor_count, in.experts, from.pick(std::vector{0.1, 1.0, 3.0}));
  if (in.experts > 2 && from.chance(0.3))   // experts that the anchor's language never uses
    for (std::size_t row = 0; row < in.layers * in.anchor_count; ++row) {
      double* const a = in.anchors.data() + row * in.experts;
      double sum = 0;
      for (std::size_t e = 0; e < in.experts; ++e) sum += a[e] = from.chance(0.4) ? 0 : a[e];
      for (std::size_t e = 0; e < in.experts; ++e) a[e] = sum > 0 ? a[e] / sum : 1.0 / static_cast<double>(in.experts);
    }

  const auto some_zeros = [&](std::size_t n, double zeros) {
    auto v = from.uniforms(n, 0.25, 2);
    for (double& x : v) x = from.chance(zeros) ? 0 : x;
    return v;
  };
  if (from.chance(0.6)) in.token_weights = some_zeros(in.tokens, from.pick(std::vector{0.0, 0.2, 0.8}));
  if (from.chance(0.3))   // a mask
    for (double& m : in.token_weights) m = m == 0 ? 0 : 1;
  if (from.chance(0.4)) in.sequence_weights = some_zeros(in.sequences, 0.2);
  if (from.chance(0.4)) in.layer_weights = some_zeros(in.layers, 0.2);
  if (from.chance(0.3)) in.total_layer_weight = from.uniform(1, 8);
  if (from.chance(0.3)) in.total_sequence_weight = from.uniform(1, 8);
  if (from.chance(0.5)) in.upstream = from.pick(std::vector{1.0, -0.5, 65536.0, 0.125});
  if (from.chance(0.5)) in.scale = from.uniform(-2, 2);
  if (from.chance(0.25) && in.sequences) {
    in.histograms = distributions(from, in.layers * in.sequences, in.experts);
    if (from.chance(0.5)) {
      in.token_mass = some_zeros(in.sequences, 0.2);
      for (double& n : in.token_mass) n *= 64;
    }
  }
  if (from.chance(0.5)) poison_what_has_no_weight(in);
  return in;
}

}   // namespace oracle
