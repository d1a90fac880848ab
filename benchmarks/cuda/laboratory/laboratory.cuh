// The laboratory of the fused loss: candidate designs, from naive to fast, each in a file of its own, raced by laboratory.cu. All solve the
// same problem, which leaves out what does not tell designs apart: 128 experts, sequences of one length, an anchor each, no weights,
//
//   loss = mean of JS(anchor, histogram) over (layer, sequence) pairs, and its gradient in the logits' storage,
//
// and keep the house's rules: no float atomics, no cooperative launch, nothing allocated or waited for by the host.
#pragma once

#include <cuda_bf16.h>
#include <sara/core/workspace.hpp>

#include <functional>

#include "../device.cuh"

namespace benchmarks::laboratory {

inline constexpr int experts = 128;

// Units are (layer, sequence) pairs.
template <class T> struct batch {
  index_t layers, sequences, length;
  const T* logits;        // [units, length, experts]
  const float* anchors;   // [units, experts]
  float* loss;            // [1]
  T* gradient;            // [units, length, experts]

  __host__ __device__ index_t units() const { return layers * sequences; }
  __host__ __device__ index_t rows() const { return units() * length; }
};

struct design {
  std::string name;
  std::string unfit = {};   // why it cannot solve this problem; empty: it can
  std::size_t scratch_bytes = 0;
  std::function<void(cudaStream_t, void* scratch)> run = {};
};

// A design whose scratch is a Memory, which carves itself from a carver. `enqueue(stream, const Memory&)`.
template <class Memory, class Carve, class Enqueue> design with_scratch(std::string name, const Carve& carve, const Enqueue& enqueue) {
  sara::carver counts;
  carve(counts);
  const std::size_t bytes = counts.bytes();
  return {.name = std::move(name), .scratch_bytes = bytes, .run = [=](cudaStream_t stream, void* scratch) {
            sara::carver memory(sara::workspace{scratch, bytes});
            const Memory m = carve(memory);
            enqueue(stream, m);
          }};
}

using bf16 = __nv_bfloat16;

// The candidates.
template <class T> design naive(const batch<T>&);
template <class T> design pieces(const batch<T>&);
template <class T> design library(const batch<T>&);
template <class T> design two_sweeps(const batch<T>&, bool by_instruction);
template <class T> design clusters(const batch<T>&, int blocks_a_multiprocessor);
template <class T> design persistent(const batch<T>&);

}   // namespace benchmarks::laboratory
