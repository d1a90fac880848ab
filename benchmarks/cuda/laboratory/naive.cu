// One thread a row, a dense array of probabilities, a kernel a step: what one writes first.
//
// Bytes of an element of bf16: 2 (logits) + 4 (probabilities written) + 4 (read for the histogram) + 4 (read for the gradient) + 2.
#include <sara/math/js.hpp>

#include "laboratory.cuh"

namespace benchmarks::laboratory {
namespace {

struct memory {
  float* probs;          // [rows, experts]
  float* slopes;         // [units, experts]
  double* divergences;   // [units]
};

__device__ index_t me() { return static_cast<index_t>(blockIdx.x) * static_cast<index_t>(blockDim.x) + static_cast<index_t>(threadIdx.x); }

template <class T> __global__ void softmax(const __grid_constant__ batch<T> b, float* probs) {
  const index_t row = me();
  if (row >= b.rows()) return;
  const T* const z = b.logits + row * experts;
  float* const p = probs + row * experts;
  float most = sara::load_value(z[0]), sum = 0;
  for (int e = 1; e < experts; ++e) most = fmaxf(most, sara::load_value(z[e]));
  for (int e = 0; e < experts; ++e) sum += p[e] = expf(sara::load_value(z[e]) - most);
  for (int e = 0; e < experts; ++e) p[e] /= sum;
}

// The histogram's slopes and terms: one thread an expert of a unit.
template <class T> __global__ void histogram(const __grid_constant__ batch<T> b, const __grid_constant__ memory m) {
  const index_t unit = me() / experts;
  const int e = static_cast<int>(me() % experts);
  if (unit >= b.units()) return;
  double sum = 0;
  for (index_t t = 0; t < b.length; ++t) sum += static_cast<double>(m.probs[(unit * b.length + t) * experts + e]);
  m.slopes[unit * experts + e] = static_cast<float>(sum / static_cast<double>(b.length));
}

template <class T> __global__ void divergence(const __grid_constant__ batch<T> b, const __grid_constant__ memory m) {
  const index_t unit = me();
  if (unit >= b.units()) return;
  double js = 0;
  for (index_t at = unit * experts; at < (unit + 1) * experts; ++at) {
    const auto term = sara::math::js(static_cast<double>(b.anchors[at]), static_cast<double>(m.slopes[at]));
    js += term.value;
    m.slopes[at] = static_cast<float>(term.slope_q);
  }
  m.divergences[unit] = js;
}

template <class T> __global__ void mean(const __grid_constant__ batch<T> b, const double* divergences) {
  double sum = 0;
  for (index_t unit = 0; unit < b.units(); ++unit) sum += divergences[unit];
  *b.loss = static_cast<float>(sum / static_cast<double>(b.units()));
}

template <class T> __global__ void gradient(const __grid_constant__ batch<T> b, const __grid_constant__ memory m) {
  const index_t row = me();
  if (row >= b.rows()) return;
  const float *const p = m.probs + row * experts, *const slope = m.slopes + row / b.length * experts;
  float dot = 0;
  for (int e = 0; e < experts; ++e) dot += p[e] * slope[e];
  for (int e = 0; e < experts; ++e)
    sara::store_value(b.gradient[row * experts + e], p[e] * (slope[e] - dot) / static_cast<float>(b.rows()));
}

}   // namespace

template <class T> design naive(const batch<T>& b) {
  return with_scratch<memory>(
      "naive: a thread a row, dense probabilities",
      [=](sara::carver& c) {
        memory m;
        m.probs = c.take<float>(b.rows() * experts);
        m.slopes = c.take<float>(b.units() * experts);
        m.divergences = c.take<double>(b.units());
        return m;
      },
      [=](cudaStream_t stream, const memory& m) {
        const auto blocks = [](index_t items) { return (items + 127) / 128; };
        launch(softmax<T>, blocks(b.rows()), 128, 0, 1, stream, b, m.probs);
        launch(histogram<T>, blocks(b.units() * experts), 128, 0, 1, stream, b, m);
        launch(divergence<T>, blocks(b.units()), 128, 0, 1, stream, b, m);
        launch(mean<T>, 1, 1, 0, 1, stream, b, m.divergences);
        launch(gradient<T>, blocks(b.rows()), 128, 0, 1, stream, b, m);
      });
}

template design naive(const batch<bf16>&);
template design naive(const batch<float>&);

}   // namespace benchmarks::laboratory
