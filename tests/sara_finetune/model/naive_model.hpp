// The model again, a token at a time and by its formulas, in double: the oracle of its forward.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <numeric>
#include <vector>

#include "sara_finetune/model/batch.hpp"
#include "sara_finetune/model/parameters.hpp"

namespace naive {

using sara_finetune::index_t, sara_finetune::model_shape, sara_finetune::packed_batch;
using row = std::vector<double>;

struct result {
  row cross_entropies;                    // [tokens]
  std::vector<row> logits;                // [layers, tokens] rows of [experts]
  std::vector<std::vector<int>> chosen;   // [layers, tokens], best first
};

// x W, with W [x, columns] at `weights`
inline row times(const row& x, const double* weights, std::size_t columns) {
  row y(columns);
  for (std::size_t i = 0; i < x.size(); ++i)
    for (std::size_t j = 0; j < columns; ++j) y[j] += x[i] * weights[i * columns + j];
  return y;
}

inline row normalised(const row& x, const double* weight) {
  double square = 0;
  for (const double each : x) square += each * each;
  row y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = weight[i] * x[i] / std::sqrt(square / static_cast<double>(x.size()) + 1e-6);
  return y;
}

inline row softmax(row x) {
  const double peak = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& each : x) sum += each = std::exp(each - peak);
  for (double& each : x) each /= sum;
  return x;
}

// A head at a position: pairs as complex numbers, turned.
inline std::vector<std::complex<double>> turned(const row& x, std::size_t first, std::size_t head_width, std::size_t position) {
  const std::size_t half = head_width / 2;
  std::vector<std::complex<double>> y;
  for (std::size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) / std::pow(1e4, static_cast<double>(i) / static_cast<double>(half));
    y.push_back(std::complex<double>(x[first + i], x[first + half + i]) * std::polar(1.0, angle));
  }
  return y;
}

inline result forward(const model_shape& shape, const std::vector<double>& parameters, const packed_batch& batch) {
  const auto width = static_cast<std::size_t>(shape.width), hidden = static_cast<std::size_t>(shape.hidden);
  const auto experts = static_cast<std::size_t>(shape.experts), head_width = static_cast<std::size_t>(shape.head_width());
  const auto vocabulary = static_cast<std::size_t>(shape.vocabulary);
  const double* next = parameters.data();
  const auto take = [&](std::size_t size) {
    const double* const block = next;
    next += size;
    return block;
  };

  result r;
  const double* const embedding = take(vocabulary * width);
  std::vector<row> x;
  for (const std::int32_t token : batch.tokens) {
    const double* const from = embedding + static_cast<std::size_t>(token) * width;
    x.emplace_back(from, from + width);
  }
  for (int l = 0; l < shape.layers; ++l) {
    const double *const attention_norm = take(width), *const qkv = take(3 * width * width), *const attention_out = take(width * width);
    const double *const mixture_norm = take(width), *const router = take(width * experts);
    const double *const in = take(experts * width * 2 * hidden), *const out = take(experts * hidden * width);

    std::vector<row> projected;
    for (const row& each : x) projected.push_back(times(normalised(each, attention_norm), qkv, 3 * width));
    for (std::size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s) {
      const auto first = static_cast<std::size_t>(batch.cu_seqlens[s]), end = static_cast<std::size_t>(batch.cu_seqlens[s + 1]);
      for (std::size_t t = first; t < end; ++t) {
        row mixed(width);
        for (std::size_t column = 0; column < width; column += head_width) {
          const auto query = turned(projected[t], column, head_width, t - first);
          row scores;
          for (std::size_t u = first; u <= t; ++u) {
            const auto key = turned(projected[u], width + column, head_width, u - first);
            double score = 0;
            for (std::size_t i = 0; i < key.size(); ++i) score += std::real(query[i] * std::conj(key[i]));
            scores.push_back(score / std::sqrt(static_cast<double>(head_width)));
          }
          const row probs = softmax(scores);
          for (std::size_t u = first; u <= t; ++u)
            for (std::size_t i = 0; i < head_width; ++i) mixed[column + i] += probs[u - first] * projected[u][2 * width + column + i];
        }
        const row added = times(mixed, attention_out, width);
        for (std::size_t i = 0; i < width; ++i) x[t][i] += added[i];
      }
    }
    for (row& each : x) {
      const row input = normalised(each, mixture_norm);
      r.logits.push_back(times(input, router, experts));
      const row probs = softmax(r.logits.back());
      std::vector<int> order(experts);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int a, int b) { return probs[static_cast<std::size_t>(a)] > probs[static_cast<std::size_t>(b)]; });
      order.resize(static_cast<std::size_t>(shape.chosen));
      double sum = 0;
      for (const int e : order) sum += probs[static_cast<std::size_t>(e)];
      for (const int chosen : order) {
        const auto e = static_cast<std::size_t>(chosen);
        const row pair = times(input, in + e * width * 2 * hidden, 2 * hidden);
        row activated(hidden);
        for (std::size_t i = 0; i < hidden; ++i) activated[i] = pair[i] / (1 + std::exp(-pair[i])) * pair[hidden + i];
        const row y = times(activated, out + e * hidden * width, width);
        for (std::size_t i = 0; i < width; ++i) each[i] += probs[e] / sum * y[i];
      }
      r.chosen.push_back(order);
    }
  }
  const double* const final_norm = take(width);
  for (std::size_t t = 0; t < x.size(); ++t) {
    const row output = normalised(x[t], final_norm);
    row logits(vocabulary);
    for (std::size_t v = 0; v < vocabulary; ++v)
      for (std::size_t i = 0; i < width; ++i) logits[v] += output[i] * embedding[v * width + i];
    const row probs = softmax(logits);
    r.cross_entropies.push_back(batch.target_weights[t] > 0 ? -std::log(probs[static_cast<std::size_t>(batch.targets[t])]) : 0);
  }
  return r;
}

}   // namespace naive
