// What a cpu_executor is told: threads, instruction set, a lent scratch; each piece obeys, or refuses by name.
#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/js_routing.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

#include <functional>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using sara::index_t;
using sara::matrix_view;

constexpr std::size_t tokens = 600, experts = 70, k = 4, sequences = 3;

// One call of every piece, on the same small batch of floats; what they wrote, and what scratch they ask for.
struct calls {
  std::vector<float> logits, anchors, probs, weights, histogram, divergence, grad, loss;
  std::vector<std::int32_t> chosen;
  sara::sequences_view batch = sara::sequences_view::uniform(sequences, tokens / sequences);

  calls()
      : logits(oracle::as_storage<float>(oracle::source(1).normals(tokens * experts, 2))),
        anchors(sequences * experts, 1.0f / experts),
        probs(tokens * experts),
        weights(tokens * k),
        histogram(sequences * experts),
        divergence(sequences),
        grad(tokens * experts),
        loss(1),
        chosen(tokens * k) {
    for (std::size_t i = 0; i < chosen.size(); ++i) chosen[i] = static_cast<std::int32_t>(i % experts);
    clear();
  }

  matrix_view<const float> z() const { return {logits.data(), tokens, experts}; }
  matrix_view<float> to_grad() { return {grad.data(), tokens, experts}; }
  matrix_view<float> to_rows() { return {histogram.data(), sequences, experts}; }
  matrix_view<const float> rows() const { return {anchors.data(), sequences, experts}; }

  sara::gate_softmax_inputs<float> softmax{.logits = z()};
  sara::gate_softmax_outputs<float> softmax_out{.probs = {probs.data(), tokens, experts}};
  sara::top_k_inputs<float> top{.scores = z()};
  sara::top_k_outputs<float> top_out{.weights = {weights.data(), tokens, k}};
  sara::routing_histogram_inputs<float> soft{.logits = z(), .sequences = batch};
  sara::routing_histogram_outputs<float> soft_out{.histograms = to_rows()};
  sara::routing_histogram_backward_inputs<float> soft_back{.logits = z(), .sequences = batch, .grad_histograms = rows()};
  sara::routing_histogram_backward_outputs<float> soft_back_out{.grad_logits = to_grad()};
  sara::hard_routing_histogram_inputs<float> hard{
      .indices = matrix_view<const std::int32_t>{chosen.data(), tokens, k}, .experts = experts, .sequences = batch};
  sara::hard_routing_histogram_outputs<float> hard_out{.histograms = to_rows()};
  sara::hard_routing_histogram_backward_inputs<float> hard_back{
      .indices = matrix_view<const std::int32_t>{chosen.data(), tokens, k}, .sequences = batch, .grad_histograms = rows()};
  sara::hard_routing_histogram_backward_outputs<float> hard_back_out{.grad_weights = matrix_view<float>{weights.data(), tokens, k}};
  sara::js_routing_inputs<float> fused{.logits = z(), .sequences = batch, .anchors = rows()};
  sara::js_routing_outputs<float> fused_out{.loss = loss, .grad_logits = to_grad()};

  struct call {
    const char* name;
    std::function<void(const sara::cpu_executor&)> run;
    std::function<std::size_t(const sara::cpu_executor&)> bytes;
  };
  std::vector<call> all() {
    return {
        {"gate_softmax_into", [&](auto& e) { sara::gate_softmax_into(e, softmax, softmax_out); },
         [&](auto& e) { return sara::gate_softmax_workspace_bytes(e, softmax, softmax_out); }},
        {"top_k_into", [&](auto& e) { sara::top_k_into(e, top, top_out); },
         [&](auto& e) { return sara::top_k_workspace_bytes(e, top, top_out); }},
        {"routing_histogram_into", [&](auto& e) { sara::routing_histogram_into(e, soft, soft_out); },
         [&](auto& e) { return sara::routing_histogram_workspace_bytes(e, soft, soft_out); }},
        {"routing_histogram_backward_into", [&](auto& e) { sara::routing_histogram_backward_into(e, soft_back, soft_back_out); },
         [&](auto& e) { return sara::routing_histogram_backward_workspace_bytes(e, soft_back, soft_back_out); }},
        {"hard_routing_histogram_into", [&](auto& e) { sara::hard_routing_histogram_into(e, hard, hard_out); },
         [&](auto& e) { return sara::hard_routing_histogram_workspace_bytes(e, hard, hard_out); }},
        {"hard_routing_histogram_backward_into", [&](auto& e) { sara::hard_routing_histogram_backward_into(e, hard_back, hard_back_out); },
         [&](auto& e) { return sara::hard_routing_histogram_backward_workspace_bytes(e, hard_back, hard_back_out); }},
        {"js_routing_into", [&](auto& e) { sara::js_routing_into(e, fused, fused_out); },
         [&](auto& e) { return sara::js_routing_workspace_bytes(e, fused, fused_out); }}};
  }
  void clear() {
    for (auto* v : {&probs, &weights, &histogram, &divergence, &grad, &loss}) std::fill(v->begin(), v->end(), -7.0f);
  }
  std::vector<std::vector<float>> written() const { return {probs, weights, histogram, divergence, grad, loss}; }
};

}   // namespace

