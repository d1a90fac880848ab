// The SARA loss (Semantically Anchored Routing Alignment, arXiv 2606.25821): softmax of the router logits, mean routing distribution
// of each sequence, Jensen-Shannon divergence from its anchor, and the gradient of the logits, fused, for all MoE layers in one call.
//
//   sara::js_routing_into(exec, inputs, outputs, options);     writes what `outputs` names
//   float loss = sara::js_routing(exec, inputs, options);      returns the loss to the host
//
// `inputs` are a js_routing_inputs<T>, T being the logits' storage; `outputs` a js_routing_outputs<T>, or, for an fp32 gradient of 16-bit
// logits, a js_routing_outputs<T, float>, which has to be spelled out. `exec` is a cpu_executor, an eigen_executor (sara/eigen.hpp) or,
// in a CUDA source, a cuda_executor{stream} (sara/cuda/executor.cuh).
//
// Formulas (natural logarithm; s: sequence, l: layer, m_t: token weight, z_t: logits of token t, P: anchor)
//
//   p_t  = softmax(z_t) over all experts                                                      arXiv 2606.25821, eq. 5
//   n_s  = sum of m_t over the sequence's tokens           Q_ls = (1 / n_s) sum of m_t p_t
//   JS   = 1/2 KL(P || M) + 1/2 KL(Q || M),  M = (P + Q) / 2                                   computed without cancellation: sara/math/js.hpp
//   w'_s = sequence weight, 0 where n_s = 0 or the sequence has no anchor;   v_l = layer weight
//   V    = sum of v_l, or total_layer_weight;   W = sum of w'_s, or total_sequence_weight
//   J    = sum over l of v_l sum over s of w'_s JS_ls / (V W),  0 where V or W is 0
//   loss = scale J,   grad_logits = upstream scale dJ / dlogits:  c_t p_tj (g_j - sum_i p_ti g_i),
//          c_t = upstream scale v_l w'_s m_t / (V W n_s),   g_j = 1/2 ln(2 Q_j / (P_j + Q_j))
//
// Inputs, outputs and options, with shapes: sara/js_routing/types.hpp. In one table, what a trainer asks for:
//
// | to                                   | set                                                                               |
// |--------------------------------------|-----------------------------------------------------------------------------------|
// | hide padding                         | token_weights 0: such rows are never read and may hold NaN                        |
// | leave out samples without an anchor  | anchor_rows -1, or sequence_weights 0: neither logits nor anchor are read         |
// | share one English row among languages| anchor_rows                                                                       |
// | choose the window of middle layers   | pass those layers; weigh them by layer_weights                                    |
// | accumulate over micro-batches, ranks | total_layer_weight, total_sequence_weight of the whole batch; losses then add up  |
// | use a loss scale, or autograd        | upstream: multiplies the gradient, never the loss                                 |
// | add to a gradient that is there      | options.mode = gradient_mode::accumulate                                          |
// | run forward and backward apart       | save histograms (and token_mass), pass them as inputs: the first sweep is skipped |
// | make the anchors                     | routing_histogram_into of the English side's logits: its `histograms`             |
// | split a sequence over ranks          | histograms = sums / mass, and token_mass: routing_histogram's, each all-reduced   |
// | train the anchor's side too          | js_divergence and routing_histogram_backward, the pieces of this call             |
//
// What has no weight is never read; its divergence and histogram are 0, its gradient 0 (overwrite) or untouched (accumulate). An output
// view that is not given costs nothing. overwrite never reads the gradient's buffer; accumulate adds with one rounding. grad_logits may be
// exactly `logits` under overwrite; columns of one buffer may lie side by side; any other shared memory is an error. Ranks that split
// sequences each have the whole loss, and the gradient of their own tokens.
//
// Numerics. Arithmetic is float for float, bf16 and fp16 storage, double for double; sums over at most 64 tokens (fewer for many experts;
// on a CPU with what they lost) are added up in double, and the [experts]-sized step is done in double. A softmax in fp32 rounds Q all
// the same: at a relative distance d from P the gradient is typically known to 4e-8 / d of its largest entry. -inf logits are legal
// (probability and gradient 0). NaN, +inf and a row of nothing but -inf make that sequence's divergence, histogram and gradient NaN, and
// the loss, and no other sequence's. Results are the same bits on every run and for every number of threads; instruction sets differ
// within rounding. Under -ffast-math the accuracy for finite input holds, not what is said of infinities, NaN and last bits, nor
// probabilities below the normal numbers, which become 0.
//
// Cost and memory, CPU. Each logit is read once and each gradient written once while a sequence fits in the cache. Overwritten gradients
// of 16 MiB and more in all, and not in place, go past the caches if their rows fill lines of 64 bytes, or follow on one another and have
// 48 values or more (fp32; double 12, 16 bits 192); a sequence's rows do not if sequences are interleaved, nor where they hold its
// exponentials: in fp32 and double those of a sequence too long for its worker's memory, or split over workers. In fp32 with AVX-512 such
// a sequence's logits are read twice instead. Scratch (js_routing_workspace_bytes): a few rows a worker, layers x sequences doubles, for a
// sequence's exponentials at most 8 MiB a worker and 28 in all where the gradient cannot hold them or is that large, at most 64 rows of
// sums for each of 4 sequences a worker that are split over workers.
//
// Cost and memory, CUDA. Views lie in memory of the stream's device; lists of layers stay on the host and are read during the call.
// The call enqueues and returns: it waits for nothing, copies nothing from the host and, with a workspace lent, allocates nothing, so it may
// be captured in a graph. Three kernels for all layers: the plan of the sequences, the first sweep with the step, the second sweep;
// one more where token weights are summed, and one for each list whose layers lie at no common stride. Logits are read twice, 6 bytes
// an element in bf16. Scratch (js_routing_workspace_bytes of inputs, outputs and options, from shapes alone): a row of [experts] for
// each tile of 64 to 1024 token rows and each sequence of each layer: below 1 % of bf16 logits from 200,000 rows (layers x tokens) on, at
// sequences of 1024 tokens and more. The lanes of a warp add up at most 64 tokens each, their sums are added in a fixed order,
// and tiles in double. Sums are taken in another order than on the CPU, and multiply-adds are fused: results agree within rounding.
// The step is in double: slow on GPUs with few units for it, where it shows in short sequences.
//
// Errors. A broken contract throws sara::invalid_argument, which names the argument with expected and actual shape; nothing has
// been written then. A checked build (SARA_CHECKED=1) also looks at the data: sara/core/data_checks.hpp; on a GPU it looks where the
// arguments lie. What CUDA refuses throws sara::cuda_error, with the call's name. js_routing, which waits for the loss, throws
// sara::invalid_argument on a stream that captures.
#pragma once

#include "js_routing/cpu.hpp"
#if defined(__CUDACC__)
#include "js_routing/cuda.cuh"
#endif
