// A checked build (SARA_CHECKED=1) also validates data: it names the argument and the row, and writes nothing.
#define SARA_CHECKED 1

#include <sara/gate_softmax.hpp>

#include <functional>
#include <string>

#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(), not_a_number = std::numeric_limits<double>::quiet_NaN();

// 3 layers, 5 sequences of 20 tokens, 6 experts; every weight given.
oracle::problem good_problem() {
  auto in = oracle::plain_problem(1, 3, 5, 20, 6);
  oracle::source from(1);
  in.layout = oracle::layout::packed;
  in.offsets = {0, 20, 40, 60, 80, 100};
  in.token_weights = from.uniforms(100, 0.5, 1);
  in.sequence_weights = from.uniforms(5, 0.5, 1);
  in.layer_weights = from.uniforms(3, 0.5, 1);
  in.anchor_rows = {0, 1, 2, 3, 4};
  return in;
}

template <class T, class Executor>
std::string what_is_wrong(const Executor& exec, const oracle::problem& in, const std::vector<std::string>& words) {
  const oracle::arguments<T> given(in);
  oracle::answers<T> got(in);
  std::string sentence;
  try {
    sara::js_routing_into(exec, given.inputs(), got.outputs());
    return "nothing was thrown";
  } catch (const sara::invalid_argument& e) {
    sentence = e.what();
  }
  if (!got.same_bits_as(oracle::answers<T>(in))) return "an output was written";
  for (const auto& word : words)
    if (sentence.find(word) == std::string::npos) return "'" + word + "' is not in: " + sentence;
  return "";
}

// `words`: the argument, and the number of the row.
void throws(const std::vector<std::string>& words, const std::function<void(oracle::problem&)>& breaks) {
  auto in = good_problem();
  breaks(in);
  INFO(words[0]);
  CHECK(what_is_wrong<double>(sara::cpu_executor{}, in, words) == "");
  CHECK(what_is_wrong<float>(sara::cpu_executor{.threads = 3}, in, words) == "");
  CHECK(what_is_wrong<sara::bf16>(sara::cpu_executor{}, in, words) == "");
  CHECK(what_is_wrong<float>(sara::eigen_executor{}, in, words) == "");
}

void does_not_throw(const std::function<void(oracle::problem&)>& changes) {
  auto in = good_problem();
  changes(in);
  CHECK(what_is_wrong<double>(sara::cpu_executor{}, in, {}) == "nothing was thrown");
  CHECK(what_is_wrong<float>(sara::cpu_executor{}, in, {}) == "nothing was thrown");
  CHECK(what_is_wrong<float>(sara::eigen_executor{}, in, {}) == "nothing was thrown");
}

double& logit(oracle::problem& in, std::size_t layer, std::size_t token, std::size_t expert) {
  return in.logits[(layer * in.tokens + token) * in.experts + expert];
}

}   // namespace

TEST_CASE("checked: good data passes and gives the right answer", "[checked]") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    auto in = oracle::random_problem(seed, 2000);
    if (in.experts < 2) continue;
    const auto want = oracle::solve(in);
    oracle::for_each_host_executor([&](const auto& exec, const char* name) {
      CAPTURE(name, seed);
      const auto got = oracle::evaluate<double>(exec, in);
      CHECK(oracle::relative_error(got.grad, want.grad, 16 * 0x1p-52 * want.grad_floor) <= 1e-12);
      CHECK(oracle::relative_error(std::vector{got.loss}, std::vector{want.loss}, 16 * 0x1p-52 * want.root_loss) <= 1e-12);
    });
  }
}

TEST_CASE("checked: the row of a NaN logit", "[checked]") {
  throws({"logits", "73"}, [](auto& in) { logit(in, 1, 73, 5) = not_a_number; });
  throws({"logits", "99"}, [](auto& in) { logit(in, 2, 99, 0) = not_a_number; });
  does_not_throw([](auto& in) { logit(in, 0, 7, 2) = -infinity; });
  does_not_throw([](auto& in) {   // no weight: not read
    in.token_weights[73] = 0;
    logit(in, 1, 73, 5) = not_a_number;
  });
}

TEST_CASE("checked: a negative or NaN weight", "[checked]") {
  throws({"token_weights", "57"}, [](auto& in) { in.token_weights[57] = -1; });
  throws({"token_weights", "57"}, [](auto& in) { in.token_weights[57] = not_a_number; });
  throws({"sequence_weights", "4"}, [](auto& in) { in.sequence_weights[4] = -0.5; });
  throws({"layer_weights", "2"}, [](auto& in) { in.layer_weights[2] = -2; });
}

