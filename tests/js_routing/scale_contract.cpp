// The scale contract: micro-batches, layers and ranks add up to the global batch; upstream and scale do what they say.
#include <sara/js_divergence.hpp>
#include <sara/routing_histogram.hpp>

#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

// A batch with everything in it: weights of all kinds, an empty sequence, and one without an anchor.
oracle::problem whole_batch() {
  oracle::source from(21);
  auto in = oracle::plain_problem(21, 4, 1, 240, 24);
  oracle::pack(in, from, 8);
  in.offsets[3] = in.offsets[4];
  in.anchor_count = 3;
  in.anchor_rows = {0, 1, 2, 0, -1, 2, 1, 0};
  in.anchors = oracle::distributions(from, 4 * 3, 24);
  in.token_weights = from.uniforms(240, 0.1, 1);
  in.sequence_weights = from.uniforms(8, 0.5, 2);
  in.layer_weights = from.uniforms(4, 0.5, 2);
  in.scale = 1.5;
  return in;
}

void give_totals(oracle::problem& part, const oracle::problem& whole) {
  double V = 0, W = 0;
  for (const double v : whole.layer_weights) V += v;
  for (const double w : oracle::masses(whole).effective_weight) W += w;
  part.total_layer_weight = V;
  part.total_sequence_weight = W;
}

std::vector<double> cut(const std::vector<double>& v, std::size_t first, std::size_t count, std::size_t width) {
  const auto begin = v.begin() + static_cast<std::ptrdiff_t>(first * width);
  return {begin, begin + static_cast<std::ptrdiff_t>(count * width)};
}

// Sequences [first, first + count) of the batch, as a batch of their own.
oracle::problem sequences_of(const oracle::problem& whole, std::size_t first, std::size_t count) {
  auto part = whole;
  part.sequences = count;
  const auto begin = static_cast<std::size_t>(whole.offsets[first]), end = static_cast<std::size_t>(whole.offsets[first + count]);
  part.tokens = end - begin;
  part.offsets.clear();
  for (std::size_t s = first; s <= first + count; ++s) part.offsets.push_back(whole.offsets[s] - whole.offsets[first]);
  part.logits.clear();
  for (std::size_t l = 0; l < whole.layers; ++l)
    for (const double z : cut(whole.logits, l * whole.tokens + begin, part.tokens, whole.experts)) part.logits.push_back(z);
  part.anchor_rows.assign(whole.anchor_rows.begin() + static_cast<std::ptrdiff_t>(first),
                          whole.anchor_rows.begin() + static_cast<std::ptrdiff_t>(first + count));
  part.token_weights = cut(whole.token_weights, begin, part.tokens, 1);
  part.sequence_weights = cut(whole.sequence_weights, first, count, 1);
  give_totals(part, whole);
  return part;
}

oracle::problem layers_of(const oracle::problem& whole, std::size_t first, std::size_t count) {
  auto part = whole;
  part.layers = count;
  part.logits = cut(whole.logits, first, count, whole.tokens * whole.experts);
  part.anchors = cut(whole.anchors, first, count, whole.anchor_count * whole.experts);
  part.layer_weights = cut(whole.layer_weights, first, count, 1);
  give_totals(part, whole);
  return part;
}

template <class T> constexpr double tolerance = std::is_same_v<T, double> ? 1e-13 : 1e-6;

}   // namespace

TEMPLATE_TEST_CASE("micro-batches add up to the batch", "[scale]", double, float) {
  const auto whole = oracle::rounded_to<TestType>(whole_batch());
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    const auto want = oracle::evaluate<TestType>(exec, whole);
    REQUIRE(oracle::largest(want.grad) > 0);
    for (const std::size_t parts : {1u, 2u, 4u, 8u}) {
      CAPTURE(name, parts);
      oracle::result<double> sum;
      sum.grad.resize(whole.logits.size());
      for (std::size_t i = 0; i < parts; ++i) {
        const std::size_t first = i * 8 / parts, count = 8 / parts;
        const auto got = oracle::evaluate<TestType>(exec, sequences_of(whole, first, count));
        sum.loss += got.loss;
        const std::size_t tokens = got.grad.size() / (whole.layers * whole.experts), begin = static_cast<std::size_t>(whole.offsets[first]);
        for (std::size_t j = 0; j < got.grad.size(); ++j) {
          const std::size_t l = j / (tokens * whole.experts);
          sum.grad[(l * whole.tokens + begin) * whole.experts + j % (tokens * whole.experts)] += got.grad[j];
        }
      }
      CHECK(oracle::relative_error(sum.grad, want.grad) <= tolerance<TestType>);
      CHECK(std::abs(sum.loss - want.loss) <= 2 * tolerance<TestType> * want.loss);
    }
  });
}

