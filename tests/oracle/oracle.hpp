// The formulas of the library once more, naively, in any floating type R: what every test compares with. Nothing here shares a
// line with include/: these are the textbook forms, chosen to be obviously right rather than fast.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace oracle {

// Softmax of one row. NaN, +inf or only -inf make the whole row NaN; a -inf among finite logits has probability 0.
template <class R> std::vector<R> softmax(const R* z, std::size_t n) {
  R top = -std::numeric_limits<R>::infinity(), sum = 0;
  for (std::size_t e = 0; e < n; ++e)
    if (z[e] > top) top = z[e];
  std::vector<R> p(n);
  for (std::size_t e = 0; e < n; ++e) sum += p[e] = std::exp(z[e] - top);
  for (R& x : p) x /= sum;
  return p;
}

template <class R> R log_sum_exp(const R* z, std::size_t n) {
  R top = -std::numeric_limits<R>::infinity(), sum = 0;
  for (std::size_t e = 0; e < n; ++e)
    if (z[e] > top) top = z[e];
  for (std::size_t e = 0; e < n; ++e) sum += std::exp(z[e] - top);
  return top + std::log(sum);
}

// d loss / d logits of a softmax row p, for d loss / d p = g and d loss / d log_sum_exp = g_lse.
template <class R> std::vector<R> softmax_backward(const R* p, const R* g, std::size_t n, R g_lse = 0) {
  R dot = 0;
  for (std::size_t e = 0; e < n; ++e) dot += p[e] * g[e];
  std::vector<R> out(n);
  for (std::size_t e = 0; e < n; ++e) out[e] = p[e] * (g[e] - dot) + g_lse * p[e];
  return out;
}

// phi(u) = 1/2 [(1 + u) ln(1 + u) + (1 - u) ln(1 - u)]: below 1/2 by its series sum u^(2k) / (2k (2k - 1)), all terms of one sign.
template <class R> R js_phi(R u) {
  if (std::abs(u) < R(0.5)) {
    R sum = 0, power = 1;
    for (int k = 1; k < 60 && power > sum * std::numeric_limits<R>::epsilon() / 8; ++k) {
      power *= u * u;
      sum += power / R(2 * k * (2 * k - 1));
    }
    return sum;
  }
  const R a = 1 + u, b = 1 - u;
  return R(0.5) * ((a == 0 ? R(0) : a * std::log(a)) + (b == 0 ? R(0) : b * std::log(b)));
}

// Jensen-Shannon divergence of two rows in nats: sum of m phi((q - p) / (q + p)), m = (p + q) / 2.
template <class R> R js(const R* p, const R* q, std::size_t n) {
  R sum = 0;
  for (std::size_t e = 0; e < n; ++e)
    if (!(p[e] + q[e] == 0)) sum += (p[e] + q[e]) / 2 * js_phi((q[e] - p[e]) / (q[e] + p[e]));
  return sum;
}

// The same by its definition, 1/2 KL(p || m) + 1/2 KL(q || m): for rows well apart, or for a wide R.
template <class R> R js_by_definition(const R* p, const R* q, std::size_t n) {
  R sum = 0;
  for (std::size_t e = 0; e < n; ++e) {
    const R m = (p[e] + q[e]) / 2;
    if (p[e] > 0) sum += p[e] / 2 * std::log(p[e] / m);
    if (q[e] > 0) sum += q[e] / 2 * std::log(q[e] / m);
  }
  return sum;
}

// d JS / d p = 1/2 ln(2 p / (p + q)); 0 where p is 0 (its product with a probability is 0).
template <class R> std::vector<R> js_slope_p(const R* p, const R* q, std::size_t n) {
  std::vector<R> slope(n);
  for (std::size_t e = 0; e < n; ++e) {
    const R u = (p[e] - q[e]) / (p[e] + q[e]);
    slope[e] = p[e] == 0 ? R(0) : R(0.5) * (std::abs(u) < R(0.5) ? std::log1p(u) : std::log(2 * p[e] / (p[e] + q[e])));
  }
  return slope;
}

template <class R> std::vector<R> js_slope_q(const R* p, const R* q, std::size_t n) { return js_slope_p(q, p, n); }

// The weighted sum of the softmaxes of some rows of logits [tokens, experts], and the sum of their weights. A row of weight 0 is
// not read; no weights: 1 each.
template <class R> struct histogram_sums {
  std::vector<R> sums;   // [experts]
  R mass = 0;
};

template <class R>
histogram_sums<R> histogram(const R* logits, std::size_t experts, const std::vector<std::size_t>& rows,
                            const std::vector<R>& token_weights = {}) {
  histogram_sums<R> out{std::vector<R>(experts, 0), 0};
  for (const std::size_t t : rows) {
    const R weight = token_weights.empty() ? R(1) : token_weights[t];
    if (weight == 0) continue;
    const auto p = softmax(logits + t * experts, experts);
    for (std::size_t e = 0; e < experts; ++e) out.sums[e] += weight * p[e];
    out.mass += weight;
  }
  return out;
}

// The same from chosen experts [tokens, k]: each routed slot adds token weight times weight; counts have no weights in them.
template <class R> struct hard_histogram_sums {
  std::vector<R> sums;                // [experts]
  std::vector<std::int64_t> counts;   // [experts]
  R mass = 0;
};

template <class R>
hard_histogram_sums<R> hard_histogram(const std::int64_t* indices, std::size_t k, std::size_t experts, const std::vector<std::size_t>& rows,
                                      const std::vector<R>& token_weights = {}, const std::vector<R>& weights = {}) {
  hard_histogram_sums<R> out{std::vector<R>(experts, 0), std::vector<std::int64_t>(experts, 0), 0};
  for (const std::size_t t : rows) {
    const R weight = token_weights.empty() ? R(1) : token_weights[t];
    if (weight == 0) continue;
    out.mass += weight;
    for (std::size_t i = 0; i < k; ++i) {
      const std::int64_t e = indices[t * k + i];
      if (e < 0 || e >= static_cast<std::int64_t>(experts)) continue;
      out.sums[static_cast<std::size_t>(e)] += weights.empty() ? weight : weight * weights[t * k + i];
      ++out.counts[static_cast<std::size_t>(e)];
    }
  }
  return out;
}

// The k best of a row, best first: ties to the lower index (+0 and -0 tie), NaN below -inf.
template <class R> std::vector<std::int64_t> top_k(const R* scores, std::size_t n, std::size_t k) {
  std::vector<std::int64_t> order(n);
  for (std::size_t e = 0; e < n; ++e) order[e] = static_cast<std::int64_t>(e);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    const R x = scores[a], y = scores[b];
    return std::isnan(y) ? !std::isnan(x) : x > y;   // NaN x: every comparison is false
  });
  order.resize(k);
  return order;
}

}   // namespace oracle
