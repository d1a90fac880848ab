// Results too large for the caches, which are written past them: the same bits as some rows at a time, where they are not.
#include <sara/gate_softmax.hpp>

#include <cstring>

#include "catch.hpp"
#include "oracle/blocks.hpp"
#include "oracle/compare.hpp"
#include "oracle/executors.hpp"
#include "oracle/instances.hpp"
#include "oracle/problems.hpp"

namespace {

using sara::index_t;

constexpr index_t rows_at_a_time = 1000;

template <class P> void same_as_some_at_a_time(index_t experts, index_t skip) {
  const index_t tokens = (index_t(16) << 20) / static_cast<index_t>(sizeof(P)) / experts / rows_at_a_time * rows_at_a_time + rows_at_a_time;
  const auto values = static_cast<std::size_t>(tokens * experts), bytes = values * sizeof(P);
  const std::vector<P> z = oracle::as_storage<P>(oracle::source(1).normals(values, 2));
  oracle::for_each_instruction_set(
      [&](const sara::cpu_executor& exec, const char* name) {
        INFO(name << ", " << experts << " experts, from element " << skip);
        std::vector<P> want(values);
        oracle::line_of<P> got(values, skip);
        P* const to = got.data();
        REQUIRE(sara::is_large<P>(tokens * experts) == sara::has_stores_past_caches);
        const bool whole_lines = skip == 0 && experts * static_cast<index_t>(sizeof(P)) % 64 == 0, is_long = experts >= 60 && sizeof(P) > 2;
        REQUIRE((sara::row_write_of(sara::gradient_mode::overwrite, to, experts, experts, sara::has_stores_past_caches) ==
                 sara::row_write::past_caches) == (sara::has_stores_past_caches && (whole_lines || is_long || experts >= 192)));
        const auto all = [&](const P* data) { return sara::matrix_view<const P>(data, tokens, experts); };
        const auto some = [&](auto* data, index_t t) { return sara::matrix_view(data + t * experts, rows_at_a_time, experts); };

        for (index_t t = 0; t < tokens; t += rows_at_a_time)
          sara::gate_softmax_into<P>(exec, {.logits = some(z.data(), t)}, {.probs = some(want.data(), t)});
        sara::gate_softmax_into<P>(exec, {.logits = all(z.data())}, {.probs = sara::matrix_view<P>(to, tokens, experts)});
        CHECK(std::memcmp(to, want.data(), bytes) == 0);
        std::memcpy(to, z.data(), bytes);
        sara::gate_softmax_into<P>(exec, {.logits = all(to)}, {.probs = sara::matrix_view<P>(to, tokens, experts)});
        CHECK(std::memcmp(to, want.data(), bytes) == 0);

        const std::vector<P> p = want;
        for (index_t t = 0; t < tokens; t += rows_at_a_time)
          sara::gate_softmax_backward_into<P>(exec, {.probs = some(p.data(), t), .grad_probs = some(z.data(), t)},
                                              {.grad_logits = some(want.data(), t)});
        sara::gate_softmax_backward_into<P>(exec, {.probs = all(p.data()), .grad_probs = all(z.data())},
                                            {.grad_logits = sara::matrix_view<P>(to, tokens, experts)});
        CHECK(std::memcmp(to, want.data(), bytes) == 0);
        std::memcpy(to, z.data(), bytes);
        sara::gate_softmax_backward_into<P>(exec, {.probs = all(p.data()), .grad_probs = all(to)},
                                            {.grad_logits = sara::matrix_view<P>(to, tokens, experts)});
        CHECK(std::memcmp(to, want.data(), bytes) == 0);
        std::memcpy(to, p.data(), bytes);
        sara::gate_softmax_backward_into<P>(exec, {.probs = all(to), .grad_probs = all(z.data())},
                                            {.grad_logits = sara::matrix_view<P>(to, tokens, experts)});
        CHECK(std::memcmp(to, want.data(), bytes) == 0);
        CHECK(got.is_guarded());
      },
      2);
}

}   // namespace

TEMPLATE_TEST_CASE("gate_softmax and its backward: large results, from any element on", "[gate_softmax]", float, double, sara::bf16) {
  same_as_some_at_a_time<TestType>(128, 0);
  same_as_some_at_a_time<TestType>(128, 1);
  same_as_some_at_a_time<TestType>(60, 1);
  same_as_some_at_a_time<TestType>(129, 3);
  same_as_some_at_a_time<TestType>(257, 5);
}