TEMPLATE_TEST_CASE("layers of pipeline stages add up to all layers", "[scale]", double, float) {
  const auto whole = oracle::rounded_to<TestType>(whole_batch());
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    const auto want = oracle::evaluate<TestType>(exec, whole);
    for (const std::size_t parts : {1u, 2u, 4u}) {
      CAPTURE(name, parts);
      std::vector<double> grad;
      double loss = 0;
      for (std::size_t i = 0; i < parts; ++i) {
        const auto got = oracle::evaluate<TestType>(exec, layers_of(whole, i * 4 / parts, 4 / parts));
        grad.insert(grad.end(), got.grad.begin(), got.grad.end());
        loss += got.loss;
      }
      CHECK(oracle::relative_error(grad, want.grad) <= tolerance<TestType>);
      CHECK(std::abs(loss - want.loss) <= 2 * tolerance<TestType> * want.loss);
    }
  });
}

TEMPLATE_TEST_CASE("ranks that share a sequence's tokens add up, through the pieces and through reduced histograms", "[scale]", double,
                   float) {
  using T = TestType;
  constexpr std::size_t length = 48, experts = 20, layers = 2, batch = 3;
  auto whole = oracle::plain_problem(31, layers, batch, length, experts);
  whole.layout = oracle::layout::interleaved;   // so that each rank's tokens lie together
  oracle::source from(31);
  whole.token_weights = from.uniforms(whole.tokens, 0, 1);
  whole.scale = 1.25;
  whole = oracle::rounded_to<T>(whole);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    const auto want = oracle::evaluate<T>(exec, whole);
    for (const std::size_t ranks : {1u, 2u, 4u}) {
      CAPTURE(name, ranks);
      const std::size_t local_length = length / ranks, tokens = local_length * batch;
      const auto rank_of = [&](std::size_t r) {
        auto part = whole;
        part.length = local_length;
        part.tokens = tokens;
        part.token_weights = cut(whole.token_weights, r * tokens, tokens, 1);
        part.logits.clear();
        for (std::size_t l = 0; l < layers; ++l)
          for (const double z : cut(whole.logits, l * whole.tokens + r * tokens, tokens, experts)) part.logits.push_back(z);
        return part;
      };

      std::vector<T> sums(layers * batch * experts), mass(batch), local_sums(sums.size()), local_mass(batch);
      for (std::size_t r = 0; r < ranks; ++r) {
        const auto part = rank_of(r);
        const oracle::arguments<T> given(part);
        sara::routing_histogram_into(
            exec,
            sara::routing_histogram_inputs<T>{
                .logits = given.logits.view(), .sequences = given.sequences(), .token_weights = given.token_weights},
            {.sums = sara::layers_view<T>{local_sums.data(), layers, batch, experts}, .token_mass = local_mass});
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += local_sums[i];   // the all-reduce
        for (std::size_t s = 0; s < batch; ++s) mass[s] += local_mass[s];
      }
      std::vector<double> histograms(sums.size());
      for (std::size_t i = 0; i < sums.size(); ++i) histograms[i] = static_cast<double>(sums[i] / mass[i / experts % batch]);

      // What js_divergence gives, weighed as the loss does: scale / (layers sequences).
      std::vector<T> slopes(sums.size());
      const auto reduced = oracle::as_storage<T>(histograms), anchors = oracle::as_storage<T>(whole.anchors);
      sara::js_divergence_into(exec,
                               sara::js_divergence_inputs<T>{.p = sara::matrix_view{reduced.data(), layers * batch, experts},
                                                             .q = sara::matrix_view{anchors.data(), layers * batch, experts}},
                               {.grad_p = sara::matrix_view{slopes.data(), layers * batch, experts}},
                               {.scale = whole.scale / (layers * batch)});

      std::vector<double> fused(whole.logits.size()), pieces(whole.logits.size());
      for (std::size_t r = 0; r < ranks; ++r) {
        auto part = rank_of(r);
        part.histograms = histograms;
        part.token_mass = oracle::as_doubles(mass);
        const auto got = oracle::evaluate<T>(exec, part);
        CHECK(oracle::relative_error(std::vector{got.loss}, std::vector{want.loss}) <= 2 * tolerance<T>);   // every rank knows it all
        const oracle::arguments<T> given(part);
        oracle::block<T> grad(layers, tokens, experts);
        sara::routing_histogram_backward_into(exec,
                                              sara::routing_histogram_backward_inputs<T>{
                                                  .logits = given.logits.view(),
                                                  .sequences = given.sequences(),
                                                  .token_weights = given.token_weights,
                                                  .token_mass = mass,
                                                  .grad_histograms = sara::layers_view<const T>{slopes.data(), layers, batch, experts}},
                                              {.grad_logits = grad.view()});
        const auto from_pieces = oracle::as_doubles(grad.values());
        for (std::size_t j = 0; j < got.grad.size(); ++j) {
          const std::size_t at = (j / (tokens * experts) * whole.tokens + r * tokens) * experts + j % (tokens * experts);
          fused[at] = got.grad[j];
          pieces[at] = from_pieces[j];
        }
      }
      CHECK(oracle::relative_error(fused, want.grad) <= tolerance<T>);
      CHECK(oracle::relative_error(pieces, want.grad) <= tolerance<T>);
    }
  });
}

