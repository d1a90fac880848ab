// Compiled once for each set of nvcc's flags.
#include <cstdio>

#include <sara/js_divergence.hpp>

#include "cuda_part.hpp"

namespace linkage {

static outcome run(const float* p, const float* q, float* divergence) try {
  const sara::js_divergence_inputs<float> in{.p = sara::matrix_view{p, rows, experts}, .q = sara::matrix_view{q, rows, experts}};
  sara::js_divergence_into(sara::cuda_executor{cudaStreamPerThread}, in, {.divergence = sara::vector_view{divergence, rows}});
  return cudaStreamSynchronize(cudaStreamPerThread) == cudaSuccess ? outcome::ran : outcome::failed;
} catch (const sara::cuda_error& e) {
  if (e.code() == cudaErrorNoKernelImageForDevice) return outcome::not_for_this_device;
  std::puts(e.what());
  return outcome::failed;
}

static cuda_part here(PART, run);

}   // namespace linkage
