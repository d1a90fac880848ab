// Gradients too large for the caches, which are written past them: the same bits as sequence by sequence, where they are not.
#include <sara/js_routing.hpp>

#include <algorithm>
#include <cstring>

#include "catch.hpp"
#include "oracle/device.hpp"
#include "oracle/executors.hpp"
#include "oracle/instances.hpp"
#include "oracle/problems.hpp"

namespace {

using sara::index_t;

template <class T> std::vector<T> random_logits(index_t count) {
  std::vector<T> z(static_cast<std::size_t>(count));
  std::uint32_t x = 12345;
  for (T& each : z) {
    x = x * 1664525u + 1013904223u;
    sara::store_value(each, static_cast<sara::arithmetic_t<T>>(static_cast<double>(x >> 8) / (1 << 21) - 4));
  }
  return z;
}

// Sequences of the given lengths in one call, and each in a call of its own. `skip`: elements between the start of the gradient's memory
// and the gradient.
template <class T, class G> void same_as_one_by_one(const std::vector<index_t>& lengths, index_t experts, index_t skip, bool in_place) {
  using A = sara::arithmetic_t<T>;
  std::vector<std::int64_t> offsets{0};
  for (const index_t length : lengths) offsets.push_back(offsets.back() + length);
  const index_t tokens = offsets.back(), sequences = static_cast<index_t>(lengths.size());
  REQUIRE(tokens * experts * static_cast<index_t>(sizeof(G)) >= index_t(16) << 20);
  const std::vector<T> z = random_logits<T>(tokens * experts);
  const std::vector<A> anchors(static_cast<std::size_t>(sequences * experts), A(1) / static_cast<A>(experts));
  const A total = static_cast<A>(sequences - std::count(lengths.begin(), lengths.end(), 0));   // those that weigh
  const sara::js_routing_options options{.scale = 16384};                                      // fp16 gradients are not to be 0
  const auto bytes = static_cast<std::size_t>(tokens * experts) * sizeof(G);

  oracle::for_each_instruction_set([&](sara::cpu_executor exec, const char* name) {
    exec.threads = 1;
    std::vector<G> want(z.size());
    for (index_t s = 0; s < sequences; ++s) {
      const index_t first = offsets[static_cast<std::size_t>(s)], length = lengths[static_cast<std::size_t>(s)];
      sara::js_routing_inputs<T> in{.logits = sara::matrix_view<const T>(z.data() + first * experts, length, experts),
                                    .sequences = sara::sequences_view::uniform(1, length),
                                    .anchors = sara::matrix_view<const A>(anchors.data() + s * experts, 1, experts),
                                    .total_sequence_weight = sara::vector_view<const A>(&total, 1)};
      sara::js_routing_outputs<T, G> out{.grad_logits = sara::matrix_view<G>(want.data() + first * experts, length, experts)};
      sara::js_routing_into<T, G>(exec, in, out, options);
    }
    sara::thread_pool pool(2);
    for (const int threads : {1, 2}) {
      INFO(name << ", " << threads << " threads, " << experts << " experts");
      exec.threads = threads;
      exec.pool = pool;
      std::vector<G> got(z.size() + static_cast<std::size_t>(skip) + 1);
      G* const to = got.data() + skip;
      sara::store_value(to[z.size()], A(7));
      const T* from = z.data();
      if constexpr (std::is_same_v<T, G>)
        if (in_place) from = static_cast<const T*>(std::memcpy(to, z.data(), bytes));
      sara::js_routing_inputs<T> in{.logits = sara::matrix_view<const T>(from, tokens, experts),
                                    .sequences = sara::sequences_view::packed(offsets),
                                    .anchors = sara::matrix_view<const A>(anchors.data(), sequences, experts)};
      sara::js_routing_outputs<T, G> out{.grad_logits = sara::matrix_view<G>(to, tokens, experts)};
      sara::js_routing_into<T, G>(exec, in, out, options);
      CHECK(std::memcmp(to, want.data(), bytes) == 0);
      CHECK(sara::load_value(to[z.size()]) == A(7));   // nothing behind it

      if (in_place) continue;   // and from histograms that were kept
      std::vector<A> histograms(anchors.size()), mass(static_cast<std::size_t>(sequences));
      for (std::size_t s = 0; s < mass.size(); ++s) mass[s] = static_cast<A>(lengths[s]);
      sara::js_routing_into<T, G>(exec, in, {.histograms = sara::matrix_view<A>(histograms.data(), sequences, experts)});
      in.histograms = sara::matrix_view<const A>(histograms.data(), sequences, experts);
      in.token_mass = mass;
      std::vector<G> again(got.size());
      out.grad_logits = sara::matrix_view<G>(again.data() + skip, tokens, experts);
      sara::js_routing_into<T, G>(exec, in, out, options);
      std::size_t far = 0;   // histograms are rounded to A, so not bit by bit
      double largest = 0;
      for (std::size_t i = 0; i < z.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(sara::load_value(want[i]))));
      for (std::size_t i = 0; i < z.size(); ++i)
        far += !(std::abs(static_cast<double>(sara::load_value(again[i + static_cast<std::size_t>(skip)])) -
                          static_cast<double>(sara::load_value(want[i]))) <= 0.01 * largest);
      CHECK(far == 0);
      CHECK(largest > 0);
    }
  });
}

}   // namespace

TEST_CASE("large gradients: fp32, rows of whole lines and not, from any element on", "[large]") {
  same_as_one_by_one<float, float>({16000, 9000, 0, 9001}, 128, 0, false);
  same_as_one_by_one<float, float>({16000, 9000, 0, 9001}, 128, 3, false);
  same_as_one_by_one<float, float>({30000, 1, 40000}, 60, 1, false);
  same_as_one_by_one<float, float>({15000, 18000}, 129, 0, false);
}
TEST_CASE("large gradients: a sequence too long for its worker's memory", "[large]") {
  same_as_one_by_one<float, float>({40000, 30000}, 64, 5, false);
}
TEST_CASE("large gradients: other storages", "[large]") {
  same_as_one_by_one<double, double>({9000, 9000}, 128, 1, false);
  same_as_one_by_one<sara::bf16, float>({16000, 18000}, 128, 1, false);
  same_as_one_by_one<sara::bf16, sara::bf16>({33000, 34000}, 128, 5, false);
  same_as_one_by_one<sara::fp16, sara::fp16>({70000, 75000}, 60, 0, false);
}
TEST_CASE("large gradients: in place of the logits", "[large]") {
  same_as_one_by_one<float, float>({16000, 18000}, 128, 0, true);
  same_as_one_by_one<float, float>({30000, 41000}, 60, 1, true);
  same_as_one_by_one<sara::bf16, sara::bf16>({33000, 34000}, 129, 3, true);
}
