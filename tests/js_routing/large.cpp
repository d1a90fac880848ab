// Gradients too large for the caches, which are written past them: the same bits as sequence by sequence, where they are not.
#include <sara/js_routing.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "catch.hpp"
#include "oracle/blocks.hpp"
#include "oracle/compare.hpp"
#include "oracle/device.hpp"
#include "oracle/executors.hpp"
#include "oracle/instances.hpp"
#include "oracle/problems.hpp"

namespace {

using sara::index_t;

struct variant {
  index_t skip = 0;   // elements between the start of a cache line and the gradient
  bool in_place = false, masked = false;
  sara::gradient_mode mode = sara::gradient_mode::overwrite;
};

// Sequences of the given lengths in one call, and each in a call of its own.
template <class T, class G> void same_as_one_by_one(const std::vector<index_t>& lengths, index_t experts, const variant& v = {}) {
  using A = sara::arithmetic_t<T>;
  std::vector<std::int64_t> offsets{0};
  for (const index_t length : lengths) offsets.push_back(offsets.back() + length);
  const index_t tokens = offsets.back(), sequences = static_cast<index_t>(lengths.size());
  std::vector<T> z = oracle::as_storage<T>(oracle::source(1).normals(static_cast<std::size_t>(tokens * experts), 2));
  for (index_t t = 0; t < tokens; t += 1001) {   // exponentials that are 0, or nearly, as the row's largest logit is found or not
    sara::store_value(z[static_cast<std::size_t>(t * experts)], A(15));
    sara::store_value(z[static_cast<std::size_t>(t * experts + 1)], A(-92));
  }
  std::vector<A> weights(static_cast<std::size_t>(tokens), A(1));
  for (std::size_t t = 0; v.masked && t < weights.size(); t += 7) weights[t] = 0;
  const std::vector<A> anchors(static_cast<std::size_t>(sequences * experts), A(1) / static_cast<A>(experts));
  const A total = static_cast<A>(sequences - std::count(lengths.begin(), lengths.end(), 0));   // those that weigh
  // Of the gradients, none that counts is to be rounded to 0.
  const sara::js_routing_options options{.scale = std::is_same_v<G, sara::fp16> ? 16384 : 1e12, .mode = v.mode};
  const auto bytes = static_cast<std::size_t>(tokens * experts) * sizeof(G);
  const auto fill = [&](G* gradient) {
    if (v.mode == sara::gradient_mode::overwrite)
      std::memset(static_cast<void*>(gradient), 0xff, bytes);   // NaN, never to be read
    else
      for (std::size_t i = 0; i < z.size(); ++i) sara::store_value(gradient[i], A(1));
  };

  oracle::for_each_instruction_set([&](sara::cpu_executor exec, const char* name) {
    exec.threads = 1;
    std::vector<G> want(z.size());
    fill(want.data());
    const auto logits_in = [&](G* to) {
      if constexpr (std::is_same_v<T, G>)
        if (v.in_place) return static_cast<const T*>(std::memcpy(to, z.data(), bytes));
      return static_cast<const T*>(z.data());
    };
    const T* from = logits_in(want.data());
    for (index_t s = 0; s < sequences; ++s) {
      const index_t first = offsets[static_cast<std::size_t>(s)], length = lengths[static_cast<std::size_t>(s)];
      sara::js_routing_inputs<T> in{.logits = sara::matrix_view<const T>(from + first * experts, length, experts),
                                    .sequences = sara::sequences_view::uniform(1, length),
                                    .anchors = sara::matrix_view<const A>(anchors.data() + s * experts, 1, experts),
                                    .token_weights = sara::vector_view<const A>(weights.data() + first, length),
                                    .total_sequence_weight = sara::vector_view<const A>(&total, 1)};
      sara::js_routing_outputs<T, G> out{.grad_logits = sara::matrix_view<G>(want.data() + first * experts, length, experts)};
      sara::js_routing_into<T, G>(exec, in, out, options);
    }
    sara::thread_pool pool(2);
    for (const int threads : {1, 2}) {
      INFO(name << ", " << threads << " threads, " << experts << " experts");
      exec.threads = threads;
      exec.pool = pool;
      oracle::line_of<G> got(z.size(), v.skip);
      G* const to = got.data();
      fill(to);
      const sara::matrix_view<G> gradient(to, tokens, experts);
      const bool whole_lines = v.skip == 0 && experts * static_cast<index_t>(sizeof(G)) % 64 == 0, is_long = experts >= 60 && sizeof(G) > 2;
      REQUIRE(sara::is_large<G>(tokens * experts) == sara::has_stores_past_caches);
      REQUIRE((sara::row_write_of(sara::gradient_mode::overwrite, to, experts, experts, sara::has_stores_past_caches) ==
               sara::row_write::past_caches) == (sara::has_stores_past_caches && (whole_lines || is_long || experts >= 192)));
      from = logits_in(to);
      sara::js_routing_inputs<T> in{.logits = sara::matrix_view<const T>(from, tokens, experts),
                                    .sequences = sara::sequences_view::packed(offsets),
                                    .anchors = sara::matrix_view<const A>(anchors.data(), sequences, experts),
                                    .token_weights = sara::vector_view<const A>(weights.data(), tokens)};
      sara::js_routing_outputs<T, G> out{.grad_logits = gradient};
      sara::js_routing_into<T, G>(exec, in, out, options);
      CHECK(std::memcmp(to, want.data(), bytes) == 0);
      CHECK(got.is_guarded());

      if (v.masked || v.mode == sara::gradient_mode::accumulate) continue;   // and from histograms that were kept
      oracle::line_of<G> again(z.size(), v.skip);
      fill(again.data());
      in.logits = sara::matrix_view<const T>(logits_in(again.data()), tokens, experts);
      std::vector<A> histograms(anchors.size()), mass(static_cast<std::size_t>(sequences));
      for (std::size_t s = 0; s < mass.size(); ++s) mass[s] = static_cast<A>(lengths[s]);
      sara::js_routing_into<T, G>(exec, in, {.histograms = sara::matrix_view<A>(histograms.data(), sequences, experts)});
      in.histograms = sara::matrix_view<const A>(histograms.data(), sequences, experts);
      in.token_mass = mass;
      out.grad_logits = sara::matrix_view<G>(again.data(), tokens, experts);
      sara::js_routing_into<T, G>(exec, in, out, options);
      std::size_t far = 0;   // histograms are rounded to A, so not bit by bit
      double largest = 0;
      for (std::size_t i = 0; i < z.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(sara::load_value(want[i]))));
      for (std::size_t i = 0; i < z.size(); ++i)
        far += !(std::abs(static_cast<double>(sara::load_value(again.data()[i])) - static_cast<double>(sara::load_value(want[i]))) <=
                 0.01 * largest);
      CHECK(far == 0);
      CHECK(largest > 0);
    }
  });
}

}   // namespace

