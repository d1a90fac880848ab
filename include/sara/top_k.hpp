// The experts of each token: the k largest scores of a row, best first, and the backward of their weights.
//
//   sara::top_k_into(exec, top_k_inputs<T>{.scores, .values}, {.indices, .weights}, {.softmax, .renormalize, .scale});
//   sara::top_k_backward_into(exec, top_k_backward_inputs<V>{.indices, .grad_weights, .values}, {.grad_values},
//                             {.renormalize, .scale, .mode});
//
// Indices are int32 unless another type is spelled out: top_k_outputs<T, std::int64_t>; values are in arithmetic precision, or of
// top_k_inputs<T, V>.
//
// `scores` decide who is chosen: raw logits, or sigmoid scores plus a selection bias. The weights are gathered from `values` (the
// probabilities, the unbiased scores), or from the scores where no values are given, or (softmax) from the softmax of the scores over all
// experts, which is not written:
//
//   w_i = scale v_i                    or, with renormalize,   w_i = scale v_i / S,  S = sum of the chosen v      (S = 0: 0)
//   grad_v_i = scale g_i               or                      scale (g_i - sum_j g_j v_j / S) / S                off the chosen: 0
//
// Softmax, top-k, renormalise is this with values = gate_softmax(scores), and equals top-k, softmax. To train through options.softmax, have
// gate_softmax write the probabilities: they are `values` here, and grad_values is what gate_softmax_backward takes as grad_probs.
//
// Rules of choice: equal scores go to the lower index; +0 equals -0; NaN ranks below -inf; always k distinct valid indices. Any
// number of experts >= 1, any k from 1 to all of them. 16-bit scores are compared as they are (their fp32 values).
// In the backward an index that is -1 or >= experts is not routed and is passed over; an expert listed twice is added twice.
//
// Shapes: top_k/types.hpp. Indices: int16, int32 or int64. Cost of the forward, fp32 and 16-bit scores, k <= 16, up to 4096 experts: one pass
// over a row through sorting networks; a row whose chosen scores differ by less than some 2^-11 of themselves takes what all others
// take: a tournament, of k log2(experts) steps after its first pass.
// Backward: k^2 comparisons a token, to find experts listed twice.
// Scratch: the tournaments of four rows a worker (top_k_workspace_bytes); the backward takes none. On a GPU neither does.
// On a GPU: up to k = 32 (double: 8) one pass through lists in registers, beyond that k passes over a row.
// Errors: sara::invalid_argument names the argument; nothing has been written then.
#pragma once

#include "top_k/cpu.hpp"
#if defined(__CUDACC__)
#include "top_k/cuda.cuh"
#endif
