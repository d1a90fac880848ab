// What the routing histograms and their backwards refuse, naming the argument and writing nothing.
#include <sara/routing_histogram.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::for_each_executor;
using sara::layers_view, sara::matrix_view, sara::sequences_view, sara::vector_view;

// Everything that a call may reach; compared before and after.
struct memory {
  std::vector<float> logits = std::vector<float>(64, 0.5f), weights = std::vector<float>(16, 1), a = std::vector<float>(64, 7),
                     b = std::vector<float>(64, 7), mass = std::vector<float>(8, 7);
  std::vector<std::int32_t> indices = std::vector<std::int32_t>(32, 1), offsets = {0, 3, 6};
  std::vector<std::int64_t> counts = std::vector<std::int64_t>(64, 7);

  bool operator==(const memory&) const = default;
};

// Two layers of six tokens and five experts, two sequences.
constexpr int layers = 2, tokens = 6, experts = 5, sequences = 2, k = 2;

template <class Call> bool refuses(memory& m, const char* function, const char* argument, Call&& call) {
  const memory before = m;
  const std::string said = oracle::complaint(call);
  INFO(said);
  const bool right = oracle::complains(call, function, argument);
  CHECK(right);
  return right && m == before;
}

}   // namespace

TEST_CASE("routing_histogram: broken contracts", "[routing_histogram]") {
  for_each_executor([](const auto& exec, const char* name) {
    INFO(name);
    memory m;
    using inputs = sara::routing_histogram_inputs<float>;
    using outputs = sara::routing_histogram_outputs<float>;
    const auto bad = [&](const char* argument, const inputs& in, const outputs& out) {
      return refuses(m, "routing_histogram_into", argument, [&] { sara::routing_histogram_into(exec, in, out); });
    };
    const layers_view<const float> logits{m.logits.data(), layers, tokens, experts};
    const layers_view<float> out{m.a.data(), layers, sequences, experts};
    const auto uniform = sequences_view::uniform(sequences, 3);
    CHECK(bad("logits", {.logits = {}, .sequences = uniform}, {.histograms = out}));
    CHECK(
        bad("logits", {.logits = layers_view<const float>{m.logits.data(), layers, tokens, 0}, .sequences = uniform}, {.histograms = out}));
    CHECK(bad("logits", {.logits = layers_view<const float>{m.logits.data(), 0, tokens, experts}, .sequences = uniform},
              {.histograms = out}));
    CHECK(bad("logits", {.logits = layers_view<const float>{m.logits.data(), layers, tokens, experts, 4, 32}, .sequences = uniform},
              {.histograms = out}));
    CHECK(bad("sequences", {.logits = logits}, {.histograms = out}));
    CHECK(bad("sequences", {.logits = logits, .sequences = sequences_view::uniform(sequences, 4)}, {.histograms = out}));
    CHECK(bad("sequences", {.logits = logits, .sequences = sequences_view::interleaved(7, 1)}, {.histograms = out}));
    CHECK(bad("token_weights", {.logits = logits, .sequences = uniform, .token_weights = vector_view{m.weights.data(), 5}},
              {.histograms = out}));
    CHECK(bad("histograms", {.logits = logits, .sequences = uniform}, {.histograms = layers_view<float>{m.a.data(), layers, 3, experts}}));
    CHECK(bad("histograms", {.logits = logits, .sequences = uniform}, {.histograms = matrix_view{m.a.data(), sequences, experts}}));
    CHECK(bad("sums", {.logits = logits, .sequences = uniform}, {.sums = layers_view<float>{m.a.data(), layers, sequences, 4}}));
    CHECK(bad("token_mass", {.logits = logits, .sequences = uniform}, {.token_mass = vector_view{m.mass.data(), 3}}));
    CHECK(bad("sums", {.logits = logits, .sequences = uniform}, {.histograms = out, .sums = out}));
    CHECK(bad("histograms", {.logits = logits, .sequences = uniform},
              {.histograms = layers_view<float>{m.logits.data(), layers, sequences, experts}}));
    CHECK(bad("token_mass", {.logits = logits, .sequences = uniform, .token_weights = vector_view{m.weights.data(), tokens}},
              {.token_mass = vector_view{m.weights.data() + 1, 2}}));
    const std::vector<matrix_view<const float>> uneven{{m.logits.data(), tokens, experts}, {m.logits.data() + 30, 5, experts}};
    CHECK(bad("logits[1]", {.logits = uneven, .sequences = uniform}, {.histograms = out}));
  });
}

