// Inputs, outputs and options of js_divergence, and the checks of its contract. Formulas: sara/js_divergence.hpp.
#pragma once

#include "../core/data_checks.hpp"
#include "../core/executor.hpp"

namespace sara {

template <class T> struct js_divergence_inputs {
  matrix_view<const T> p;                                    // [rows, experts]
  matrix_view<const T> q = {};                               // [rows, experts]
  vector_view<const arithmetic_t<T>> grad_divergence = {};   // [rows], multiplies a row's slopes; absent: 1
};

template <class T> struct js_divergence_outputs {
  vector_view<arithmetic_t<T>> divergence = {};   // [rows], nats, in [0, ln 2] for distributions
  matrix_view<arithmetic_t<T>> grad_p = {};       // [rows, experts]
  matrix_view<arithmetic_t<T>> grad_q = {};       // [rows, experts]
};

struct js_divergence_options {
  double scale = 1;                                // multiplies the slopes, not the divergence
  gradient_mode mode = gradient_mode::overwrite;   // of grad_p and grad_q
};

inline namespace SARA_ABI {

// Tells `places` each argument, inputs before outputs.
template <class Places, class T>
void place_js_divergence(Places& places, const js_divergence_inputs<T>& in, const js_divergence_outputs<arithmetic_t<T>>& out) {
  places.input("p", in.p);
  places.input("q", in.q);
  places.input("grad_divergence", in.grad_divergence);
  places.output("divergence", out.divergence);
  places.output("grad_p", out.grad_p);
  places.output("grad_q", out.grad_q);
}

template <class T>
void check_js_divergence(const char* function, const js_divergence_inputs<T>& in, const js_divergence_outputs<arithmetic_t<T>>& out) {
  const call_checks check{function};
  check.required("p", in.p);
  check.required("q", in.q);
  const index_t rows = in.p.rows(), experts = in.p.columns();
  check.at_least_one("p", "expert (column)", experts);
  check.shape("p", in.p, "[rows, experts]", rows, experts);
  check.shape("q", in.q, "[rows, experts]", rows, experts);
  check.shape("grad_divergence", in.grad_divergence, "[rows]", rows);
  check.shape("divergence", out.divergence, "[rows]", rows);
  check.shape("grad_p", out.grad_p, "[rows, experts]", rows, experts);
  check.shape("grad_q", out.grad_q, "[rows, experts]", rows, experts);
  overlap_checks<6> places(function);
  place_js_divergence(places, in, out);
}

// In a checked build: throws for a row that holds NaN or a negative number. For executors that run on the host.
template <class T>
void check_js_divergence_data([[maybe_unused]] const char* function, [[maybe_unused]] const js_divergence_inputs<T>& in) {
#if SARA_CHECKED
  const auto rows = [&](const char* argument, const matrix_view<const T>& m) {
    for (index_t r = 0; r < m.rows(); ++r)
      for (index_t e = 0; e < m.columns(); ++e)
        if (!(load_value(m(r, e)) >= 0))
          data_checks{function}.bad(sentence(argument) << ": row " << r << " must not be negative or NaN, but is so for expert " << e);
  };
  rows("p", in.p);
  rows("q", in.q);
#endif
}

}   // namespace SARA_ABI
}   // namespace sara
