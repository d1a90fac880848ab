// Every broken contract throws sara::invalid_argument, names the call and the argument, and has written nothing.
#include <functional>
#include <string>

#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

constexpr sara::index_t layers = 3, batch = 4, length = 5, tokens = 20, experts = 6;

// Every argument given.
oracle::problem good_problem() {
  auto in = oracle::plain_problem(1, layers, batch, length, experts);
  oracle::source from(1);
  in.anchor_rows = {0, 1, 2, 3};
  in.token_weights = from.uniforms(tokens, 0.5, 1);
  in.sequence_weights = from.uniforms(batch, 0.5, 1);
  in.layer_weights = from.uniforms(layers, 0.5, 1);
  in.total_layer_weight = in.total_sequence_weight = in.upstream = 2;
  in.histograms = oracle::distributions(from, layers * batch, experts);
  in.token_mass = from.uniforms(batch, 4, 5);
  return in;
}

// A valid call, whose memory a test then describes wrongly.
struct call {
  oracle::problem what = good_problem();
  oracle::arguments<float> given{what};
  oracle::answers<float> got{what};
  sara::js_routing_inputs<float> in = given.inputs();
  sara::js_routing_outputs<float> out = got.outputs();
  sara::cpu_executor cpu = {};
  std::vector<sara::matrix_view<const float>> list;   // a list of layers that a test makes
  std::vector<sara::matrix_view<float>> out_list;
};

// Does the call throw, with all of `words` in the sentence, and is every output bit for bit what it was?
template <class Executor> std::string what_is_wrong(call& c, const Executor& exec, const std::vector<std::string>& words) {
  std::string sentence;
  try {
    sara::js_routing_into(exec, c.in, c.out);
    return "nothing was thrown";
  } catch (const sara::invalid_argument& e) {
    sentence = e.what();
  }
  if (!c.got.same_bits_as(oracle::answers<float>(c.what))) return "an output was written";
  if (sentence.find("js_routing") == std::string::npos) return "the call is not named: " + sentence;
  for (const auto& word : words)
    if (sentence.find(word) == std::string::npos) return "'" + word + "' is not in: " + sentence;
  return "";
}

struct broken {
  std::vector<std::string> words;
  std::function<void(call&)> breaks;
};

void all_throw(const std::vector<broken>& cases) {
  for (const auto& [words, breaks] : cases) {
    oracle::for_each_executor([&words = words, &breaks = breaks](const auto& exec, const char* name) {
      call c;
      breaks(c);
      INFO(name << ", " << words[0]);
      CHECK(what_is_wrong(c, exec, words) == "");
    });
  }
}

const float* at(const std::vector<float>& v) { return v.data(); }
float* memory() {
  static std::vector<float> room(4096);
  return room.data();
}

}   // namespace

TEST_CASE("the call that is broken below is a good one", "[preconditions]") {
  call c;
  sara::js_routing_into(sara::cpu_executor{}, c.in, c.out);
  CHECK(std::isfinite(c.got.loss[0]));
  CHECK_FALSE(c.got.same_bits_as(oracle::answers<float>(c.what)));
  call d;
  CHECK(what_is_wrong(d, sara::cpu_executor{}, {}) == "nothing was thrown");   // the check itself can fail
}

TEST_CASE("a required argument that is not given is named", "[preconditions]") {
  all_throw({{{"logits", "required"}, [](call& c) { c.in.logits = {}; }},
             {{"sequences", "required"}, [](call& c) { c.in.sequences = {}; }},
             {{"anchors", "required"}, [](call& c) { c.in.anchors = {}; }}});
}

