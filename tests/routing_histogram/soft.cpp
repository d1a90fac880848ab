// The soft histogram: every layout, weights, layers in blocks and lists, sums for ranks, what has no weight is never read.
#include <sara/routing_histogram.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;

constexpr std::size_t layers = 2;

struct expectation {
  std::vector<double> histograms, sums, mass;
};

// In long double; `logits` are of [layers, tokens, experts].
expectation expect(const oracle::token_batch& batch, const std::vector<double>& logits, const std::vector<double>& weights,
                   std::size_t experts) {
  const auto z = oracle::as<long double>(logits);
  const auto w = oracle::as<long double>(weights);
  expectation out;
  for (std::size_t l = 0; l < layers; ++l)
    for (std::size_t s = 0; s < batch.sequences(); ++s) {
      const auto h = oracle::histogram(z.data() + l * batch.tokens * experts, experts, batch.rows[s], w);
      for (const long double x : h.sums) {
        out.sums.push_back(static_cast<double>(x));
        out.histograms.push_back(h.mass == 0 ? 0 : static_cast<double>(x / h.mass));
      }
      if (l == 0) out.mass.push_back(static_cast<double>(h.mass));
    }
  return out;
}

std::vector<double> some_weights(oracle::source& from, std::size_t tokens) {
  auto w = from.uniforms(tokens, 0.25, 2);
  for (double& x : w)
    if (from.chance(0.3)) x = 0;
  return w;
}

}   // namespace

TEMPLATE_TEST_CASE("routing_histogram: means, sums and mass of every layout, with and without weights", "[routing_histogram][precision]",
                   double, float, sara::bf16, sara::fp16) {
  using A = sara::arithmetic_t<TestType>;
  const double tolerance = std::is_same_v<A, double> ? 1e-14 : 1e-6;
  for (const auto& batch : oracle::token_batches())
    for (const std::size_t experts : {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{33}, std::size_t{64}, std::size_t{129}})
      for (const bool weighted : {false, true}) {
        oracle::source from(experts + batch.tokens);
        auto logits = oracle::rounded_to<TestType>(from.normals(layers * batch.tokens * experts, 2));
        const auto weights = weighted ? oracle::rounded_to<A>(some_weights(from, batch.tokens)) : std::vector<double>{};
        // What is never read may hold NaN: hidden tokens, and rows of no sequence.
        std::vector<bool> read(batch.tokens, false);
        for (const auto& rows : batch.rows)
          for (const std::size_t t : rows) read[t] = !weighted || weights[t] != 0;
        for (std::size_t i = 0; i < logits.size(); ++i)
          if (!read[i / experts % batch.tokens]) logits[i] = NAN;
        const expectation want = expect(batch, logits, weights, experts);
        for_each_executor([&](const auto& exec, const char* name) {
          for (const auto& place : {oracle::apart, oracle::in_a_list}) {
            INFO(name << ", " << batch.name << ", experts " << experts << ", weights " << weighted << ", list " << place.list);
            block<TestType> z(layers, batch.tokens, experts, place, logits);
            block<A> histograms(layers, batch.sequences(), experts, place), sums(layers, batch.sequences(), experts, place),
                alone(layers, batch.sequences(), experts);
            const auto w = oracle::as_storage<A>(weights);
            std::vector<A> mass(batch.sequences(), NAN);
            const sara::routing_histogram_inputs<TestType> in{.logits = z.view(), .sequences = batch.view, .token_weights = w};
            sara::routing_histogram_into(exec, in, {.histograms = histograms.view(), .sums = sums.view(), .token_mass = mass});
            sara::routing_histogram_into(exec, in, {.histograms = alone.view()});
            CHECK(oracle::relative_error(histograms.values(), want.histograms) <= tolerance);
            CHECK(oracle::relative_error(sums.values(), want.sums) <= tolerance);
            CHECK(oracle::relative_error(mass, want.mass) <= tolerance);
            CHECK(oracle::same_bits(alone.values(), histograms.values()));
            CHECK(histograms.padding_is_untouched());
            CHECK(sums.padding_is_untouched());
          }
        });
      }
}

TEST_CASE("routing_histogram: sums of two ranks make the histogram of the whole", "[routing_histogram]") {
  oracle::source from(5);
  constexpr std::size_t experts = 20, tokens = 11, first = 4;
  const auto logits = from.normals(layers * tokens * experts, 2), weights = some_weights(from, tokens);
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    std::vector<double> whole(layers * experts), total(layers * experts, 0), mass{0};
    sara::routing_histogram_into(
        exec,
        sara::routing_histogram_inputs<double>{.logits = sara::layers_view<const double>{logits.data(), layers, tokens, experts},
                                               .sequences = sara::sequences_view::uniform(1, tokens),
                                               .token_weights = weights},
        {.histograms = sara::layers_view<double>{whole.data(), layers, 1, experts}});
    for (const auto& [begin, count] : {std::pair<std::size_t, std::size_t>{0, first}, {first, tokens - first}}) {
      std::vector<double> sums(layers * experts), part(1);
      sara::routing_histogram_into(
          exec,
          sara::routing_histogram_inputs<double>{
              .logits = sara::layers_view<const double>{logits.data() + begin * experts, layers, count, experts, experts, tokens * experts},
              .sequences = sara::sequences_view::uniform(1, count),
              .token_weights = sara::vector_view{weights.data() + begin, count}},
          {.sums = sara::layers_view<double>{sums.data(), layers, 1, experts}, .token_mass = part});
      for (std::size_t i = 0; i < sums.size(); ++i) total[i] += sums[i];
      mass[0] += part[0];
    }
    for (double& x : total) x /= mass[0];
    CHECK(oracle::relative_error(total, whole) <= 1e-14);
  });
}

