// Where arguments lie changes nothing: unaligned pointers, strides with NaN between the rows, layers in lists, the gradient in place
// of the logits, columns of one buffer.
#include <memory>

#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

oracle::problem batch(std::size_t experts) {
  auto in = oracle::plain_problem(experts, 3, 3, 13, experts);
  in.token_weights.assign(in.tokens, 1);
  in.token_weights[4] = 0;
  in.anchor_rows = {2, 0, -1};
  return in;
}

template <class T, class G> void same_bits_wherever_it_lies() {
  for (const std::size_t experts : {1u, 3u, 8u, 31u, 64u, 129u}) {
    const auto in = batch(experts);
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      const auto want = oracle::evaluate<T, G>(exec, in);
      std::vector<oracle::placement> places{{.list = true},
                                            {.row_padding = 1},
                                            {.row_padding = 64},
                                            {.layer_padding = 3},
                                            {.list = true, .row_padding = 7, .layer_padding = 5, .offset = 3}};
      for (sara::index_t offset = 1; offset < 16; offset += 3) places.push_back({.offset = offset});
      for (std::size_t i = 0; i < places.size(); ++i) {
        CAPTURE(name, experts, i);
        // Each alone, then all together.
        for (const auto& how :
             {oracle::posing{.logits = places[i]}, oracle::posing{.others = places[i]}, oracle::posing{.grad = places[i]},
              oracle::posing{.logits = places[i], .others = places[(i + 1) % places.size()], .grad = places[(i + 2) % places.size()]}}) {
          const auto got = oracle::evaluate<T, G>(exec, in, how);   // throws where the padding was touched
          CHECK(got.loss == want.loss);
          CHECK(got.divergence == want.divergence);
          CHECK(got.histograms == want.histograms);
          CHECK(got.grad == want.grad);
        }
      }
    });
  }
}

}   // namespace

TEST_CASE("float: the same bits wherever the arguments lie", "[placement]") { same_bits_wherever_it_lies<float, float>(); }
TEST_CASE("double: the same bits wherever the arguments lie", "[placement]") { same_bits_wherever_it_lies<double, double>(); }
TEST_CASE("bf16, float gradient: the same bits wherever the arguments lie", "[placement]") {
  same_bits_wherever_it_lies<sara::bf16, float>();
}
TEST_CASE("fp16: the same bits wherever the arguments lie", "[placement]") { same_bits_wherever_it_lies<sara::fp16, sara::fp16>(); }

TEMPLATE_TEST_CASE("the gradient in place of the logits", "[placement]", double, float, sara::bf16, sara::fp16) {
  for (const std::size_t experts : {1u, 7u, 64u, 129u})
    for (const bool list : {false, true}) {
      const auto in = oracle::rounded_to<TestType>(batch(experts));
      const oracle::posing how{.logits = {.list = list, .row_padding = list ? 3 : 0}};
      oracle::for_each_executor(
          [&](const auto& exec, const char* name) {
            CAPTURE(name, experts, list);
            const auto want = oracle::evaluate<TestType>(exec, in);
            oracle::arguments<TestType> given(in, how);
            const auto inputs = given.inputs();
            std::vector<sara::matrix_view<TestType>> matrices;
            const auto all = given.logits.view();
            for (sara::index_t l = 0; l < all.layers(); ++l) matrices.push_back(all[l]);
            sara::arithmetic_t<TestType> loss{};
            sara::js_routing_into(exec, inputs,
                                  {.loss = sara::vector_view{&loss, 1}, .grad_logits = list ? sara::layers_view<TestType>(matrices) : all});
            CHECK(static_cast<double>(loss) == want.loss);
            CHECK(oracle::as_doubles(given.logits.values()) == want.grad);
            CHECK(given.logits.padding_is_untouched());
          },
          3);
    }
}

TEST_CASE("the gradient in place of the logits, a total of 0: the divergence is still that of the logits", "[placement]") {
  auto in = batch(12);
  in.total_sequence_weight = 0;
  const auto want = oracle::solve(in);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    oracle::arguments<double> given(in);
    oracle::answers<double> got(in);
    auto outputs = got.outputs();
    outputs.grad_logits = given.logits.view();
    sara::js_routing_into(exec, given.inputs(), outputs);
    CHECK(got.loss[0] == 0);
    CHECK(oracle::relative_error(got.divergence.values(), want.divergence) <= 1e-12);
    CHECK(oracle::relative_error(got.histograms.values(), want.histograms) <= 1e-12);
    CHECK(oracle::relative_error(given.logits.values(), want.grad) == 0);
  });
}

TEST_CASE("logits and gradient as columns of one buffer", "[placement]") {
  constexpr std::size_t experts = 12, width = 40;
  auto in = oracle::plain_problem(1, 1, 2, 9, experts);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto want = oracle::evaluate<double>(exec, in);
    for (const std::size_t gap : {0u, 5u, 16u}) {
      std::vector<double> buffer(in.tokens * width, -1);
      for (std::size_t t = 0; t < in.tokens; ++t)
        std::copy_n(in.logits.begin() + static_cast<std::ptrdiff_t>(t * experts), experts,
                    buffer.begin() + static_cast<std::ptrdiff_t>(t * width + experts + gap));
      sara::js_routing_into(
          exec,
          sara::js_routing_inputs<double>{.logits = sara::matrix_view{buffer.data() + experts + gap, in.tokens, experts, width},
                                          .sequences = sara::sequences_view::uniform(2, 9),
                                          .anchors = sara::matrix_view{in.anchors.data(), 2, experts}},
          {.grad_logits = sara::matrix_view{buffer.data(), in.tokens, experts, width}});
      for (std::size_t t = 0; t < in.tokens; ++t)
        for (std::size_t c = 0; c < width; ++c) {
          const double is = buffer[t * width + c];
          if (c < experts)
            CHECK(is == want.grad[t * experts + c]);
          else if (c >= experts + gap && c < 2 * experts + gap)
            CHECK(is == in.logits[t * experts + c - experts - gap]);
          else
            CHECK(is == -1);
        }
    }
  });
}

TEST_CASE("histograms and token mass in place of the saved ones", "[placement]") {
  auto in = batch(16);
  oracle::source from(2);
  in.histograms = oracle::distributions(from, 3 * 3, 16);
  in.token_mass = {13, 12, 13};
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto want = oracle::evaluate<double>(exec, in);
    oracle::arguments<double> given(in);
    const auto inputs = given.inputs();
    oracle::answers<double> got(in);
    auto outputs = got.outputs();
    outputs.histograms = given.histograms.view();
    outputs.token_mass = given.token_mass;
    sara::js_routing_into(exec, inputs, outputs);
    CHECK(oracle::as_doubles(got.grad.values()) == want.grad);
    CHECK(oracle::as_doubles(given.histograms.values()) == want.histograms);
    CHECK(oracle::as_doubles(given.token_mass) == want.token_mass);
  });
}