TEST_CASE("a wrong shape is named with what was expected and what was found", "[preconditions]") {
  using block = sara::layers_view<const float>;
  using vector = sara::vector_view<const float>;
  static const std::vector<float> room(4096);
  const float* const p = at(room);
  all_throw({
      {{"logits must have at least one layer, but has 0"},
       [p](call& c) {
         c.in.logits = block{p, 0, tokens, experts};
       }},
      {{"logits must have at least one expert (column), but has -4"},
       [p](call& c) {
         c.in.logits = block{p, layers, tokens, -4};
       }},
      {{"sequences", "4", "5", "21"},
       [p](call& c) {
         c.in.logits = block{p, layers, tokens + 1, experts};
         c.in.sequences = sara::sequences_view::uniform(batch, length);
       }},
      {{"sequences"}, [](call& c) { c.in.sequences = sara::sequences_view::uniform(-4, -5); }},
      {{"sequences", "4", "6", "20"}, [](call& c) { c.in.sequences = sara::sequences_view::uniform(batch, length + 1); }},
      {{"sequences"}, [](call& c) { c.in.sequences = sara::sequences_view::interleaved(length, batch + 1); }},
      {{"sequences", "have 0"}, [](call& c) { c.in.sequences = sara::sequences_view::packed(sara::integers_view{}); }},
      {{"anchors", "[3, 4, 5]"},
       [p](call& c) {
         c.in.anchors = block{p, layers, batch, experts - 1};
       }},
      {{"anchors", "[2, 4, 6]"},
       [p](call& c) {
         c.in.anchors = block{p, layers - 1, batch, experts};
       }},
      {{"anchors", "[3, 4, 6]", "[3, 5, 6]"},
       [p](call& c) {
         c.in.anchors = block{p, layers, batch + 1, experts};
         c.in.anchor_rows = {};
       }},
      {{"anchor_rows", "[4]", "[3]"}, [](call& c) { c.in.anchor_rows = sara::integers_view(c.given.anchor_rows.data(), 3); }},
      {{"token_weights", "[20]", "[19]"}, [p](call& c) { c.in.token_weights = vector(p, tokens - 1); }},
      {{"token_weights", "[20]", "[0]"}, [p](call& c) { c.in.token_weights = vector(p, 0); }},
      {{"sequence_weights", "[4]", "[5]"}, [p](call& c) { c.in.sequence_weights = vector(p, batch + 1); }},
      {{"layer_weights", "[3]", "[4]"}, [p](call& c) { c.in.layer_weights = vector(p, layers + 1); }},
      {{"total_layer_weight", "[1]", "[3]"}, [p](call& c) { c.in.total_layer_weight = vector(p, 3); }},
      {{"total_sequence_weight", "[1]", "[2]"}, [p](call& c) { c.in.total_sequence_weight = vector(p, 2); }},
      {{"upstream", "[1]", "[20]"}, [p](call& c) { c.in.upstream = vector(p, tokens); }},
      {{"histograms", "input", "[3, 4, 6]", "[3, 4, 7]"},
       [p](call& c) {
         c.in.histograms = block{p, layers, batch, experts + 1};
       }},
      {{"token_mass", "input", "[4]", "[3]"}, [p](call& c) { c.in.token_mass = vector(p, batch - 1); }},
      {{"token_mass", "histograms"}, [](call& c) { c.in.histograms = {}; }},
      {{"loss", "[1]", "[2]"}, [](call& c) { c.out.loss = sara::vector_view<float>(memory(), 2); }},
      {{"loss", "[1]", "[0]"}, [](call& c) { c.out.loss = sara::vector_view<float>(memory(), 0); }},
      {{"divergence", "[3, 4]", "[4, 3]"}, [](call& c) { c.out.divergence = sara::matrix_view<float>(memory(), batch, layers); }},
      {{"histograms", "[3, 4, 6]", "[3, 3, 6]"},
       [](call& c) { c.out.histograms = sara::layers_view<float>(memory(), layers, batch - 1, experts); }},
      {{"token_mass", "[4]", "[20]"}, [](call& c) { c.out.token_mass = sara::vector_view<float>(memory(), tokens); }},
      {{"grad_logits", "[3, 20, 6]", "[3, 19, 6]"},
       [](call& c) { c.out.grad_logits = sara::layers_view<float>(memory(), layers, tokens - 1, experts); }},
      {{"grad_logits", "[3, 20, 6]", "[2, 20, 6]"},
       [](call& c) { c.out.grad_logits = sara::layers_view<float>(memory(), layers - 1, tokens, experts); }},
      {{"grad_logits", "[3, 20, 6]", "[3, 20, 5]"},
       [](call& c) { c.out.grad_logits = sara::layers_view<float>(memory(), layers, tokens, experts - 1); }},
      {{"grad_logits"}, [](call& c) { c.out.grad_logits = sara::matrix_view<float>(memory(), tokens, experts); }},
  });
}