TEST_CASE("checked: an offset that falls back or leaves the tokens", "[checked]") {
  throws({"sequences", "3"}, [](auto& in) { in.offsets[3] = 30; });
  throws({"sequences", "5", "101"}, [](auto& in) { in.offsets[5] = 101; });
  throws({"sequences", "0", "-1"}, [](auto& in) { in.offsets[0] = -1; });
  throws({"sequences", "3"}, [](auto& in) {
    in.wide_integers = false;
    in.offsets[3] = 30;
  });
  does_not_throw([](auto& in) { in.offsets = {10, 10, 40, 40, 60, 90}; });
}

TEST_CASE("checked: an anchor row that does not sum to 1", "[checked]") {
  throws({"anchors", "3"}, [](auto& in) { in.anchors[(1 * 5 + 3) * 6 + 2] += 0.25; });
  throws({"anchors", "4"}, [](auto& in) { std::fill_n(in.anchors.begin() + (2 * 5 + 4) * 6, 6, 0.0); });
  throws({"anchors", "2"}, [](auto& in) { in.anchors[(0 * 5 + 2) * 6 + 1] = not_a_number; });
  throws({"anchors", "1"}, [](auto& in) {   // sums to 1, but one is negative
    in.anchors[6] += 2;
    in.anchors[7] -= 2;
  });
  does_not_throw([](auto& in) {   // an anchor that nobody is held to
    in.anchor_rows[3] = -1;
    std::fill_n(in.anchors.begin() + (1 * 5 + 3) * 6, 6, not_a_number);
  });
  does_not_throw([](auto& in) { in = oracle::rounded_to<float>(in); });   // 1 but for fp32's rounding
}

TEST_CASE("checked: an anchor row number out of range", "[checked]") {
  throws({"anchor_rows", "3", "17"}, [](auto& in) { in.anchor_rows[3] = 17; });
  throws({"anchor_rows", "4", "5"}, [](auto& in) { in.anchor_rows[4] = 5; });
  throws({"anchor_rows", "2", "-2"}, [](auto& in) { in.anchor_rows[2] = -2; });
  does_not_throw([](auto& in) { in.anchor_rows = {-1, 4, 4, 0, -1}; });
}

TEST_CASE("checked: probabilities under the name of logits", "[checked]") {
  throws({"logits", "probabilit"}, [](auto& in) {
    for (std::size_t row = 0; row < in.layers * in.tokens; ++row) {
      const auto p = oracle::softmax(in.logits.data() + row * in.experts, in.experts);
      std::copy(p.begin(), p.end(), in.logits.begin() + static_cast<std::ptrdiff_t>(row * in.experts));
    }
  });
  throws({"logits", "probabilit"}, [](auto& in) {   // padding does not hide it
    for (std::size_t row = 0; row < in.layers * in.tokens; ++row)
      std::fill_n(in.logits.begin() + static_cast<std::ptrdiff_t>(row * in.experts), in.experts, 1.0 / 6);
    for (std::size_t t = 0; t < in.tokens; t += 2) {
      in.token_weights[t] = 0;
      logit(in, 0, t, 0) = not_a_number;
    }
  });
  does_not_throw([](auto& in) {   // one row may look like a distribution
    std::fill_n(in.logits.begin(), in.experts, 1.0 / 6);
  });
}

TEST_CASE("checked: what is never read may hold anything", "[checked]") {
  auto in = good_problem();
  in.histograms = oracle::solve(oracle::rounded_to<float>(good_problem())).histograms;
  in.token_mass = {20, 20, 0, 20, 20};
  const auto forward = [&] {
    const oracle::arguments<float> given(in);
    return sara::js_routing(sara::cpu_executor{}, given.inputs());
  };
  logit(in, 0, 45, 1) = not_a_number;   // of the sequence without mass
  CHECK(std::isfinite(forward()));
  logit(in, 0, 5, 1) = not_a_number;   // saved histograms and no gradient: no logit is read
  CHECK(std::isfinite(forward()));
  CHECK_THROWS_AS((oracle::evaluate<float>(sara::cpu_executor{}, in)), sara::invalid_argument);   // the gradient reads it
}

TEST_CASE("checked: gate_softmax refuses probabilities", "[checked]") {
  std::vector<float> probs{0.25f, 0.75f, 0.5f, 0.5f}, out(4);
  CHECK_THROWS_AS(
      sara::gate_softmax_into(sara::cpu_executor{}, sara::gate_softmax_inputs<float>{.logits = sara::matrix_view{probs.data(), 2, 2}},
                              {.probs = sara::matrix_view{out.data(), 2, 2}}),
      sara::invalid_argument);
}
