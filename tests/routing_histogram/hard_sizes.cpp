// The hard histogram where sizes matter: sequences longer than a block of work, more experts than fast memory holds, more slots a token
// than experts; and each output wanted alone.
#include <sara/routing_histogram.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::for_each_executor;
using sara::index_t;

constexpr std::size_t layers = 2, tokens = 999;

struct layout {
  const char* name;
  sara::sequences_view view;
  std::vector<std::vector<std::size_t>> rows;   // of each sequence
};

std::vector<layout> layouts() {
  static const std::vector<std::int32_t> offsets{7, 7, 150, 151, 900, 960};
  std::vector<layout> all{{"packed", sara::sequences_view::packed(offsets), {}},
                          {"uniform", sara::sequences_view::uniform(3, tokens / 3), {}},
                          {"interleaved", sara::sequences_view::interleaved(tokens / 3, 3), {}}};
  for (layout& of : all)
    sara::for_each_sequence(of.view, tokens, [&](index_t, const sara::token_range& range) {
      of.rows.emplace_back();
      for (index_t i = 0; i < range.count; ++i) of.rows.back().push_back(static_cast<std::size_t>(range.first + i * range.step));
    });
  return all;
}

template <class A> struct results {
  std::vector<A> histograms, sums, mass;
  std::vector<std::int64_t> counts;

  results(std::size_t sequences, std::size_t experts)
      : histograms(layers * sequences * experts, NAN), sums(histograms.size(), NAN), mass(sequences, NAN), counts(histograms.size(), -1) {}
};

}   // namespace

TEMPLATE_TEST_CASE("hard_routing_histogram: long sequences, many experts, many slots", "[routing_histogram]", double, float) {
  const double tolerance = std::is_same_v<TestType, double> ? 1e-14 : 1e-6;
  struct size {
    std::size_t experts, k;
  };
  for (const layout& of : layouts())
    for (const size& at : {size{3, 40}, size{130, 7}, size{760, 2}, size{1700, 2}, size{3300, 1}, size{6600, 3}, size{13000, 1}})
      for (int options = of.view.layout() == sara::token_layout::packed ? 0 : 3; options < 4; ++options) {
        const std::size_t experts = at.experts, k = at.k;
        const std::size_t slots = layers * tokens * k, sequences = of.rows.size();
        oracle::source from(experts + k);
        std::vector<std::int32_t> indices(slots);
        for (auto& e : indices) e = from.chance(0.1) ? -1 : static_cast<std::int32_t>(from.below(experts + 1));
        const auto weights = oracle::as_storage<TestType>(options & 1 ? from.uniforms(slots, 0, 1) : std::vector<double>{});
        auto token_weights = oracle::as_storage<TestType>(options & 2 ? from.uniforms(tokens, 0.25, 2) : std::vector<double>{});
        for (auto& w : token_weights) w = from.chance(0.3) ? 0 : w;

        std::vector<double> sums, means;
        std::vector<std::int64_t> counts;
        const auto part = [&](const auto& v, std::size_t l) {
          const auto count = static_cast<std::ptrdiff_t>(v.size() / layers), first = static_cast<std::ptrdiff_t>(l) * count;
          return std::vector<double>(v.begin() + first, v.begin() + first + count);
        };
        for (std::size_t l = 0; l < layers; ++l)
          for (std::size_t s = 0; s < sequences; ++s) {
            const std::vector<std::int64_t> of_layer(indices.begin() + static_cast<std::ptrdiff_t>(l * tokens * k), indices.end());
            const auto h =
                oracle::hard_histogram(of_layer.data(), k, experts, of.rows[s], oracle::as_doubles(token_weights), part(weights, l));
            sums.insert(sums.end(), h.sums.begin(), h.sums.end());
            counts.insert(counts.end(), h.counts.begin(), h.counts.end());
            for (const double x : h.sums) means.push_back(h.mass == 0 ? 0 : x / h.mass);
          }

        for_each_executor([&](const auto& exec, const char* executor) {
          INFO(executor << ", " << of.name << ", experts " << experts << ", k " << k << ", weights " << (options & 1) << ", token weights "
                        << (options & 2));
          sara::hard_routing_histogram_inputs<TestType> in{
              .indices = sara::layers_view<const std::int32_t>{indices.data(), layers, tokens, k},
              .experts = static_cast<index_t>(experts),
              .sequences = of.view,
              .token_weights = token_weights};
          if (options & 1) in.weights = sara::layers_view<const TestType>{weights.data(), layers, tokens, k};
          results<TestType> all(sequences, experts), alone(sequences, experts);
          const auto rows_of = [&](auto& v) { return sara::layers_view{v.data(), layers, sequences, experts}; };
          sara::hard_routing_histogram_into(
              exec, in,
              {.histograms = rows_of(all.histograms), .sums = rows_of(all.sums), .token_mass = all.mass, .counts = rows_of(all.counts)});
          CHECK(oracle::relative_error(all.sums, sums) <= tolerance);
          CHECK(oracle::relative_error(all.histograms, means) <= tolerance);
          CHECK(all.counts == counts);

          sara::hard_routing_histogram_into(exec, in, {.histograms = rows_of(alone.histograms)});
          sara::hard_routing_histogram_into(exec, in, {.sums = rows_of(alone.sums)});
          sara::hard_routing_histogram_into(exec, in, {.token_mass = alone.mass});
          sara::hard_routing_histogram_into(exec, in, {.counts = rows_of(alone.counts)});
          CHECK(oracle::same_bits(alone.histograms, all.histograms));
          CHECK(oracle::same_bits(alone.sums, all.sums));
          CHECK(oracle::same_bits(alone.mass, all.mass));
          CHECK(alone.counts == all.counts);
        });
      }
}

TEST_CASE("hard_routing_histogram: no slots a token", "[routing_histogram]") {
  for_each_executor([](const auto& exec, const char* executor) {
    INFO(executor);
    std::int32_t none = 0;
    std::vector<float> sums(4, NAN), mass(2, NAN);
    std::vector<std::int64_t> counts(4, -1);
    sara::hard_routing_histogram_into(
        exec,
        sara::hard_routing_histogram_inputs<float>{
            .indices = sara::matrix_view<const std::int32_t>{&none, 6, 0}, .experts = 2, .sequences = sara::sequences_view::uniform(2, 3)},
        {.sums = sara::matrix_view{sums.data(), 2, 2}, .token_mass = mass, .counts = sara::matrix_view{counts.data(), 2, 2}});
    CHECK(sums == std::vector<float>(4, 0));
    CHECK(mass == std::vector<float>(2, 3));
    CHECK(counts == std::vector<std::int64_t>(4, 0));
  });
}