TEST_CASE("routing_histogram_backward: broken contracts", "[routing_histogram]") {
  for_each_executor([](const auto& exec, const char* name) {
    INFO(name);
    memory m;
    using inputs = sara::routing_histogram_backward_inputs<float>;
    const auto bad = [&](const char* argument, const inputs& in, const layers_view<float>& out,
                         sara::gradient_mode mode = sara::gradient_mode::overwrite) {
      return refuses(m, "routing_histogram_backward_into", argument,
                     [&] { sara::routing_histogram_backward_into(exec, in, {.grad_logits = out}, {.mode = mode}); });
    };
    const layers_view<const float> logits{m.logits.data(), layers, tokens, experts}, grad{m.b.data(), layers, sequences, experts};
    const layers_view<float> out{m.a.data(), layers, tokens, experts};
    const auto uniform = sequences_view::uniform(sequences, 3);
    CHECK(bad("logits", {.logits = {}, .sequences = uniform, .grad_histograms = grad}, out));
    CHECK(bad("sequences", {.logits = logits, .grad_histograms = grad}, out));
    CHECK(bad("grad_histograms", {.logits = logits, .sequences = uniform}, out));
    CHECK(bad("grad_histograms",
              {.logits = logits, .sequences = uniform, .grad_histograms = layers_view<const float>{m.b.data(), layers, 3, experts}}, out));
    CHECK(bad("token_weights",
              {.logits = logits, .sequences = uniform, .token_weights = vector_view{m.weights.data(), 7}, .grad_histograms = grad}, out));
    CHECK(bad("token_mass", {.logits = logits, .sequences = uniform, .token_mass = vector_view{m.mass.data(), 3}, .grad_histograms = grad},
              out));
    CHECK(bad("grad_logits", {.logits = logits, .sequences = uniform, .grad_histograms = grad},
              layers_view<float>{m.a.data(), layers, 5, experts}));
    CHECK(bad("grad_logits", {.logits = logits, .sequences = uniform, .grad_histograms = grad},
              layers_view<float>{m.logits.data() + 1, layers, tokens, experts}));
    CHECK(bad("grad_logits", {.logits = logits, .sequences = uniform, .grad_histograms = grad},
              layers_view<float>{m.b.data(), layers, tokens, experts}));
    CHECK(bad("grad_logits", {.logits = logits, .sequences = uniform, .grad_histograms = grad},
              layers_view<float>{m.logits.data(), layers, tokens, experts}, sara::gradient_mode::accumulate));
  });
}

TEST_CASE("hard_routing_histogram: broken contracts, forward and backward", "[routing_histogram]") {
  for_each_executor([](const auto& exec, const char* name) {
    INFO(name);
    memory m;
    using inputs = sara::hard_routing_histogram_inputs<float>;
    using outputs = sara::hard_routing_histogram_outputs<float>;
    const auto bad = [&](const char* argument, const inputs& in, const outputs& out) {
      return refuses(m, "hard_routing_histogram_into", argument, [&] { sara::hard_routing_histogram_into(exec, in, out); });
    };
    const layers_view<const std::int32_t> indices{m.indices.data(), layers, tokens, k};
    const layers_view<float> out{m.a.data(), layers, sequences, experts};
    const auto uniform = sequences_view::uniform(sequences, 3);
    CHECK(bad("indices", {.indices = {}, .experts = experts, .sequences = uniform}, {.sums = out}));
    CHECK(bad("experts", {.indices = indices, .sequences = uniform}, {.sums = out}));
    CHECK(bad("sequences", {.indices = indices, .experts = experts}, {.sums = out}));
    CHECK(bad("sequences", {.indices = indices, .experts = experts, .sequences = sequences_view::uniform(2, 2)}, {.sums = out}));
    CHECK(bad("token_weights",
              {.indices = indices, .experts = experts, .sequences = uniform, .token_weights = vector_view{m.weights.data(), 5}},
              {.sums = out}));
    CHECK(bad(
        "weights",
        {.indices = indices, .experts = experts, .sequences = uniform, .weights = layers_view<const float>{m.b.data(), layers, tokens, 3}},
        {.sums = out}));
    CHECK(bad("histograms", {.indices = indices, .experts = 4, .sequences = uniform}, {.histograms = out}));
    CHECK(bad("sums", {.indices = indices, .experts = 4, .sequences = uniform}, {.sums = out}));
    CHECK(bad("counts", {.indices = indices, .experts = experts, .sequences = uniform},
              {.counts = layers_view<std::int64_t>{m.counts.data(), layers, 3, experts}}));
    CHECK(bad("token_mass", {.indices = indices, .experts = experts, .sequences = uniform}, {.token_mass = vector_view{m.mass.data(), 1}}));
    CHECK(bad("sums", {.indices = indices, .experts = experts, .sequences = uniform}, {.histograms = out, .sums = out}));

    const auto refuses_backward = [&](const char* argument, const sara::hard_routing_histogram_backward_inputs<float>& in,
                                      const layers_view<float>& to) {
      return refuses(m, "hard_routing_histogram_backward_into", argument,
                     [&] { sara::hard_routing_histogram_backward_into(exec, in, {.grad_weights = to}); });
    };
    const layers_view<const float> grad{m.b.data(), layers, sequences, experts};
    const layers_view<float> to{m.a.data(), layers, tokens, k};
    CHECK(refuses_backward("indices", {.indices = {}, .sequences = uniform, .grad_histograms = grad}, to));
    CHECK(refuses_backward("sequences", {.indices = indices, .grad_histograms = grad}, to));
    CHECK(refuses_backward("grad_histograms", {.indices = indices, .sequences = uniform}, to));
    CHECK(refuses_backward(
        "grad_histograms",
        {.indices = indices, .sequences = uniform, .grad_histograms = layers_view<const float>{m.b.data(), layers, 3, experts}}, to));
    CHECK(refuses_backward("token_mass",
                           {.indices = indices, .sequences = uniform, .token_mass = vector_view{m.mass.data(), 1}, .grad_histograms = grad},
                           to));
    CHECK(refuses_backward("grad_weights", {.indices = indices, .sequences = uniform, .grad_histograms = grad},
                           layers_view<float>{m.a.data(), layers, tokens, 3}));
    CHECK(refuses_backward("grad_weights", {.indices = indices, .sequences = uniform, .grad_histograms = grad},
                           layers_view<float>{m.b.data(), layers, tokens, k}));
  });
}