TEST_CASE("executor: a lent scratch of the bytes asked for is enough at any alignment, and its surroundings stay", "[cpu]") {
  calls c;
  for (auto& call : c.all())
    for (const int threads : {1, 3})
      for (const std::size_t shift : {std::size_t{0}, std::size_t{1}, std::size_t{24}, std::size_t{63}}) {
        INFO(call.name << ", threads " << threads << ", shift " << shift);
        sara::cpu_executor exec{.threads = threads};
        c.clear();
        call.run(exec);
        const auto want = c.written();
        const std::size_t bytes = call.bytes(exec);
        std::vector<char> memory(bytes + 128, 0x55);
        exec.scratch = {memory.data() + shift, bytes};
        c.clear();
        call.run(exec);
        CHECK(c.written() == want);
        CHECK(want != calls().written());
        CHECK(std::all_of(memory.begin(), memory.begin() + static_cast<std::ptrdiff_t>(shift), [](char x) { return x == 0x55; }));
        CHECK(std::all_of(memory.begin() + static_cast<std::ptrdiff_t>(shift + bytes), memory.end(), [](char x) { return x == 0x55; }));
      }
}

TEST_CASE("executor: a scratch that is a byte short is refused, and nothing written", "[cpu]") {
  calls c;
  for (auto& call : c.all()) {
    sara::cpu_executor exec{.threads = 2};
    const std::size_t bytes = call.bytes(exec);
    if (bytes == 0) continue;
    std::vector<char> memory(bytes);
    exec.scratch = {memory.data(), bytes - 1};
    c.clear();
    INFO(call.name);
    CHECK(oracle::complains([&] { call.run(exec); }, call.name, "exec.scratch"));
    CHECK(c.written() == calls().written());
  }
}

TEST_CASE("executor: threads and instruction sets that cannot be are refused by name", "[cpu]") {
  calls c;
  for (auto& call : c.all()) {
    INFO(call.name);
    CHECK(oracle::complains([&] { call.run(sara::cpu_executor{.threads = -1}); }, call.name, "exec.threads"));
    for (const auto isa : {sara::instruction_set::avx2, sara::instruction_set::avx512})
      if (!sara::is_supported(isa))
        CHECK(oracle::complains([&] { call.run(sara::cpu_executor{.isa = isa}); }, call.name, sara::name_of(isa)));
    CHECK(c.written() == calls().written());
  }
}

TEST_CASE("executor: the same bits for every number of threads, spawned, pooled or the user's own", "[cpu]") {
  calls c;
  sara::thread_pool pool(3);
  const auto one_after_the_other = [](int workers, sara::worker_task task) {
    for (int w = workers; w-- > 0;) task(w);
  };
  for (auto& call : c.all())
    oracle::for_each_instruction_set([&](sara::cpu_executor exec, const char* name) {
      c.clear();
      call.run(exec);
      const auto want = c.written();
      for (const int threads : {0, 2, 3, 7, 16})
        for (int how = 0; how < 3; ++how) {
          exec.threads = threads;
          exec.pool = how == 0 ? sara::parallel_for() : how == 1 ? sara::parallel_for(pool) : sara::parallel_for(one_after_the_other);
          c.clear();
          call.run(exec);
          INFO(call.name << ", " << name << ", threads " << threads << ", pool " << how);
          CHECK(c.written() == want);
        }
    });
}

TEST_CASE("executor: instruction sets", "[cpu]") {
  CHECK(sara::is_supported(sara::instruction_set::best));
  CHECK(sara::is_supported(sara::instruction_set::vector128));
  CHECK(sara::is_supported(sara::best_instruction_set()));
  CHECK(sara::best_instruction_set() != sara::instruction_set::best);
  if (sara::is_supported(sara::instruction_set::avx512)) CHECK(sara::best_instruction_set() == sara::instruction_set::avx512);
  CHECK(std::string(sara::name_of(sara::instruction_set::avx2)) == "avx2");
  calls c;   // `best` gives the bits of what it stands for
  for (auto& call : c.all()) {
    c.clear();
    call.run(sara::cpu_executor{.threads = 1});
    const auto best = c.written();
    c.clear();
    call.run(sara::cpu_executor{.threads = 1, .isa = sara::best_instruction_set()});
    INFO(call.name);
    CHECK(c.written() == best);
  }
}

TEST_CASE("block_shares: every block once, for workers one after the other and at once", "[cpu]") {
  for (const index_t blocks : {0, 1, 2, 5, 64, 1000})
    for (const int workers : {1, 2, 3, 31, 32, 33, 70}) {
      INFO(blocks << " blocks, " << workers << " workers");
      for (const bool at_once : {false, true}) {
        std::vector<std::atomic<int>> taken(static_cast<std::size_t>(blocks));
        sara::block_shares shares(blocks, workers);
        const auto take = [&](int w) { shares.take(w, [&](index_t b) { taken.at(static_cast<std::size_t>(b)).fetch_add(1); }); };
        if (at_once)
          sara::spawn_threads(workers, sara::worker_task(take));
        else
          for (int w = workers; w-- > 0;) take(w);
        CHECK(std::all_of(taken.begin(), taken.end(), [](const auto& times) { return times == 1; }));
      }
    }
}

TEST_CASE("block_shares: a worker begins with its own share, then goes through what is left of the others'", "[cpu]") {
  sara::block_shares shares(10, 3);   // 0 to 2, 3 to 5, 6 to 9
  std::vector<index_t> first, second;
  shares.take(1, [&](index_t b) {
    if (b == 4) shares.take(2, [&](index_t other) { second.push_back(other); });   // which comes while the first is at its second block
    first.push_back(b);
  });
  CHECK(second == std::vector<index_t>{6, 7, 8, 9, 0, 1, 2, 5});
  CHECK(first == std::vector<index_t>{3, 4});

  sara::block_shares from_end(10, 3);
  std::vector<index_t> last_first;
  from_end.take<true>(34, [&](index_t b) { last_first.push_back(b); });   // 34 is 1 of 3
  CHECK(last_first == std::vector<index_t>{5, 4, 3, 9, 8, 7, 6, 2, 1, 0});
}
