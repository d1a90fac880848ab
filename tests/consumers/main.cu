// main.cpp's batch on a stream: loss and gradient.
#include <sara/js_routing.hpp>

#include <cstdio>

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: no CUDA device");
    return 0;
  }
  const float given[] = {1, 0, 2, 0, 0.5f, 0.5f};   // logits, anchors
  float found[5] = {}, *memory = nullptr;           // gradient, loss
  cudaStream_t stream;
  if (cudaStreamCreate(&stream) != cudaSuccess || cudaMalloc(&memory, sizeof given + sizeof found) != cudaSuccess) return 1;
  cudaMemcpyAsync(memory, given, sizeof given, cudaMemcpyHostToDevice, stream);
  const sara::js_routing_inputs<float> batch{.logits = sara::matrix_view{memory, 2, 2},
                                             .sequences = sara::sequences_view::uniform(1, 2),
                                             .anchors = sara::matrix_view{memory + 4, 1, 2}};
  sara::js_routing_into(sara::cuda_executor{stream}, batch,
                        {.loss = sara::vector_view{memory + 10, 1}, .grad_logits = sara::matrix_view{memory + 6, 2, 2}});
  cudaMemcpyAsync(found, memory + 6, sizeof found, cudaMemcpyDeviceToHost, stream);
  if (cudaStreamSynchronize(stream) != cudaSuccess) return 1;
  return found[4] > 0 && found[4] < 0.7f && found[0] > 0 && found[1] < 0 ? 0 : 1;
}