TEST_CASE("large gradients: fp32, rows of whole lines and not, from any element on", "[large]") {
  same_as_one_by_one<float, float>({16000, 9000, 0, 9001}, 128);
  same_as_one_by_one<float, float>({16000, 9000, 0, 9001}, 128, {.skip = 3});
  same_as_one_by_one<float, float>({30000, 1, 40000}, 60, {.skip = 1});
  same_as_one_by_one<float, float>({15000, 18000}, 129);
}
TEST_CASE("large gradients: a sequence too long for its worker's memory", "[large]") {
  same_as_one_by_one<float, float>({40000, 30000}, 64, {.skip = 5});
}
// Exponentials, of 16-bit gradients as of large ones, wait in at most 8 MiB a worker and 28 in all. Only shapes are looked at.
TEST_CASE("large gradients: the memory of one worker and of many", "[large]") {
  const index_t length = 4096, sequences = 64, experts = 256;   // 4 MiB a sequence
  sara::bf16 some{};
  float anchor = 0, loss = 0;
  const auto bytes = [&](int threads, index_t tokens_at_once) {
    const sara::js_routing_inputs<sara::bf16> in{
        .logits = sara::matrix_view<const sara::bf16>(&some, length * sequences, experts),
        .sequences = sara::sequences_view::uniform(length * sequences / tokens_at_once, tokens_at_once),
        .anchors = sara::matrix_view<const float>(&anchor, sequences, experts)};
    const sara::matrix_view<sara::bf16> gradient(&some, length * sequences, experts);
    const auto of = [&](const sara::js_routing_outputs<sara::bf16>& out) {
      return static_cast<double>(sara::js_routing_workspace_bytes(sara::cpu_executor{.threads = threads}, in, out)) / (1 << 20);
    };
    return of({.loss = sara::vector_view<float>(&loss, 1), .grad_logits = gradient}) - of({.loss = sara::vector_view<float>(&loss, 1)});
  };
  for (const int threads : {1, 2, 3}) {
    CHECK(bytes(threads, 1024) == threads * 1.0);
    CHECK(bytes(threads, length) == threads * 4.0);
    CHECK(bytes(threads, 4 * length) == threads * 8.0);
  }
  CHECK(bytes(7, length) == 28.0);
  for (const int threads : {8, 16, 64, 256}) {
    CHECK(bytes(threads, length) <= 28.0);
    CHECK(bytes(threads, length) > 27.5);
  }
}
TEST_CASE("large gradients: other storages", "[large]") {
  same_as_one_by_one<double, double>({9000, 9000}, 128);
  same_as_one_by_one<double, double>({9000, 9000}, 128, {.skip = 1});
  same_as_one_by_one<sara::bf16, float>({16000, 18000}, 128);
  same_as_one_by_one<sara::bf16, sara::bf16>({33000, 34000}, 128);
  same_as_one_by_one<sara::bf16, sara::bf16>({33000, 34000}, 128, {.skip = 5});
  same_as_one_by_one<sara::bf16, sara::bf16>({16000, 18001}, 257, {.skip = 5});
  same_as_one_by_one<sara::fp16, sara::fp16>({70000, 75000}, 60);
}
TEST_CASE("large gradients: in place of the logits", "[large]") {
  same_as_one_by_one<float, float>({16000, 18000}, 128, {.in_place = true});
  same_as_one_by_one<float, float>({30000, 41000}, 60, {.skip = 1, .in_place = true});
  same_as_one_by_one<sara::bf16, sara::bf16>({33000, 34000}, 129, {.skip = 3, .in_place = true});
}
// Rows that never follow on one another: in whole lines past the caches, in parts of lines not.
TEST_CASE("large gradients: interleaved sequences", "[large]") {
  constexpr index_t length = 8200, batch = 4, experts = 128;
  const auto z = oracle::as_storage<float>(oracle::source(2).normals(static_cast<std::size_t>(length * batch * experts), 2));
  const std::vector<float> anchors(static_cast<std::size_t>(batch * experts), 1.0f / experts);
  const float total = batch;
  oracle::for_each_instruction_set([&](sara::cpu_executor exec, const char* name) {
    for (const index_t skip : {index_t(0), index_t(3)}) {
      INFO(name << ", from element " << skip);
      std::vector<float> want(z.size(), NAN);
      oracle::line_of<float> got(z.size(), skip);
      std::fill_n(got.data(), z.size(), NAN);
      const auto rows_of = [](auto* data, index_t s) { return sara::matrix_view(data + s * experts, length, experts, batch * experts); };
      for (index_t s = 0; s < batch; ++s)
        sara::js_routing_into<float>(exec,
                                     {.logits = rows_of(z.data(), s),
                                      .sequences = sara::sequences_view::uniform(1, length),
                                      .anchors = sara::matrix_view(anchors.data() + s * experts, 1, experts),
                                      .total_sequence_weight = sara::vector_view<const float>(&total, 1)},
                                     {.grad_logits = rows_of(want.data(), s)});
      sara::js_routing_into<float>(exec,
                                   {.logits = sara::matrix_view(z.data(), length * batch, experts),
                                    .sequences = sara::sequences_view::interleaved(length, batch),
                                    .anchors = sara::matrix_view(anchors.data(), batch, experts)},
                                   {.grad_logits = sara::matrix_view(got.data(), length * batch, experts)});
      CHECK(std::memcmp(got.data(), want.data(), z.size() * sizeof(float)) == 0);
      CHECK(got.is_guarded());
    }
  });
}
TEST_CASE("large gradients: masked tokens, and added to what is there", "[large]") {
  same_as_one_by_one<float, float>({16000, 18000}, 128, {.masked = true});
  same_as_one_by_one<float, float>({16000, 18000}, 129, {.skip = 5, .masked = true});
  same_as_one_by_one<float, float>({16000, 18000}, 128, {.masked = true, .mode = sara::gradient_mode::accumulate});
}
