// 16-bit types of other libraries: Eigen's, and one known only by its std::numeric_limits. Each gives the bits of the library's own.
#include <sara/eigen.hpp>
#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/js_routing.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

struct some_bfloat16 {
  std::uint16_t x;
};

}   // namespace

template <> struct std::numeric_limits<some_bfloat16> {
  static constexpr bool is_specialized = true, is_integer = false;
  static constexpr int digits = 8;
};

namespace {

using sara::matrix_view;
using bits = std::vector<std::uint16_t>;

static_assert(sara::storage_trait<Eigen::bfloat16>::format == sara::storage_format::bf16 &&
              sara::storage_trait<Eigen::half>::format == sara::storage_format::fp16);

template <class T> std::vector<T> of_bits(const bits& b) {
  std::vector<T> v(b.size());
  std::memcpy(static_cast<void*>(v.data()), b.data(), 2 * b.size());
  return v;
}
template <class T> bits to_bits(const std::vector<T>& v) {
  bits b(v.size());
  std::memcpy(b.data(), static_cast<const void*>(v.data()), 2 * b.size());
  return b;
}

// Every operation on storage T; all that it wrote, as bits.
template <class T, class Executor>
bits run_all(const Executor& exec, const bits& logits_bits, const std::vector<float>& anchors, std::size_t tokens, std::size_t experts) {
  const std::vector<T> z = of_bits<T>(logits_bits);
  const std::size_t k = std::min<std::size_t>(3, experts);
  std::vector<T> probs(z.size()), grad(z.size()), softmax_grad(z.size()), top_grad(z.size()), weight_grad(tokens * k),
      histogram_grad(z.size());
  std::vector<float> loss(1), weights(tokens * k), h(2 * experts), sums(2 * experts), divergence(2), slopes(2 * experts),
      top_weights(tokens * k, 0.5f);
  std::vector<std::int32_t> chosen(tokens * k);
  const auto batch = sara::sequences_view::uniform(2, static_cast<sara::index_t>(tokens / 2));
  const matrix_view<const T> logits{z.data(), tokens, experts}, p{probs.data(), tokens, experts};
  const matrix_view<const std::int32_t> indices{chosen.data(), tokens, k};
  const matrix_view<const float> rows{h.data(), 2, experts}, slope_rows{slopes.data(), 2, experts};

  sara::js_routing_into(
      exec, sara::js_routing_inputs<T>{.logits = logits, .sequences = batch, .anchors = matrix_view{anchors.data(), 2, experts}},
      {.loss = loss, .grad_logits = matrix_view{grad.data(), tokens, experts}});
  sara::gate_softmax_into(exec, sara::gate_softmax_inputs<T>{.logits = logits}, {.probs = matrix_view{probs.data(), tokens, experts}});
  sara::gate_softmax_backward_into(exec, sara::gate_softmax_backward_inputs<T>{.probs = p, .grad_probs = logits},
                                   {.grad_logits = matrix_view{softmax_grad.data(), tokens, experts}});
  sara::top_k_into(
      exec, sara::top_k_inputs<T, T>{.scores = logits, .values = p},
      sara::top_k_outputs<T>{.indices = matrix_view{chosen.data(), tokens, k}, .weights = matrix_view{weights.data(), tokens, k}},
      {.renormalize = true});
  sara::top_k_backward_into(
      exec, sara::top_k_backward_inputs<T>{.indices = indices, .grad_weights = matrix_view{top_weights.data(), tokens, k}, .values = p},
      {.grad_values = matrix_view{top_grad.data(), tokens, experts}});
  sara::routing_histogram_into(exec, sara::routing_histogram_inputs<T>{.logits = logits, .sequences = batch},
                               {.histograms = matrix_view{h.data(), 2, experts}});
  sara::js_divergence_into(exec, sara::js_divergence_inputs<float>{.p = rows, .q = matrix_view{anchors.data(), 2, experts}},
                           {.divergence = divergence, .grad_p = matrix_view{slopes.data(), 2, experts}});
  sara::routing_histogram_backward_into(
      exec, sara::routing_histogram_backward_inputs<T>{.logits = logits, .sequences = batch, .grad_histograms = slope_rows},
      {.grad_logits = matrix_view{histogram_grad.data(), tokens, experts}});
  const std::vector<T> narrow_weights =
      of_bits<T>(bits(logits_bits.begin(), logits_bits.begin() + static_cast<std::ptrdiff_t>(tokens * k)));
  sara::hard_routing_histogram_into(exec,
                                    sara::hard_routing_histogram_inputs<T>{.indices = indices,
                                                                           .experts = static_cast<sara::index_t>(experts),
                                                                           .sequences = batch,
                                                                           .weights = matrix_view{narrow_weights.data(), tokens, k}},
                                    {.sums = matrix_view{sums.data(), 2, experts}});
  sara::hard_routing_histogram_backward_into(
      exec, sara::hard_routing_histogram_backward_inputs<T>{.indices = indices, .sequences = batch, .grad_histograms = slope_rows},
      {.grad_weights = matrix_view{weight_grad.data(), tokens, k}});

  bits all;
  for (const auto& v : {probs, grad, softmax_grad, top_grad, weight_grad, histogram_grad}) {
    const bits b = to_bits(v);
    all.insert(all.end(), b.begin(), b.end());
  }
  for (const auto& v : {loss, weights, h, sums, divergence, slopes}) {
    bits b(2 * v.size());
    std::memcpy(b.data(), v.data(), 4 * v.size());
    all.insert(all.end(), b.begin(), b.end());
  }
  return all;
}

template <class Own, class Other> void same_as_own() {
  for (const std::size_t experts : {std::size_t{1}, std::size_t{7}, std::size_t{64}, std::size_t{129}}) {
    oracle::source from(experts);
    constexpr std::size_t tokens = 10;
    const bits logits = to_bits(oracle::as_storage<Own>(from.normals(tokens * experts, 2)));
    const auto anchors = oracle::as_storage<float>(oracle::distributions(from, 2, experts));
    oracle::for_each_host_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      const bits own = run_all<Own>(exec, logits, anchors, tokens, experts), other = run_all<Other>(exec, logits, anchors, tokens, experts);
      CHECK(own == other);
      CHECK(std::count(own.begin(), own.end(), 0) < static_cast<std::ptrdiff_t>(own.size()));
    });
  }
}

}   // namespace

