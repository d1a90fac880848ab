// The router's softmax on the GPU, and its backward.
//
// Bytes of one element: forward T (logits) + P (probs), backward P (probs) + P (grad_probs) + P (grad_logits).
#include <cuda_bf16.h>
#include <sara/gate_softmax.hpp>

#include "measure.cuh"
#include "problem.hpp"

namespace benchmarks {
namespace {

using bf16 = __nv_bfloat16;

template <class T> constexpr const char* storage_name = std::is_same_v<T, float> ? "fp32" : "bf16";

struct shape {
  index_t tokens, experts;

  index_t elements() const { return tokens * experts; }
};
std::string text(const shape& s) { return std::to_string(s.tokens) + "x" + std::to_string(s.experts); }

template <class T, class P> timed_call forward(const shape& s) {
  const double bytes = static_cast<double>(s.elements()) * (sizeof(T) + sizeof(P));
  const index_t sets = sets_for(bytes);
  struct memory {
    std::vector<T> host;
    device_array<T> logits;
    device_array<P> probs;
  };
  const auto m = std::make_shared<memory>();
  m->host = random_logits<T>(s.elements(), 1);
  m->logits = device_array<T>(m->host, sets);
  m->probs = device_array<P>(s.elements() * sets);
  return {
      .bytes = bytes,
      .tolerance = tolerance_of<P>,
      .sets = sets,
      .run =
          [=](index_t set, cudaStream_t stream) {
            sara::gate_softmax_into(
                sara::cuda_executor{stream},
                sara::gate_softmax_inputs<T>{.logits =
                                                 sara::matrix_view<const T>(m->logits.data() + set * s.elements(), s.tokens, s.experts)},
                sara::gate_softmax_outputs<T, P>{.probs = sara::matrix_view<P>(m->probs.data() + set * s.elements(), s.tokens, s.experts)});
          },
      .error =
          [=](index_t set) { return largest_error(m->probs.read(set * s.elements(), s.elements()), expect_softmax(m->host, s.experts)); }};
}

template <class P> timed_call backward(const shape& s) {
  const double bytes = static_cast<double>(s.elements()) * 3 * sizeof(P);
  const index_t sets = sets_for(bytes);
  struct memory {
    std::vector<P> host_probs, host_grad_probs;
    device_array<P> probs, grad_probs, grad_logits;
  };
  const auto m = std::make_shared<memory>();
  for (const float p : random_distributions(s.tokens, s.experts, 1)) m->host_probs.push_back(P(p));
  m->host_grad_probs = random_logits<P>(s.elements(), 2);
  m->probs = device_array<P>(m->host_probs, sets);
  m->grad_probs = device_array<P>(m->host_grad_probs, sets);
  m->grad_logits = device_array<P>(s.elements() * sets);
  return {.bytes = bytes,
          .tolerance = tolerance_of<P>,
          .sets = sets,
          .run =
              [=](index_t set, cudaStream_t stream) {
                const auto matrix = [&](const device_array<P>& a) {
                  return sara::matrix_view<P>(a.data() + set * s.elements(), s.tokens, s.experts);
                };
                sara::gate_softmax_backward_into(
                    sara::cuda_executor{stream},
                    sara::gate_softmax_backward_inputs<P>{.probs = matrix(m->probs), .grad_probs = matrix(m->grad_probs)},
                    sara::gate_softmax_backward_outputs<P>{.grad_logits = matrix(m->grad_logits)});
              },
          .error =
              [=](index_t set) {
                return largest_error(m->grad_logits.read(set * s.elements(), s.elements()),
                                     expect_softmax_backward(m->host_probs, m->host_grad_probs, s.experts));
              }};
}

void add_all(const batch_size& size) {
  const index_t tokens = 8 * size.tokens;
  for (const index_t experts : {128, 60, 64, 256, 384}) {
    const shape s{tokens, experts};
    add("gate_softmax/bf16/" + text(s), [=] { return forward<bf16, bf16>(s); });
    add("gate_softmax/bf16-fp32/" + text(s), [=] { return forward<bf16, float>(s); });
    add("gate_softmax/fp32/" + text(s), [=] { return forward<float, float>(s); });
  }
  add("gate_softmax_backward/bf16/" + text(shape{tokens, 128}), [=] { return backward<bf16>({tokens, 128}); });
  add("gate_softmax_backward/fp32/" + text(shape{tokens, 128}), [=] { return backward<float>({tokens, 128}); });
}

}   // namespace
}   // namespace benchmarks

int main(int argc, char** argv) { return benchmarks::run(argc, argv, benchmarks::add_all); }
