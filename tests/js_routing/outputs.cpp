// What is not asked for costs nothing and changes nothing; the query of scratch is what a call needs.
#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

oracle::problem batch(bool saved) {
  auto in = oracle::plain_problem(1, 3, 4, 90, 33);
  oracle::source from(1);
  in.token_weights = from.uniforms(in.tokens, 0.5, 1);
  in.upstream = 3;
  in.scale = 1.5;
  if (saved) in.histograms = oracle::distributions(from, 3 * 4, 33);
  return in;
}

}   // namespace

TEST_CASE("any choice of outputs gives the same bits", "[outputs]") {
  for (const bool saved : {false, true}) {
    const auto in = oracle::rounded_to<float>(batch(saved));
    const oracle::arguments<float> given(in);
    oracle::for_each_executor([&](const auto& exec, const char* name) {
      oracle::answers<float> want(in);
      sara::js_routing_into(exec, given.inputs(), want.outputs(), {.scale = in.scale});
      for (int chosen = 0; chosen < 32; ++chosen) {
        CAPTURE(name, chosen, saved);
        oracle::answers<float> got(in);
        auto outputs = got.outputs();
        if (!(chosen & 1)) outputs.loss = {};
        if (!(chosen & 2)) outputs.divergence = {};
        if (!(chosen & 4)) outputs.histograms = {};
        if (!(chosen & 8)) outputs.token_mass = {};
        if (!(chosen & 16)) outputs.grad_logits = {};
        sara::js_routing_into(exec, given.inputs(), outputs, {.scale = in.scale});
        const oracle::answers<float> untouched(in);
        CHECK(oracle::same_bits(got.loss, (chosen & 1 ? want : untouched).loss));
        CHECK(oracle::same_bits(got.divergence.memory(), (chosen & 2 ? want : untouched).divergence.memory()));
        CHECK(oracle::same_bits(got.histograms.memory(), (chosen & 4 ? want : untouched).histograms.memory()));
        CHECK(oracle::same_bits(got.token_mass, (chosen & 8 ? want : untouched).token_mass));
        CHECK(oracle::same_bits(got.grad.memory(), (chosen & 16 ? want : untouched).grad.memory()));
      }
    });
  }
}

TEST_CASE("js_routing returns the loss that js_routing_into writes", "[outputs]") {
  const auto in = oracle::rounded_to<float>(batch(false));
  const oracle::arguments<float> given(in);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    CHECK(static_cast<double>(sara::js_routing(exec, given.inputs(), {.scale = in.scale})) == oracle::evaluate<float>(exec, in).loss);
  });
}

TEST_CASE("forward saves what backward takes: the gradient from saved histograms is that of one call", "[outputs]") {
  auto in = batch(false);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    in.histograms.clear();
    in.token_mass.clear();
    const auto forward = oracle::evaluate<double>(exec, in);
    in.histograms = forward.histograms;
    in.token_mass = forward.token_mass;
    const auto backward = oracle::evaluate<double>(exec, in);
    CHECK(oracle::relative_error(backward.grad, forward.grad) <= 1e-14);
    CHECK(std::abs(backward.loss - forward.loss) <= 1e-14 * forward.loss);
  });
}

TEST_CASE("a lent scratch of the size asked for is enough, its contents do not matter, and nothing beyond it is touched", "[outputs]") {
  for (const bool saved : {false, true})
    for (const int threads : {1, 2, 7}) {
      const auto in = oracle::rounded_to<float>(batch(saved));
      const oracle::arguments<float> given(in);
      oracle::for_each_instruction_set(
          [&](sara::cpu_executor exec, const char* name) {
            CAPTURE(name, threads, saved);
            oracle::answers<float> want(in);
            sara::js_routing_into(exec, given.inputs(), want.outputs());
            oracle::answers<float> sized(in);
            const std::size_t bytes = sara::js_routing_workspace_bytes(exec, given.inputs(), sized.outputs());
            for (const std::size_t offset : {0u, 1u, 8u, 63u})
              for (const int fill : {0x00, 0x7f, 0xff}) {
                std::vector<unsigned char> memory(bytes + 256, static_cast<unsigned char>(fill));
                exec.scratch = {memory.data() + offset, bytes};
                oracle::answers<float> got(in);
                sara::js_routing_into(exec, given.inputs(), got.outputs());
                CHECK(got.same_bits_as(want));
                CHECK(std::all_of(memory.begin() + static_cast<std::ptrdiff_t>(offset + bytes), memory.end(),
                                  [&](unsigned char b) { return b == fill; }));
                CHECK(std::all_of(memory.begin(), memory.begin() + static_cast<std::ptrdiff_t>(offset),
                                  [&](unsigned char b) { return b == fill; }));
              }
          },
          threads);
    }
}

TEST_CASE("scratch does not grow with tokens times experts", "[outputs]") {
  // What is allowed: threads (experts + longest sequence) + layers sequences experts, and 1 MiB a thread.
  for (const std::size_t length : {100u, 10000u, 200000u}) {
    oracle::problem in;
    in.layers = 2;
    in.sequences = in.anchor_count = 3;
    in.length = length;
    in.tokens = 3 * length;
    in.experts = 64;
    in.layout = oracle::layout::uniform;
    const std::vector<float> none(1);   // the query looks at shapes alone
    const sara::js_routing_inputs<float> inputs{.logits = sara::layers_view<const float>{none.data(), 2, in.tokens, 64},
                                                .sequences = sara::sequences_view::uniform(3, static_cast<sara::index_t>(length)),
                                                .anchors = sara::layers_view<const float>{none.data(), 2, 3, 64}};
    std::vector<float> grad(1);
    for (const int threads : {1, 4}) {
      const std::size_t bytes = sara::js_routing_workspace_bytes(
          sara::cpu_executor{.threads = threads}, inputs,
          sara::js_routing_outputs<float>{.grad_logits = sara::layers_view<float>{grad.data(), 2, in.tokens, 64}});
      CAPTURE(length, threads, bytes);
      const std::size_t n = static_cast<std::size_t>(threads);
      CHECK(bytes <= n * ((std::size_t{1} << 20) + 64 * (64 + length)) + 64 * 8 * 2 * 3 * 64 + 65536);
    }
  }
}
