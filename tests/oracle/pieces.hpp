// What tests of the pieces share: token batches of every layout, the oracle of top-k's weights and their gradient, central
// differences, and broken contracts.
#pragma once

#include <sara/core/errors.hpp>
#include <sara/core/sequences.hpp>

#include <string>

#include "blocks.hpp"
#include "compare.hpp"
#include "executors.hpp"
#include "instances.hpp"
#include "problems.hpp"

namespace oracle {

// What a result in storage G may be off, relative to its largest entry: `exact` for what is computed, plus G's own rounding.
template <class G> double tolerance(double in_float, double in_double) {
  if (std::is_same_v<G, double>) return in_double;
  return in_float + (sizeof(G) == 2 ? (sara::storage_trait<G>::format == sara::storage_format::bf16 ? 0x1p-8 : 0x1p-11) : 0);
}

// v as T holds it.
template <class T> std::vector<double> rounded_to(const std::vector<double>& v) { return as_doubles(as_storage<T>(v)); }

template <class R> std::vector<R> as(const std::vector<double>& v) { return std::vector<R>(v.begin(), v.end()); }

// Unaligned rows with NaN between them.
inline constexpr placement apart{.list = false, .row_padding = 3, .layer_padding = 5, .offset = 1};
inline constexpr placement in_a_list{.list = true, .row_padding = 1, .layer_padding = 0, .offset = 0};

// The one matrix of a block, to be read.
template <class E> sara::matrix_view<const E> matrix_of(block<E>& b) { return b.matrix(); }

// Tokens and their sequences, in one of the layouts.
struct token_batch {
  std::string name;
  std::size_t tokens;
  std::vector<std::vector<std::size_t>> rows;   // of each sequence
  sara::sequences_view view;

  std::size_t sequences() const { return rows.size(); }
};

inline std::vector<token_batch> token_batches() {
  static const std::vector<std::int32_t> narrow{0, 0, 3, 4, 4, 9, 9};
  static const std::vector<std::int64_t> wide{1, 6, 8}, none{0}, alone{0, 70};
  std::vector<token_batch> all{{"packed int32, empty sequences first, middle and last", 9, {}, sara::sequences_view::packed(narrow)},
                               {"packed int64, rows outside the offsets", 9, {}, sara::sequences_view::packed(wide)},
                               {"packed, one of 70", 70, {}, sara::sequences_view::packed(alone, 70)},
                               {"packed, none", 2, {}, sara::sequences_view::packed(none)},
                               {"uniform", 12, {}, sara::sequences_view::uniform(3, 4)},
                               {"uniform, no tokens", 0, {}, sara::sequences_view::uniform(2, 0)},
                               {"interleaved", 12, {}, sara::sequences_view::interleaved(4, 3)}};
  for (token_batch& b : all) {
    const auto length = static_cast<std::size_t>(b.view.length()), count = static_cast<std::size_t>(b.view.sequences());
    b.rows.resize(count);
    for (std::size_t s = 0; s < count; ++s) {
      if (b.view.layout() == sara::token_layout::packed)
        for (sara::index_t t = b.view.offsets()[static_cast<sara::index_t>(s)]; t < b.view.offsets()[static_cast<sara::index_t>(s) + 1];
             ++t)
          b.rows[s].push_back(static_cast<std::size_t>(t));
      else
        for (std::size_t i = 0; i < length; ++i)
          b.rows[s].push_back(b.view.layout() == sara::token_layout::uniform ? s * length + i : i * count + s);
    }
  }
  return all;
}

// The weights of chosen experts: their values, divided by their sum if asked (a sum of 0 leaves them 0), times scale.
inline std::vector<double> top_k_weights(const double* values, const std::vector<std::int64_t>& chosen, bool renormalize, double scale) {
  std::vector<double> w;
  double sum = 0;
  for (const std::int64_t e : chosen) {
    w.push_back(values[e]);
    sum += values[e];
  }
  for (double& x : w) x = scale * (!renormalize ? x : sum == 0 ? 0 : x / sum);
  return w;
}

// Their gradient to the values of all n experts; experts outside [0, n) are skipped.
inline std::vector<double> top_k_backward(const double* values, std::size_t n, const std::vector<std::int64_t>& chosen,
                                          const double* grad_weights, bool renormalize, double scale) {
  std::vector<double> out(n, 0);
  double sum = 0, dot = 0;
  const auto routed = [&](std::int64_t e) { return e >= 0 && e < static_cast<std::int64_t>(n); };
  for (std::size_t i = 0; i < chosen.size() && renormalize; ++i)
    if (routed(chosen[i])) {
      sum += values[chosen[i]];
      dot += grad_weights[i] * values[chosen[i]];
    }
  for (std::size_t i = 0; i < chosen.size(); ++i)
    if (routed(chosen[i]))
      out[static_cast<std::size_t>(chosen[i])] += scale * (!renormalize ? grad_weights[i]
                                                           : sum == 0   ? 0
                                                                        : (grad_weights[i] - dot / sum) / sum);
  return out;
}

// d f / d x[i] by differences of fourth order.
template <class F> double central_difference(F&& f, std::vector<double>& x, std::size_t i, double h) {
  const double at = x[i];
  const auto value = [&](double d) {
    x[i] = at + d;
    return f(x);
  };
  const double slope = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h);
  x[i] = at;
  return slope;
}

template <class F> std::vector<double> central_differences(F&& f, std::vector<double> x, double h = 1e-3) {
  std::vector<double> g;
  for (std::size_t i = 0; i < x.size(); ++i) g.push_back(central_difference(f, x, i, h));
  return g;
}

// The sentence of the contract that f breaks, or "nothing was thrown".
template <class F> std::string complaint(F&& f) {
  try {
    f();
  } catch (const sara::invalid_argument& e) {
    return e.what();
  } catch (...) {
    return "another exception was thrown";
  }
  return "nothing was thrown";
}

// Does f complain of `argument`, under the name of `function`?
template <class F> bool complains(F&& f, const std::string& function, const std::string& argument) {
  const std::string text = complaint(f);
  return text.starts_with("sara::" + function + ": ") && text.find(argument, function.size() + 8) != std::string::npos;
}

}   // namespace oracle