TEST_CASE("each matrix of a list is held to the shape and named by its number", "[preconditions]") {
  all_throw({
      {{"logits[1]"},
       [](call& c) {
         for (sara::index_t l = 0; l < layers; ++l) c.list.emplace_back(c.in.logits[l].data(), l == 1 ? tokens - 1 : tokens, experts);
         c.in.logits = c.list;
       }},
      {{"anchors[2]"},
       [](call& c) {
         for (sara::index_t l = 0; l < layers; ++l) c.list.emplace_back(c.in.anchors[l].data(), batch, l == 2 ? experts + 1 : experts);
         c.in.anchors = c.list;
       }},
      {{"grad_logits[2]"},
       [](call& c) {
         for (sara::index_t l = 0; l < layers; ++l)
           c.out_list.emplace_back(l == 2 ? nullptr : c.out.grad_logits[l].data(), tokens, experts);
         c.out.grad_logits = c.out_list;
       }},
      {{"grad_logits"},
       [](call& c) {
         c.out_list.emplace_back(c.out.grad_logits[0].data(), tokens, experts);
         c.out.grad_logits = c.out_list;
       }},
  });
}

TEST_CASE("a null pointer where elements should be is named", "[preconditions]") {
  constexpr const float* no_input = nullptr;
  constexpr float* no_output = nullptr;
  all_throw({
      {{"logits", "null"},
       [](call& c) {
         c.in.logits = sara::layers_view<const float>{no_input, layers, tokens, experts};
       }},
      {{"anchors", "null"},
       [](call& c) {
         c.in.anchors = sara::layers_view<const float>{no_input, layers, batch, experts};
       }},
      {{"token_weights", "null"}, [](call& c) { c.in.token_weights = sara::vector_view<const float>(no_input, tokens); }},
      {{"anchor_rows", "null"}, [](call& c) { c.in.anchor_rows = sara::integers_view(static_cast<const std::int64_t*>(nullptr), batch); }},
      {{"sequences (packed offsets) must point to its 5 elements, but is a null pointer"},
       [](call& c) {
         c.in.sequences = sara::sequences_view::packed(sara::integers_view(static_cast<const std::int32_t*>(nullptr), batch + 1));
       }},
      {{"upstream", "null"}, [](call& c) { c.in.upstream = sara::vector_view<const float>(no_input, 1); }},
      {{"loss", "null"}, [](call& c) { c.out.loss = sara::vector_view<float>(no_output, 1); }},
      {{"divergence", "null"}, [](call& c) { c.out.divergence = sara::matrix_view<float>(no_output, layers, batch); }},
      {{"grad_logits", "null"}, [](call& c) { c.out.grad_logits = sara::layers_view<float>(no_output, layers, tokens, experts); }},
  });
}

TEST_CASE("rows closer than they are wide are named", "[preconditions]") {
  all_throw({
      {{"logits", "stride"},
       [](call& c) {
         c.in.logits = sara::layers_view<const float>{c.in.logits[0].data(), layers, tokens, experts, experts - 1, tokens * experts};
       }},
      {{"grad_logits", "stride"},
       [](call& c) {
         c.out.grad_logits = sara::layers_view<float>{c.out.grad_logits[0].data(), layers, tokens, experts, 0, tokens * experts};
       }},
      {{"divergence", "stride"},
       [](call& c) {
         c.out.divergence = sara::matrix_view<float>{c.out.divergence.data(), layers, batch, -4};
       }},
  });
}

TEST_CASE("what the executor cannot do is named", "[preconditions]") {
  const auto check = [](const char* word, const sara::cpu_executor& exec) {
    call c;
    CHECK(what_is_wrong(c, exec, {word}) == "");
  };
  check("threads", {.threads = -1});
  std::vector<char> small(64);
  check("scratch", {.scratch = {small.data(), small.size()}});
  check("scratch", {.scratch = {small.data(), 0}});
}

TEST_CASE("js_routing too throws, and names what is wrong", "[preconditions]") {
  call c;
  c.in.token_weights = sara::vector_view<const float>(c.given.token_weights.data(), 3);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    CHECK_THROWS_AS(sara::js_routing(exec, c.in), sara::invalid_argument);
  });
  CHECK_THROWS_AS(sara::js_routing(sara::cpu_executor{}, c.in), std::invalid_argument);   // what a caller may catch who knows no sara
}
