// A checked build's look at the data of the pieces: it names the argument and the row, and writes nothing.
#define SARA_CHECKED 1

#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/routing_histogram.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::for_each_host_executor;
using sara::matrix_view;

constexpr std::size_t tokens = 6, experts = 5;
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();

// Does the call name both, and leave `out` as it was?
template <class Call> bool refused(Call&& call, const std::vector<float>& out, const char* argument, const char* where) {
  const auto before = out;
  const std::string said = oracle::complaint(call);
  INFO(said);
  const bool right = said.find(argument) != std::string::npos && said.find(where) != std::string::npos && oracle::same_bits(out, before);
  CHECK(right);
  return right;
}

std::vector<float> some_logits() { return oracle::as_storage<float>(oracle::source(1).normals(tokens * experts)); }

}   // namespace

TEST_CASE("checked: gate_softmax names the row without a softmax", "[checked]") {
  for_each_host_executor([](const auto& exec, const char* name) {
    INFO(name);
    std::vector<float> z = some_logits(), p(tokens * experts, 7);
    const auto call = [&] {
      sara::gate_softmax_into(exec, sara::gate_softmax_inputs<float>{.logits = matrix_view{z.data(), tokens, experts}},
                              {.probs = matrix_view{p.data(), tokens, experts}});
    };
    call();
    CHECK(p[0] != 7);
    for (const float bad : {not_a_number, infinity}) {
      z = some_logits();
      z[3 * experts + 1] = bad;
      CHECK(refused(call, p, "logits", "row 3"));
    }
    z = some_logits();
    std::fill_n(z.begin() + 4 * experts, experts, -infinity);
    CHECK(refused(call, p, "logits", "row 4"));
    z[4 * experts] = 0;
    call();   // -inf among finite logits is legal
  });
}

TEST_CASE("checked: js_divergence names the row with a negative number or NaN", "[checked]") {
  for_each_host_executor([](const auto& exec, const char* name) {
    INFO(name);
    for (const bool in_p : {true, false})
      for (const float bad : {not_a_number, -1e-6f}) {
        std::vector<float> p(tokens * experts, 0.2f), q = p, d(tokens, 7);
        const auto call = [&] {
          sara::js_divergence_into(
              exec,
              sara::js_divergence_inputs<float>{.p = matrix_view{p.data(), tokens, experts}, .q = matrix_view{q.data(), tokens, experts}},
              {.divergence = d});
        };
        call();
        CHECK(d[0] == 0);
        (in_p ? p : q)[2 * experts + 3] = bad;
        CHECK(refused(call, d, in_p ? "p: " : "q: ", "row 2"));
      }
  });
}

TEST_CASE("checked: routing histograms name bad weights, offsets and logits, and probabilities in place of logits", "[checked]") {
  for_each_host_executor([](const auto& exec, const char* name) {
    INFO(name);
    std::vector<float> z = some_logits(), weights(tokens, 1), h(2 * experts, 7);
    std::vector<std::int32_t> offsets{0, 2, 6}, chosen(tokens, 0);
    const auto soft = [&] {
      sara::routing_histogram_into(exec,
                                   sara::routing_histogram_inputs<float>{.logits = matrix_view{z.data(), tokens, experts},
                                                                         .sequences = sara::sequences_view::packed(offsets),
                                                                         .token_weights = weights},
                                   {.histograms = matrix_view{h.data(), 2, experts}});
    };
    const auto hard = [&] {
      sara::hard_routing_histogram_into(
          exec,
          sara::hard_routing_histogram_inputs<float>{.indices = matrix_view<const std::int32_t>{chosen.data(), tokens, 1},
                                                     .experts = experts,
                                                     .sequences = sara::sequences_view::packed(offsets),
                                                     .token_weights = weights},
          {.sums = matrix_view{h.data(), 2, experts}});
    };
    soft();
    hard();
    weights[4] = -1;
    CHECK(refused(soft, h, "token_weights", "[4]"));
    CHECK(refused(hard, h, "token_weights", "[4]"));
    weights[4] = 1;
    offsets = {0, 7, 6};
    CHECK(refused(soft, h, "sequences", "offset 1"));
    offsets = {0, 4, 2};
    CHECK(refused(soft, h, "sequences", "offset 2"));
    CHECK(refused(hard, h, "sequences", "offset 2"));
    offsets = {0, 2, 6};
    z[5 * experts] = not_a_number;
    CHECK(refused(soft, h, "logits", "row 5"));
    weights[5] = 0;
    soft();   // a hidden token may hold NaN
    for (std::size_t t = 0; t < tokens; ++t) {
      const std::vector<double> row = oracle::as_doubles(std::vector<float>(experts, static_cast<float>(t)));
      for (std::size_t e = 0; e < experts; ++e) z[t * experts + e] = static_cast<float>(oracle::softmax(row.data(), experts)[e]);
    }
    CHECK(refused(soft, h, "logits", "probability distribution"));
  });
}
