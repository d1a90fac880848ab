// How a sequence's tokens spread over the experts of a layer: soft (of the softmax) and hard (of the chosen experts), with backwards.
//
//   sara::routing_histogram_into(exec, routing_histogram_inputs<T>{.logits, .sequences, .token_weights},
//                                {.histograms, .sums, .token_mass});
//   sara::routing_histogram_backward_into(exec, routing_histogram_backward_inputs<T>{.logits, .sequences, .token_weights, .token_mass,
//                                                                                    .grad_histograms}, {.grad_logits});
//   sara::hard_routing_histogram_into(exec, hard_routing_histogram_inputs<W, I>{.indices, .experts, .sequences, .token_weights, .weights},
//                                     {.histograms, .sums, .token_mass, .counts});
//   sara::hard_routing_histogram_backward_into(exec, hard_routing_histogram_backward_inputs<W, I>{.indices, .sequences, .token_weights,
//                                                                                    .token_mass, .grad_histograms}, {.grad_weights});
//
// The soft histograms of the English side are the anchors of js_routing: [layers, sequences, experts], in arithmetic precision.
//
//   soft:  sums_j = sum of m_t p_tj,  token_mass n = sum of m_t,  histogram = sums / n                arXiv 2510.04694, eq. 1
//          grad_logits_tj = scale (m_t / n) p_tj (g_j - sum_i p_ti g_i)
//   hard:  sums_j = sum of m_t w_ti over the slots i with index j (w = 1 without weights),  counts_j = such slots of tokens with m_t != 0
//          grad_weights_ti = scale (m_t / n) g_j,  j the slot's expert; 0 for a slot that is not routed (index -1 or >= experts)
//
// Sums and token_mass are what ranks add up: all-reduce both, divide, and give the reduced token_mass to the backward.
// The mean divides by the token mass, so a hard histogram without weights sums to k.
//
// Shapes: routing_histogram/types.hpp; all layers in one call. Tokens of weight 0 are never read; a sequence without mass has
// histogram, sums and gradient 0 (accumulate: untouched). In place (grad_logits = logits) is legal under overwrite.
// Numerics and determinism as in sara/js_routing.hpp. Scratch: *_workspace_bytes of each call.
// Errors: sara::invalid_argument names the argument; nothing has been written then.
#pragma once

#include "routing_histogram/cpu.hpp"
#if defined(__CUDACC__)
#include "routing_histogram/cuda.cuh"
#include "routing_histogram/cuda_hard.cuh"
#include "routing_histogram/cuda_hard_backward.cuh"
#endif
