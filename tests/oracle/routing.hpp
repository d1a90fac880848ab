// The fused loss of sara::js_routing, naively: one problem in double, solved in any floating type R, for every promise of the call.
#pragma once

#include <optional>

#include "oracle.hpp"

namespace oracle {

enum class layout { packed, uniform, interleaved };

// Everything a call takes, in double; an empty vector is an argument that is not given. To pose it in another storage, round it
// first (problems.hpp).
struct problem {
  std::size_t layers = 1, tokens = 0, experts = 1, sequences = 0, length = 0;
  oracle::layout layout = layout::packed;
  std::vector<std::int64_t> offsets;   // [sequences + 1], packed only
  bool wide_integers = true;           // offsets and anchor rows as int64, else as int32

  std::vector<double> logits;              // [layers, tokens, experts]
  std::size_t anchor_count = 0;            // rows of `anchors`
  std::vector<double> anchors;             // [layers, anchor_count, experts]
  std::vector<std::int64_t> anchor_rows;   // [sequences]
  std::vector<double> token_weights, sequence_weights, layer_weights;
  std::optional<double> total_layer_weight, total_sequence_weight, upstream;
  std::vector<double> histograms, token_mass;   // as inputs
  double scale = 1;
};

template <class R> struct result {
  R loss = 0;
  std::vector<R> divergence;   // [layers, sequences]
  std::vector<R> histograms;   // [layers, sequences, experts]
  std::vector<R> token_mass;   // [sequences]
  std::vector<R> grad;         // [layers, tokens, experts]

  // What arithmetic of a relative rounding `epsilon` cannot see, in units of that epsilon: of the loss, as the sum of
  // |weight| sqrt(JS), and of a gradient entry, as the largest |c_t| p (1 + |g| + sum p |g|): a histogram known to a relative
  // rounding has slopes known to that rounding absolutely, which is all of the gradient near alignment.
  R root_loss = 0, grad_floor = 0;
};

// The token rows of sequence s; packed offsets are clamped to [0, tokens], and one that falls back counts as the largest before it.
inline std::vector<std::size_t> rows_of(const problem& in, std::size_t s) {
  std::vector<std::size_t> rows;
  if (in.layout == layout::packed) {
    const auto clamped = [&](std::size_t i) { return std::clamp<std::int64_t>(in.offsets[i], 0, static_cast<std::int64_t>(in.tokens)); };
    std::int64_t begin = 0, end = 0;
    for (std::size_t i = 0; i <= s; ++i) begin = std::max(begin, clamped(i));
    end = std::max(begin, clamped(s + 1));
    for (std::int64_t t = begin; t < end; ++t) rows.push_back(static_cast<std::size_t>(t));
  } else {
    for (std::size_t i = 0; i < in.length; ++i) rows.push_back(in.layout == layout::uniform ? s * in.length + i : i * in.sequences + s);
  }
  return rows;
}

// The anchor row of sequence s, -1 for none.
inline std::int64_t anchor_of(const problem& in, std::size_t s) {
  const std::int64_t row = in.anchor_rows.empty() ? static_cast<std::int64_t>(s) : in.anchor_rows[s];
  return row < 0 || row >= static_cast<std::int64_t>(in.anchor_count) ? -1 : row;
}

inline double weight_or_one(const std::vector<double>& weights, std::size_t i) { return weights.empty() ? 1.0 : weights[i]; }

// n_s and w'_s of every sequence.
struct sequence_mass {
  std::vector<double> mass, effective_weight;
};
inline sequence_mass masses(const problem& in) {
  sequence_mass out{in.token_mass, std::vector<double>(in.sequences)};
  if (in.token_mass.empty()) out.mass.assign(in.sequences, 0);
  for (std::size_t s = 0; s < in.sequences; ++s) {
    if (in.token_mass.empty())
      for (const std::size_t t : rows_of(in, s)) out.mass[s] += weight_or_one(in.token_weights, t);
    out.effective_weight[s] = out.mass[s] == 0 || anchor_of(in, s) < 0 ? 0 : weight_or_one(in.sequence_weights, s);
  }
  return out;
}

template <class R = double> result<R> solve(const problem& in, const std::vector<R>& logits) {
  const std::size_t L = in.layers, T = in.tokens, E = in.experts, B = in.sequences;
  const auto [mass, effective_weight] = masses(in);
  result<R> out;
  out.divergence.assign(L * B, 0);
  out.histograms.assign(L * B * E, 0);
  out.token_mass.assign(mass.begin(), mass.end());
  out.grad.assign(L * T * E, 0);

  R V = 0, W = 0;
  for (std::size_t l = 0; l < L; ++l) V += weight_or_one(in.layer_weights, l);
  for (std::size_t s = 0; s < B; ++s) W += effective_weight[s];
  if (in.total_layer_weight) V = *in.total_layer_weight;
  if (in.total_sequence_weight) W = *in.total_sequence_weight;

  const std::vector<R> token_weights(in.token_weights.begin(), in.token_weights.end());
  for (std::size_t s = 0; s < B; ++s) {
    const auto rows = rows_of(in, s);
    for (std::size_t l = 0; l < L; ++l) {
      const R layer_weight = weight_or_one(in.layer_weights, l), weight = effective_weight[s];
      if (weight == 0 || layer_weight == 0) continue;   // never read
      const R* z = logits.data() + l * T * E;
      R* q = out.histograms.data() + (l * B + s) * E;
      if (in.histograms.empty()) {
        const auto sums = histogram(z, E, rows, token_weights).sums;
        for (std::size_t e = 0; e < E; ++e) q[e] = sums[e] / R(mass[s]);
      } else {
        for (std::size_t e = 0; e < E; ++e) q[e] = in.histograms[(l * B + s) * E + e];
      }
      const double* row = in.anchors.data() + (l * in.anchor_count + static_cast<std::size_t>(anchor_of(in, s))) * E;
      const std::vector<R> anchor(row, row + E);
      const R divergence = out.divergence[l * B + s] = js(q, anchor.data(), E);
      const R share = V == 0 || W == 0 ? R(0) : R(in.scale) * layer_weight * weight / (V * W);
      if (share == 0) continue;
      out.loss += share * divergence;
      out.root_loss += std::abs(share) * std::sqrt(divergence);
      const auto slope = js_slope_p(q, anchor.data(), E);
      for (const std::size_t t : rows) {
        const R c = share * R(in.upstream.value_or(1)) * R(weight_or_one(in.token_weights, t)) / R(mass[s]);
        if (weight_or_one(in.token_weights, t) == 0) continue;
        const auto p = softmax(z + t * E, E);
        const auto grad = softmax_backward(p.data(), slope.data(), E);
        R level = 1;
        for (std::size_t e = 0; e < E; ++e) level += p[e] * std::abs(slope[e]);
        for (std::size_t e = 0; e < E; ++e) {
          out.grad[(l * T + t) * E + e] = c * grad[e];
          if (E > 1) out.grad_floor = std::max(out.grad_floor, std::abs(c) * p[e] * (level + std::abs(slope[e])));
        }
      }
    }
  }
  return out;
}

template <class R = double> result<R> solve(const problem& in) { return solve<R>(in, std::vector<R>(in.logits.begin(), in.logits.end())); }

}   // namespace oracle