TEST_CASE("upstream multiplies the gradient and never touches the loss", "[scale]") {
  auto in = oracle::rounded_to<float>(whole_batch());
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    in.upstream.reset();
    const auto want = oracle::evaluate<float>(exec, in);
    for (const double upstream : {1.0, 65536.0, -2.0, 0.0}) {
      in.upstream = upstream;
      auto got = oracle::evaluate<float>(exec, in);
      CHECK(got.loss == want.loss);
      if (upstream == 0) {
        CHECK(oracle::largest(got.grad) == 0);
      } else {
        for (double& g : got.grad) g /= upstream;
        CHECK(oracle::relative_error(got.grad, want.grad) <= 1e-6);
      }
    }
  });
}

TEST_CASE("scale multiplies loss and gradient", "[scale]") {
  auto in = oracle::rounded_to<float>(whole_batch());
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    in.scale = 1;
    const auto want = oracle::evaluate<float>(exec, in);
    for (const double scale : {-3.0, 0.1, 1e6, 0.0}) {
      in.scale = scale;
      auto got = oracle::evaluate<float>(exec, in);
      CHECK(std::abs(got.loss - scale * want.loss) <= 1e-6 * std::abs(scale) * want.loss);
      CHECK(got.divergence == want.divergence);
      CHECK(got.histograms == want.histograms);
      for (double& g : got.grad) g /= scale == 0 ? 1 : scale;
      if (scale == 0)
        CHECK(oracle::largest(got.grad) == 0);
      else
        CHECK(oracle::relative_error(got.grad, want.grad) <= 1e-6);
    }
  });
}

TEST_CASE("totals of 0 make the loss and the gradient 0", "[scale]") {
  for (const unsigned which : {0u, 1u, 2u, 3u}) {
    auto in = whole_batch();
    if (which == 0) in.total_layer_weight = 0;
    if (which == 1) in.total_sequence_weight = 0;
    if (which == 2) in.layer_weights.assign(in.layers, 0);
    if (which == 3) in.sequence_weights.assign(in.sequences, 0);
    const auto buffer = oracle::source(which).normals(in.logits.size());
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, which);
      const auto got = oracle::evaluate<double>(exec, in);
      CHECK(got.loss == 0);
      CHECK(oracle::relative_error(got.grad, std::vector<double>(in.logits.size())) == 0);
      CHECK(oracle::evaluate<double>(exec, in, {.mode = sara::gradient_mode::accumulate, .buffer = buffer}).grad == buffer);
    });
  }
}

TEST_CASE("a common factor in the weights changes nothing", "[scale]") {
  const auto in = whole_batch();
  auto scaled = in;
  for (double& m : scaled.token_weights) m *= 4;
  for (double& w : scaled.sequence_weights) w *= 0.5;
  for (double& v : scaled.layer_weights) v *= 8;
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto want = oracle::evaluate<double>(exec, in), got = oracle::evaluate<double>(exec, scaled);
    CHECK(std::abs(got.loss - want.loss) <= 1e-13 * want.loss);
    CHECK(oracle::relative_error(got.grad, want.grad) <= 1e-13);
  });
}
