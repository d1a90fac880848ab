// The gate's softmax over experts, and its backward.
//
//   sara::gate_softmax_into(exec, gate_softmax_inputs<T>{.logits}, {.probs, .log_sum_exp});
//   sara::gate_softmax_backward_into(exec, gate_softmax_backward_inputs<P>{.probs, .grad_probs, .grad_log_sum_exp}, {.grad_logits},
//                                    {.scale, .mode});
//
//   p_j = exp(z_j) / sum_i exp(z_i),   lse = ln sum_i exp(z_i)
//   grad_logits_j = scale [p_j (g_j - sum_i p_i g_i) + grad_lse p_j]         grad_lse = 2 beta lse / tokens is the router z-loss
//
// Shapes: gate_softmax/types.hpp. Rows are [experts], any number of experts >= 1. Probabilities may be stored in another type of the same
// arithmetic (fp32 ones of bf16 logits: gate_softmax_outputs<sara::bf16, float>{...}, spelled out); a 16-bit probability is the fp32 one,
// rounded to nearest even. In place (probs = logits; grad_logits = probs or grad_probs) is legal under overwrite.
//
// Numerics: no rounding of z - max (sara/math/exp.hpp); an entry is within a few units in its last place, gradual underflow
// included. -inf has probability 0; NaN, +inf and a row of nothing but -inf make that row NaN.
// Cost: one read and one write of each value, past the caches where 16 MiB and more are written, in rows that fill lines
// of 64 bytes, or follow on one another and have 48 values or more (fp32; double 12, 16 bits 192).
// Scratch: a few rows a worker (gate_softmax_workspace_bytes), none on a GPU; the backward takes none.
// Errors: sara::invalid_argument names the argument; nothing has been written then.
#pragma once

#include "gate_softmax/cpu.hpp"
#if defined(__CUDACC__)
#include "gate_softmax/cuda.cuh"
#endif