TEST_CASE("eigen: Eigen::bfloat16 gives the bits of bf16 in every operation", "[eigen]") { same_as_own<sara::bf16, Eigen::bfloat16>(); }
TEST_CASE("eigen: Eigen::half gives the bits of fp16 in every operation", "[eigen]") { same_as_own<sara::fp16, Eigen::half>(); }
// Its format is all that the kernels ask of a type (core/types.hpp): one operation tells.
static_assert(sara::storage_trait<some_bfloat16>::format == sara::storage_format::bf16);
TEST_CASE("eigen: a type known by its numeric_limits gives the bits of bf16", "[eigen]") {
  oracle::source from(5);
  const bits logits = to_bits(oracle::as_storage<sara::bf16>(from.normals(10 * 129, 2)));
  oracle::for_each_host_executor([&](const auto& exec, const char* name) {
    INFO(name);
    const auto softmax = [&]<class T>(std::vector<T> z) {
      std::vector<T> probs(z.size());
      sara::gate_softmax_into(exec, sara::gate_softmax_inputs<T>{.logits = matrix_view<const T>{z.data(), 10, 129}},
                              {.probs = matrix_view{probs.data(), 10, 129}});
      return to_bits(probs);
    };
    const bits own = softmax(of_bits<sara::bf16>(logits));
    CHECK(softmax(of_bits<some_bfloat16>(logits)) == own);
    CHECK(std::count(own.begin(), own.end(), 0) < static_cast<std::ptrdiff_t>(own.size()));
  });
}
