// The README's first program on a GPU: the same batch in Thrust's vectors, on a stream of the program's own.
// The tables are laid out by hand.
// clang-format off
#include <cstdio>
#include <vector>

#include <thrust/transform.h>

// [quickstart_cuda]
#include <sara/js_routing.hpp>
#include <sara/thrust.cuh>

void step(cudaStream_t stream, int tokens, int experts, int sequences, const thrust::device_vector<float>& logits,
          const thrust::device_vector<std::int32_t>& cu_seqlens, const thrust::device_vector<float>& anchors,
          thrust::device_vector<float>& loss, thrust::device_vector<float>& grad) {
  const sara::cuda_executor gpu{stream};                                 // scratch from the stream's pool; or lend it a workspace
  const sara::js_routing_inputs<float> batch{.logits = sara::view(logits, tokens, experts),
                                             .sequences = sara::sequences_view::packed(sara::view(cu_seqlens)),
                                             .anchors = sara::view(anchors, sequences, experts)};
  sara::js_routing_into(gpu, batch, {.loss = sara::view(loss), .grad_logits = sara::view(grad, tokens, experts)});
}                                                                        // enqueued, not waited for: may be captured in a graph
// [quickstart_cuda]

struct descend {
  __device__ float operator()(float z, float g) const { return z - 20 * g; }
};

int main() {
  if (int devices = 0; cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("quickstart_cuda: needs a GPU, but this machine has none that its CUDA driver can use");
    return 77;
  }
  constexpr int tokens = 5, experts = 4, sequences = 2;
  thrust::device_vector<float> logits(std::vector<float>{2, 0, 1, -1,  1, 1, 0, 0,  3, 0, 0, 1,
                                                         0, 2, 0, 1,   1, 3, -1, 0});
  const thrust::device_vector<std::int32_t> cu_seqlens(std::vector<std::int32_t>{0, 3, 5});
  const thrust::device_vector<float> anchors(std::vector<float>{0.1f, 0.6f, 0.2f, 0.1f,
                                                                0.4f, 0.1f, 0.4f, 0.1f});
  thrust::device_vector<float> grad(logits.size()), loss(1);

  cudaStream_t stream;
  cudaStreamCreate(&stream);
  for (int i = 0; i < 5; ++i) {
    step(stream, tokens, experts, sequences, logits, cu_seqlens, anchors, loss, grad);
    cudaStreamSynchronize(stream);
    std::printf("step %d: loss %.4f\n", i, static_cast<double>(loss[0]));
    thrust::transform(logits.begin(), logits.end(), grad.begin(), logits.begin(), descend{});
  }
  cudaStreamDestroy(stream);
}
