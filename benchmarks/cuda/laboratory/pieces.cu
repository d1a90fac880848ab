// The library's pieces, one after the other: routing_histogram, js_divergence, routing_histogram_backward, and a mean. What a trainer does
// whose sequences are spread over ranks. (gate_softmax is none of them: the histogram is taken from the logits.)
#include <sara/js_divergence.hpp>
#include <sara/routing_histogram.hpp>

#include "rows.cuh"

namespace benchmarks::laboratory {
namespace {

struct memory {
  float *histograms, *slopes, *divergences;   // [units, experts] twice, [units]
  void* scratch;
};

template <class T> __global__ void mean(const __grid_constant__ batch<T> b, const float* divergences) {
  const int lane = static_cast<int>(threadIdx.x);
  double sum = 0;
  for (index_t u = lane; u < b.units(); u += 32) sum += static_cast<double>(divergences[u]);
#pragma unroll
  for (int o = 1; o < 32; o *= 2) sum += __shfl_xor_sync(full_warp, sum, o);
  if (lane == 0) *b.loss = static_cast<float>(sum / static_cast<double>(b.units()));
}

template <class T> struct calls {
  sara::routing_histogram_inputs<T> histogram_in;
  sara::routing_histogram_outputs<T> histogram_out;
  sara::js_divergence_inputs<float> divergence_in;
  sara::js_divergence_outputs<float> divergence_out;
  sara::routing_histogram_backward_inputs<T> backward_in;
  sara::routing_histogram_backward_outputs<T> backward_out;

  calls(const batch<T>& b, const memory& m) {
    const index_t tokens = b.sequences * b.length;
    const auto sequences = sara::sequences_view::uniform(b.sequences, b.length);
    const sara::layers_view<const T> logits(b.logits, b.layers, tokens, experts);
    histogram_in = {.logits = logits, .sequences = sequences};
    histogram_out = {.histograms = sara::layers_view<float>(m.histograms, b.layers, b.sequences, experts)};
    divergence_in = {.p = sara::matrix_view<const float>(b.anchors, b.units(), experts),
                     .q = sara::matrix_view<const float>(m.histograms, b.units(), experts)};
    // One by one: in a template nvcc 13.0 forgets the designators of an assignment, and takes .grad_q for the field behind .divergence.
    divergence_out.divergence = {m.divergences, b.units()};
    divergence_out.grad_q = sara::matrix_view<float>(m.slopes, b.units(), experts);
    backward_in.logits = logits;
    backward_in.sequences = sequences;
    backward_in.grad_histograms = sara::layers_view<const float>(m.slopes, b.layers, b.sequences, experts);
    backward_out = {.grad_logits = sara::layers_view<T>(b.gradient, b.layers, tokens, experts)};
  }
  std::size_t scratch_bytes() const {
    return std::max(sara::routing_histogram_workspace_bytes(histogram_in, histogram_out),
                    sara::routing_histogram_backward_workspace_bytes(backward_in, backward_out));
  }
};

}   // namespace

template <class T> design pieces(const batch<T>& b) {
  const std::size_t bytes = calls<T>(b, {}).scratch_bytes();
  return with_scratch<memory>(
      "the library's pieces",
      [=](sara::carver& c) {
        memory m;
        m.histograms = c.take<float>(b.units() * experts);
        m.slopes = c.take<float>(b.units() * experts);
        m.divergences = c.take<float>(b.units());
        m.scratch = c.take<char>(static_cast<index_t>(bytes));
        return m;
      },
      [=](cudaStream_t stream, const memory& m) {
        const calls<T> call(b, m);
        const sara::cuda_executor exec{stream, sara::workspace{m.scratch, bytes}};
        sara::routing_histogram_into(exec, call.histogram_in, call.histogram_out);
        sara::js_divergence_into(exec, call.divergence_in, call.divergence_out, {.scale = 1 / static_cast<double>(b.units())});
        launch(mean<T>, 1, 32, 0, 1, stream, b, static_cast<const float*>(m.divergences));
        sara::routing_histogram_backward_into(exec, call.backward_in, call.backward_out);
      });
}

template design pieces(const batch<bf16>&);
template design pieces(const batch<float>&);

}   // namespace benchmarks::laboratory
