// What a checked build (SARA_CHECKED=1) also looks at: the data itself. For executors that run on the host; it reads what the call
// would read, and throws sara::invalid_argument with the row's number. Other builds do not read them.
#pragma once

#include <cmath>

#include "checks.hpp"

namespace sara {
inline namespace SARA_ABI {

inline constexpr bool checks_data = SARA_CHECKED != 0;

#if SARA_CHECKED
struct data_checks {
  const char* function;

  [[noreturn, gnu::cold, gnu::noinline]] void bad(const sentence& about) const { fail(function, sentence(about) << " (checked build)"); }

  // Weights and masses: finite and not negative.
  template <class A> void weights(const char* argument, const vector_view<const A>& v) const {
    for (index_t i = 0; i < v.size(); ++i) {
      const double w = static_cast<double>(v[i]);
      if (!(w >= 0) || std::isinf(w)) bad(sentence(argument) << "[" << i << "] must be finite and not negative, but is " << w);
    }
  }

  void offsets(const sequences_view& v, index_t tokens) const {
    if (v.layout() != token_layout::packed) return;
    for (index_t i = 0; i <= v.sequences(); ++i) {
      const auto named = [&] { return sentence("sequences: offset ") << i << " is " << v.offsets()[i]; };
      if (v.offsets()[i] < 0 || v.offsets()[i] > tokens) bad(named() << ", outside the " << tokens << " tokens");
      if (i > 0 && v.offsets()[i] < v.offsets()[i - 1])
        bad(named() << ", which falls back behind the one before it, " << v.offsets()[i - 1]);
    }
  }

  // A row of a distribution: not negative, no NaN, sum 1.
  template <class A> void distribution(const char* argument, const A* row, index_t columns, index_t r, index_t layer) const {
    double sum = 0;
    const auto named = [&] { return sentence(argument) << ": row " << r << " of layer " << layer; };
    for (index_t e = 0; e < columns; ++e) {
      const double x = static_cast<double>(load_value(row[e]));
      if (!(x >= 0)) bad(named() << " must hold probabilities, but expert " << e << " has " << x);
      sum += x;
    }
    if (!(std::fabs(sum - 1) <= 1e-3)) bad(named() << " must sum to 1, but sums to " << sum);
  }

  // The logits of every token that has weight, of every (layer, sequence) for which has_weight(layer, sequence).
  template <class T, class A, class HasWeight>
  void logits(const layers_view<const T>& v, const sequences_view& sequences, const vector_view<const A>& token_weights,
              const HasWeight& has_weight) const {
    bool all_probabilities = v.columns() > 1;
    index_t seen = 0;
    for (index_t l = 0; l < v.layers(); ++l)
      for_each_sequence(sequences, v.rows(), [&](index_t s, const token_range& rows) {
        for (index_t i = 0; i < rows.count && has_weight(l, s); ++i) {
          const index_t t = rows.first + i * rows.step;
          if (token_weights.given() && token_weights[t] == 0) continue;
          all_probabilities = logits_row(v[l].row(t), v.columns(), t, l) && all_probabilities;
          ++seen;
        }
      });
    if (seen && all_probabilities)
      bad("logits must be raw router logits, but every row is a probability distribution (softmax applied already?)");
  }

  // One row of logits: at least one is finite, none is NaN or +inf. Returns whether it could be a row of probabilities.
  template <class T> bool logits_row(const T* row, index_t columns, index_t t, index_t layer) const {
    double sum = 0;
    bool between = true, any = false;
    const auto named = [&] { return sentence("logits: row ") << t << " of layer " << layer; };
    for (index_t e = 0; e < columns; ++e) {
      const double x = static_cast<double>(load_value(row[e]));
      if (std::isnan(x) || x == HUGE_VAL) bad(named() << " has " << (std::isnan(x) ? "NaN" : "+inf") << " for expert " << e);
      any = any || x != -HUGE_VAL;
      between = between && x >= 0 && x <= 1;
      sum += x;
    }
    if (!any) bad(named() << " has no finite logit");
    return between && std::fabs(sum - 1) <= 1e-2;   // bf16 probabilities miss 1 by so much
  }
};
#endif

}   // namespace SARA_ABI
}   // namespace sara