TEMPLATE_TEST_CASE("routing_histogram: a bad row makes its own sequence NaN, and no other", "[routing_histogram]", double, float) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  for (const std::size_t experts : {std::size_t{1}, std::size_t{6}, std::size_t{65}})
    for (int kind = 0; kind < 3; ++kind) {
      oracle::source from(6);
      auto logits = from.normals(12 * experts);
      for (std::size_t e = 0; e < experts; ++e)
        if (kind == 2 || e == experts / 2) logits[5 * experts + e] = kind == 0 ? HUGE_VAL - HUGE_VAL : kind == 1 ? inf : -inf;
      for_each_executor([&](const auto& exec, const char* name) {
        INFO(name << ", experts " << experts << ", kind " << kind);
        block<TestType> z(1, 12, experts, {}, logits), h(1, 3, experts);
        std::vector<TestType> mass(3);
        sara::routing_histogram_into(
            exec, sara::routing_histogram_inputs<TestType>{.logits = z.view(), .sequences = sara::sequences_view::uniform(3, 4)},
            {.histograms = h.view(), .token_mass = mass});
        const auto got = oracle::as_doubles(h.values());
        for (std::size_t s = 0; s < 3; ++s) {
          double sum = 0;
          for (std::size_t e = 0; e < experts; ++e) sum += got[s * experts + e];
          CHECK((s == 1 ? std::isnan(sum) : std::abs(sum - 1) < 1e-6));
        }
        CHECK(mass == std::vector<TestType>{4, 4, 4});
      });
    }
}

TEST_CASE("routing_histogram: a mean over 2^20 tokens does not drift", "[routing_histogram][precision]") {
  constexpr std::size_t experts = 4, tokens = std::size_t{1} << 20;
  std::vector<float> logits(tokens * experts);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>((i * 2654435761u >> 7) % 1000) / 250.0f;
  std::vector<double> want(experts, 0);
  for (std::size_t t = 0; t < tokens; ++t) {
    const std::vector<double> row(logits.begin() + static_cast<std::ptrdiff_t>(t * experts),
                                  logits.begin() + static_cast<std::ptrdiff_t>((t + 1) * experts));
    const auto p = oracle::softmax(row.data(), experts);
    for (std::size_t e = 0; e < experts; ++e) want[e] += p[e] / static_cast<double>(tokens);
  }
  for_each_executor([&](const auto& exec, const char* name) {
    INFO(name);
    std::vector<float> got(experts);
    sara::routing_histogram_into(exec,
                                 sara::routing_histogram_inputs<float>{.logits = sara::matrix_view{logits.data(), tokens, experts},
                                                                       .sequences = sara::sequences_view::uniform(1, tokens)},
                                 {.histograms = sara::matrix_view{got.data(), 1, experts}});
    CHECK(oracle::relative_error(got, want) <= 3e-7);
  });
}

TEMPLATE_TEST_CASE("routing_histogram: the same bits for every number of threads", "[routing_histogram]", float, sara::bf16) {
  oracle::source from(9);
  constexpr std::size_t experts = 96, tokens = 3000;
  const auto logits = from.normals(tokens * experts, 2);
  block<TestType> z(1, tokens, experts, {}, logits);
  const std::vector<std::int32_t> offsets{0, 10, 2500, 3000};
  const sara::routing_histogram_inputs<TestType> in{.logits = z.view(), .sequences = sara::sequences_view::packed(offsets)};
  sara::thread_pool pool(3);
  oracle::for_each_instruction_set([&](sara::cpu_executor exec, const char* name) {
    std::vector<float> first;
    for (const int threads : {1, 2, 3, 7, 16})
      for (const bool pooled : {false, true}) {
        exec.threads = threads;
        exec.pool = pooled ? sara::parallel_for(pool) : sara::parallel_for();
        block<float> h(1, 3, experts, {}, std::vector<double>(3 * experts, NAN));
        sara::routing_histogram_into(exec, in, {.histograms = h.view()});
        if (first.empty()) first = h.values();
        INFO(name << ", threads " << threads << ", pool " << pooled);
        CHECK(oracle::same_bits(h.values(), first));
      }
  });
}
