// The Jensen-Shannon divergence of rows of distributions, and its slopes for either or both sides.
//
//   sara::js_divergence_into(exec, js_divergence_inputs<T>{.p, .q, .grad_divergence}, {.divergence, .grad_p, .grad_q}, {.scale, .mode});
//
//   JS(p, q) = 1/2 KL(p || m) + 1/2 KL(q || m),  m = (p + q) / 2                     in [0, ln 2] for distributions
//   grad_p_j = scale grad_divergence 1/2 ln(2 p_j / (p_j + q_j)),  grad_q likewise     exact for unnormalised rows too
//
// Shapes: js_divergence/types.hpp. Computed in double for every storage type, in the form without cancellation (sara/math/js.hpp): no
// term is negative, JS(p, q) = JS(q, p) bit by bit, JS(p, p) = 0 with slopes exactly 0, and the relative error stays within rounding
// down to JS = 1e-12 and below. Where a side is 0 its slope (-inf) is given as 0: an expert of probability 0 in the mean has it in
// every token, so the product with which the slope is used is 0.
// Memory and stream: nothing but the views, no scratch. With a cuda_executor they lie on the device, the call is enqueued on its stream
// and never waits. A row is summed in one fixed order: the same bits on every run, for any number of threads, and in a batch of any size.
// Cost: two logarithms' worth of arithmetic an element, vectorised; consumer GPUs compute in double at 1/64 of their rate in float.
// Errors: sara::invalid_argument names the argument; nothing has been written then.
#pragma once

#include "js_divergence/cpu.hpp"
#if defined(__CUDACC__)
#include "js_divergence/cuda.cuh"
#endif
