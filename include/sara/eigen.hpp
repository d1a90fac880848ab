// The library through Eigen 3.4: view() of Eigen objects, and eigen_executor for every operation.
//
//   using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
//   matrix logits = ..., anchors = ..., grad(logits.rows(), logits.cols());
//   sara::js_routing_into(sara::eigen_executor{},
//                         sara::js_routing_inputs<float>{.logits = sara::view(logits),
//                                                        .sequences = sara::sequences_view::uniform(batch, length),
//                                                        .anchors = sara::view(anchors)},
//                         {.grad_logits = sara::view(grad)});
//
// | piece                     | contract                                                                                           |
// |---------------------------|----------------------------------------------------------------------------------------------------|
// | sara::view(m)             | row-major Matrix, Array, Map, Ref, Block: matrix_view; vectors: vector_view; of const: views of const |
// | sara::eigen_executor      | takes the same inputs, outputs and options as cpu_executor, and keeps the same promises             |
//
// Views serve every executor: view() is how Eigen's memory gets to the fast kernels as well.
//
// Scalars: double, float and the 16-bit storages (the library's own, Eigen::bfloat16, Eigen::half) as on the CPU; and, computed in
// themselves, long double, Eigen::AutoDiffScalar (include <unsupported/Eigen/AutoDiff>; derivatives flow through the loss, the
// histograms and the gradient) and any other scalar with an Eigen::NumTraits and, found by its namespace, exp, log, log1p, atanh.
//
// Numerics: softmax in the arithmetic of the storage, row maximum subtracted; sums over tokens and the divergence in double for
// float. Cost: one thread, scratch of O(sequences + tokens + experts). The same bits on every run.
//
// Not for CUDA sources: these headers stop the compiler under nvcc.
#pragma once

#include "eigen/executor.hpp"
#include "eigen/view.hpp"
#include "gate_softmax/eigen.hpp"
#include "js_divergence/eigen.hpp"
#include "js_routing/eigen.hpp"
#include "routing_histogram/eigen.hpp"
#include "top_k/eigen.hpp"
