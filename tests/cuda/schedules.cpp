// In whichever order threads and blocks run, results are the same bits. On the emulated device, which can be told an order.
#include <sara/js_divergence.hpp>
#include <sara/routing_histogram.hpp>

#include <emulated_cuda.h>

#include "batch.cuh"
#include "catch.hpp"

using namespace device_tests;

namespace {

// call() on a stream of its own, and then read(), for every order.
template <class Call, class Read> void same_for_every_schedule(const Call& call, const Read& read) {
  std::vector<char> first;
  for (const char* const order : {"forward", "backward", "1", "2", "3"}) {
    emulated_cuda::set_schedule(order);
    const stream on;
    call(sara::cuda_executor{on});
    on.wait();
    emulated_cuda::set_schedule("forward");
    const std::vector<char> bytes = read();
    if (first.empty()) first = bytes;
    INFO(order);
    CHECK((bytes == first));
  }
}
template <class T> std::vector<char> bytes_of(const device_vector<T>& v) {
  const std::vector<T> values = v.get();
  const auto* const first = reinterpret_cast<const char*>(values.data());
  return {first, first + values.size() * sizeof(T)};
}

constexpr sara::index_t layers = 2, tokens = 300, experts = 50, k = 6, sequences = 3;

}   // namespace

TEST_CASE("js_routing gives the same bits for every order of threads and blocks", "[cuda]") {
  batch b(51);
  same_for_every_schedule([&](const auto& exec) { sara::js_routing_into(exec, b.inputs(), b.outputs()); }, [&] { return b.bytes(); });
}

TEST_CASE("routing histograms give the same bits for every order of threads and blocks", "[cuda]") {
  oracle::source from(52);
  const device_vector<double> logits(from.normals(layers * tokens * experts, 2)), weights(from.uniforms(layers * tokens * k, 0, 1)),
      sums(layers * sequences * experts, NAN);
  std::vector<std::int32_t> chosen(layers * tokens * k);
  for (auto& e : chosen) e = static_cast<std::int32_t>(from.below(experts / 5));   // of a few, so that lanes meet
  const device_vector<std::int32_t> indices(chosen);
  const auto rows = sara::layers_view<double>(sums.data(), layers, sequences, experts);
  const auto batch = sara::sequences_view::interleaved(tokens / sequences, sequences);

  same_for_every_schedule(
      [&](const auto& exec) {
        const sara::routing_histogram_inputs<double> in{.logits = sara::layers_view<const double>(logits.data(), layers, tokens, experts),
                                                        .sequences = batch};
        sara::routing_histogram_into(exec, in, {.sums = rows});
      },
      [&] { return bytes_of(sums); });
  same_for_every_schedule(
      [&](const auto& exec) {
        const sara::hard_routing_histogram_inputs<double> in{
            .indices = sara::layers_view<const std::int32_t>(indices.data(), layers, tokens, k),
            .experts = experts,
            .sequences = batch,
            .weights = sara::layers_view<const double>(weights.data(), layers, tokens, k)};
        sara::hard_routing_histogram_into(exec, in, {.sums = rows});
      },
      [&] { return bytes_of(sums); });
}

TEST_CASE("js_divergence gives the same bits for every order of threads and blocks", "[cuda]") {
  oracle::source from(53);
  const device_vector<double> p(oracle::distributions(from, tokens, experts)), q(oracle::distributions(from, tokens, experts));
  const device_vector<double> divergence(tokens, NAN);
  const sara::js_divergence_inputs<double> in{.p = sara::matrix_view<const double>(p.data(), tokens, experts),
                                              .q = sara::matrix_view<const double>(q.data(), tokens, experts)};
  same_for_every_schedule(
      [&](const auto& exec) { sara::js_divergence_into(exec, in, {.divergence = sara::vector_view<double>(divergence.data(), tokens)}); },
      [&] { return bytes_of(divergence); });
}
