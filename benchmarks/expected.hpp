// What the timed calls must have computed, by the tests' naive double oracle, and how far from it they are.
#pragma once

#include <sara/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "../tests/oracle/routing.hpp"

namespace benchmarks {

using sara::index_t;

struct routing_shape {
  index_t layers, sequences, length, experts;

  index_t tokens() const { return sequences * length; }   // of a layer
  index_t elements() const { return layers * tokens() * experts; }
  auto operator<=>(const routing_shape&) const = default;
};

// "8x1024x128" is sequences x tokens x experts; more layers than one stand in front.
inline std::string text(const routing_shape& s) {
  const std::string one = std::to_string(s.sequences) + "x" + std::to_string(s.length) + "x" + std::to_string(s.experts);
  return s.layers == 1 ? one : std::to_string(s.layers) + "x" + one;
}

template <class T> std::vector<double> as_double(const std::vector<T>& values) {
  std::vector<double> out(values.size());
  std::transform(values.begin(), values.end(), out.begin(), [](const T& x) { return static_cast<double>(sara::load_value(x)); });
  return out;
}

// The loss of equal sequences without weights, and all that leads to it.
template <class T>
oracle::result<double> expect_routing(const routing_shape& shape, const std::vector<T>& logits, const std::vector<float>& anchors) {
  oracle::problem p;
  p.layers = static_cast<std::size_t>(shape.layers);
  p.tokens = static_cast<std::size_t>(shape.tokens());
  p.experts = static_cast<std::size_t>(shape.experts);
  p.anchor_count = p.sequences = static_cast<std::size_t>(shape.sequences);
  p.length = static_cast<std::size_t>(shape.length);
  p.layout = oracle::layout::uniform;
  p.logits = as_double(logits);
  p.anchors = as_double(anchors);
  return oracle::solve<double>(p, p.logits);
}

template <class T> std::vector<double> expect_softmax(const std::vector<T>& logits, index_t experts) {
  const std::vector<double> z = as_double(logits);
  std::vector<double> probs;
  probs.reserve(z.size());
  for (std::size_t at = 0; at < z.size(); at += static_cast<std::size_t>(experts)) {
    const auto p = oracle::softmax(&z[at], static_cast<std::size_t>(experts));
    probs.insert(probs.end(), p.begin(), p.end());
  }
  return probs;
}

template <class P, class S>
std::vector<double> expect_softmax_backward(const std::vector<P>& probs, const std::vector<S>& grad_probs, index_t experts) {
  const std::vector<double> p = as_double(probs), g = as_double(grad_probs);
  std::vector<double> gradient;
  gradient.reserve(p.size());
  for (std::size_t at = 0; at < p.size(); at += static_cast<std::size_t>(experts)) {
    const auto row = oracle::softmax_backward(&p[at], &g[at], static_cast<std::size_t>(experts));
    gradient.insert(gradient.end(), row.begin(), row.end());
  }
  return gradient;
}

// The largest difference relative to the largest entry expected; infinite where something is not a number.
template <class Got> double largest_error(const Got* got, const std::vector<double>& want) {
  double worst = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(sara::load_value(got[i])) - want[i]);
    worst = difference <= worst ? worst : std::isnan(difference) ? INFINITY : difference;
    size = std::max(size, std::fabs(want[i]));
  }
  return size > 0 ? worst / size : worst;
}
template <class Got> double largest_error(const std::vector<Got>& got, const std::vector<double>& want) {
  return got.size() == want.size() ? largest_error(got.data(), want) : INFINITY;
}

}   // namespace benchmarks
