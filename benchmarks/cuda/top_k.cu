// The choice of the k best experts of each token on the GPU, and its backward.
//
// Bytes of one token: forward experts * T (scores) + k * (4 (index) + 4 (weight)); backward experts * 4 (grad_values) + k * (4 + 4).
// "softmax": the weights are gathered from the softmax of the scores, which is not written.
#include <cuda_bf16.h>
#include <sara/top_k.hpp>

#include "measure.cuh"
#include "problem.hpp"

namespace benchmarks {
namespace {

using bf16 = __nv_bfloat16;

struct shape {
  index_t tokens, experts, k;
};
std::string text(const shape& s) { return std::to_string(s.tokens) + "x" + std::to_string(s.experts) + "/k:" + std::to_string(s.k); }

enum class weigh { scores, softmax, renormalized };   // by what, the last: softmax
constexpr const char* weigh_names[] = {"scores", "softmax", "softmax, renormalized"};

// The choice of every token and its weights, by the oracle.
struct choice {
  std::vector<std::int32_t> indices;
  std::vector<double> weights;
};
template <class T> choice expect_choice(const std::vector<T>& scores, const shape& s, weigh how) {
  const std::vector<double> z = as_double(scores);
  const auto experts = static_cast<std::size_t>(s.experts), k = static_cast<std::size_t>(s.k);
  choice want{std::vector<std::int32_t>(static_cast<std::size_t>(s.tokens) * k),
              std::vector<double>(static_cast<std::size_t>(s.tokens) * k)};
  each_at_once(s.tokens, [&](index_t token) {
    const auto t = static_cast<std::size_t>(token);
    const double* const row = &z[t * experts];
    const auto chosen = oracle::top_k(row, experts, k);
    const auto values = how == weigh::scores ? std::vector<double>(row, row + experts) : oracle::softmax(row, experts);
    double sum = 0;
    for (const auto e : chosen) sum += values[static_cast<std::size_t>(e)];
    for (std::size_t i = 0; i < k; ++i) {
      want.indices[t * k + i] = static_cast<std::int32_t>(chosen[i]);
      want.weights[t * k + i] = values[static_cast<std::size_t>(chosen[i])] / (how == weigh::renormalized ? sum : 1);
    }
  });
  return want;
}

template <class T> timed_call forward(const shape& s, weigh how) {
  const double bytes = static_cast<double>(s.tokens) * static_cast<double>(s.experts * index_t{sizeof(T)} + s.k * 8);
  const index_t sets = sets_for(bytes);
  struct memory {
    device_array<T> scores;
    device_array<std::int32_t> indices;
    device_array<float> weights;
    choice want;
  };
  const auto m = std::make_shared<memory>();
  const auto scores = random_logits<T>(s.tokens * s.experts, 1);
  m->want = expect_choice(scores, s, how);
  m->scores = device_array<T>(scores, sets);
  m->indices = device_array<std::int32_t>(s.tokens * s.k * sets);
  m->weights = device_array<float>(s.tokens * s.k * sets);
  const sara::top_k_options options{.renormalize = how == weigh::renormalized, .softmax = how != weigh::scores};
  return {.bytes = bytes,
          .tolerance = how == weigh::scores ? 0 : tolerance_of<float>,
          .sets = sets,
          .run =
              [=](index_t set, cudaStream_t stream) {
                sara::top_k_into(
                    sara::cuda_executor{stream},
                    sara::top_k_inputs<T>{
                        .scores = sara::matrix_view<const T>(m->scores.data() + set * s.tokens * s.experts, s.tokens, s.experts)},
                    sara::top_k_outputs<T>{.indices = sara::matrix_view(m->indices.data() + set * s.tokens * s.k, s.tokens, s.k),
                                           .weights = sara::matrix_view(m->weights.data() + set * s.tokens * s.k, s.tokens, s.k)},
                    options);
              },
          .error =
              [=](index_t set) {
                if (m->indices.read(set * s.tokens * s.k, s.tokens * s.k) != m->want.indices) return double(INFINITY);
                return largest_error(m->weights.read(set * s.tokens * s.k, s.tokens * s.k), m->want.weights);
              }};
}

timed_call backward(const shape& s) {
  const double bytes = static_cast<double>(s.tokens) * static_cast<double>(s.experts * 4 + s.k * 8);
  const index_t sets = sets_for(bytes);
  struct memory {
    device_array<std::int32_t> indices;
    device_array<float> grad_weights, grad_values;
    std::vector<double> want;
  };
  const auto m = std::make_shared<memory>();
  const auto chosen = expect_choice(random_logits<float>(s.tokens * s.experts, 1), s, weigh::scores).indices;
  const auto grad_weights = random_logits<float>(s.tokens * s.k, 2);
  m->want.resize(static_cast<std::size_t>(s.tokens * s.experts));
  for (std::size_t i = 0; i < chosen.size(); ++i)
    m->want[i / static_cast<std::size_t>(s.k) * static_cast<std::size_t>(s.experts) + static_cast<std::size_t>(chosen[i])] =
        static_cast<double>(grad_weights[i]);
  m->indices = device_array<std::int32_t>(chosen, sets);
  m->grad_weights = device_array<float>(grad_weights, sets);
  m->grad_values = device_array<float>(s.tokens * s.experts * sets);
  return {
      .bytes = bytes,
      .sets = sets,
      .run =
          [=](index_t set, cudaStream_t stream) {
            const index_t at = set * s.tokens * s.k;
            sara::top_k_backward_into(
                sara::cuda_executor{stream},
                sara::top_k_backward_inputs<float>{
                    .indices = sara::matrix_view<const std::int32_t>(m->indices.data() + at, s.tokens, s.k),
                    .grad_weights = sara::matrix_view<const float>(m->grad_weights.data() + at, s.tokens, s.k)},
                sara::top_k_backward_outputs<float>{
                    .grad_values = sara::matrix_view(m->grad_values.data() + set * s.tokens * s.experts, s.tokens, s.experts)});
          },
      .error = [=](index_t set) { return largest_error(m->grad_values.read(set * s.tokens * s.experts, s.tokens * s.experts), m->want); }};
}

void add_all(const batch_size& size) {
  const index_t tokens = 8 * size.tokens;
  for (const shape& s : {shape{tokens, 128, 8}, shape{tokens, 64, 6}, shape{tokens, 256, 8}, shape{tokens, 60, 4}, shape{tokens, 384, 8}})
    for (const weigh how : {weigh::scores, weigh::softmax, weigh::renormalized})
      add("top_k/bf16/" + text(s) + "/" + weigh_names[static_cast<int>(how)], [=] { return forward<bf16>(s, how); });
  for (const weigh how : {weigh::scores, weigh::renormalized})
    add("top_k/fp32/" + text(shape{tokens, 128, 8}) + "/" + weigh_names[static_cast<int>(how)], [=] {
      return forward<float>({tokens, 128, 8}, how);
    });
  add("top_k_backward/fp32/" + text(shape{tokens, 128, 8}), [=] { return backward({tokens, 128, 8}); });
}

}   // namespace
}   // namespace benchmarks

int main(int argc, char** argv) { return benchmarks::run(argc, argv, benchmarks::add_all); }
