// Outputs share memory with nothing but their named twins: the gradient may be exactly the logits under overwrite.
#include <functional>
#include <memory>
#include <string>

#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

constexpr sara::index_t layers = 2, batch = 3, length = 4, tokens = 12, experts = 5, all = layers * tokens * experts;

oracle::problem good_problem() {
  auto in = oracle::plain_problem(1, layers, batch, length, experts);
  oracle::source from(1);
  in.layout = oracle::layout::packed;
  in.offsets = {0, 4, 8, 12};
  in.anchor_rows = {0, 1, 2};
  in.token_weights = from.uniforms(tokens, 0.5, 1);
  in.sequence_weights = from.uniforms(batch, 0.5, 1);
  in.layer_weights = from.uniforms(layers, 0.5, 1);
  in.total_layer_weight = in.total_sequence_weight = in.upstream = 2;
  in.histograms = oracle::distributions(from, layers * batch, experts);
  in.token_mass = from.uniforms(batch, 4, 5);
  return in;
}

// A valid call with every argument given, each alone in a slot that has room for the largest.
class call {
  static constexpr std::size_t slot = 2 * all * sizeof(float), slots = 17;
  std::unique_ptr<std::byte[]> memory_{new std::byte[slots * slot]};
  std::size_t used_ = 0;

  template <class E> E* place(const E* from, std::size_t n) {
    std::byte* const to = memory_.get() + used_ + slot / 4;
    used_ += slot;
    if (n) std::memcpy(to, from, n * sizeof(E));
    return reinterpret_cast<E*>(to);
  }
  sara::vector_view<const float> vector(const sara::vector_view<const float>& v) {
    return {place(v.data(), static_cast<std::size_t>(v.size())), v.size()};
  }
  sara::layers_view<const float> block(const sara::layers_view<const float>& v) {
    return {place(v[0].data(), static_cast<std::size_t>(v.layers() * v.rows() * v.columns())), v.layers(), v.rows(), v.columns()};
  }
  float* room() { return place<float>(nullptr, 0); }

 public:
  call() {
    std::memset(memory_.get(), 0x5a, slots * slot);
    const auto what = good_problem();
    const oracle::arguments<float> given(what);
    in = given.inputs();
    in.logits = block(in.logits);
    in.sequences =
        sara::sequences_view::packed(sara::integers_view(place(given.offsets.data(), given.offsets.size()), given.offsets.size()));
    in.anchors = block(in.anchors);
    in.anchor_rows = sara::integers_view(place(given.anchor_rows.data(), given.anchor_rows.size()), given.anchor_rows.size());
    for (auto* v : {&in.token_weights, &in.sequence_weights, &in.layer_weights, &in.total_layer_weight, &in.total_sequence_weight,
                    &in.upstream, &in.token_mass})
      *v = vector(*v);
    in.histograms = block(in.histograms);
    out.loss = sara::vector_view(room(), 1);
    out.divergence = sara::matrix_view(room(), layers, batch);
    out.histograms = sara::layers_view<float>(room(), layers, batch, experts);
    out.token_mass = sara::vector_view(room(), batch);
    out.grad_logits = sara::layers_view<float>(room(), layers, tokens, experts);
  }

  std::vector<std::byte> bytes() const { return {memory_.get(), memory_.get() + slots * slot}; }
  float* logits() const { return const_cast<float*>(in.logits[0].data()); }
  float* grad() const { return out.grad_logits[0].data(); }

  sara::js_routing_inputs<float> in;
  sara::js_routing_outputs<float> out;
};

struct output {
  const char *name, *twin;   // the input that it may be
  std::function<void(call&, float*)> move;
  std::function<float*(call&)> where;
};
const std::vector<output> outputs{
    {"loss", "", [](call& c, float* p) { c.out.loss = sara::vector_view(p, 1); }, [](call& c) { return c.out.loss.data(); }},
    {"divergence", "", [](call& c, float* p) { c.out.divergence = sara::matrix_view(p, layers, batch); },
     [](call& c) { return c.out.divergence.data(); }},
    {"histograms", "histograms (input)", [](call& c, float* p) { c.out.histograms = sara::layers_view<float>(p, layers, batch, experts); },
     [](call& c) { return c.out.histograms[0].data(); }},
    {"token_mass", "token_mass (input)", [](call& c, float* p) { c.out.token_mass = sara::vector_view(p, batch); },
     [](call& c) { return c.out.token_mass.data(); }},
    {"grad_logits", "logits", [](call& c, float* p) { c.out.grad_logits = sara::layers_view<float>(p, layers, tokens, experts); },
     [](call& c) { return c.out.grad_logits[0].data(); }},
};

struct input {
  const char* name;
  std::function<const void*(call&)> where;
};
const std::vector<input> inputs{
    {"logits", [](call& c) -> const void* { return c.in.logits[0].data(); }},
    {"sequences", [](call& c) { return c.in.sequences.offsets().data(); }},
    {"anchors", [](call& c) -> const void* { return c.in.anchors[0].data(); }},
    {"anchor_rows", [](call& c) { return c.in.anchor_rows.data(); }},
    {"token_weights", [](call& c) -> const void* { return c.in.token_weights.data(); }},
    {"sequence_weights", [](call& c) -> const void* { return c.in.sequence_weights.data(); }},
    {"layer_weights", [](call& c) -> const void* { return c.in.layer_weights.data(); }},
    {"total_layer_weight", [](call& c) -> const void* { return c.in.total_layer_weight.data(); }},
    {"total_sequence_weight", [](call& c) -> const void* { return c.in.total_sequence_weight.data(); }},
    {"upstream", [](call& c) -> const void* { return c.in.upstream.data(); }},
    {"histograms (input)", [](call& c) -> const void* { return c.in.histograms[0].data(); }},
    {"token_mass (input)", [](call& c) -> const void* { return c.in.token_mass.data(); }},
};

// The sentence of the exception, or nothing where none is thrown.
std::string refusal(call& c, sara::gradient_mode mode = sara::gradient_mode::overwrite) {
  std::vector<std::string> sentences;
  const auto before = c.bytes();
  oracle::for_each_executor([&](const auto& exec, const char*) {
    sentences.emplace_back();
    try {
      sara::js_routing_into(exec, c.in, c.out, {.mode = mode});
    } catch (const sara::invalid_argument& e) {
      sentences.back() = e.what();
    }
  });
  for (const std::string& sentence : sentences)
    if (sentence != sentences[0]) return "the executors disagree";
  if (!sentences[0].empty() && c.bytes() != before) return "something was written";
  return sentences[0];
}

bool names(const std::string& sentence, const std::string& a, const std::string& b) {
  return sentence.find("shares memory") != std::string::npos && sentence.find(a) != std::string::npos &&
         sentence.find(b) != std::string::npos;
}

// An address that a call must refuse before it is read or written.
float* address(const void* p) { return static_cast<float*>(const_cast<void*>(p)); }

}   // namespace

TEST_CASE("an output that shares memory with an input is refused, and both are named", "[overlap]") {
  for (const auto& o : outputs)
    for (const auto& i : inputs) {
      if (std::string(o.twin) == i.name) continue;
      call c;
      o.move(c, address(i.where(c)));
      const auto sentence = refusal(c);
      CAPTURE(o.name, i.name, sentence);
      CHECK(names(sentence, o.name, i.name));
    }
}

TEST_CASE("an output that shares memory with another output is refused, and both are named", "[overlap]") {
  for (const auto& o : outputs)
    for (const auto& other : outputs) {
      if (&o == &other) continue;
      call c;
      o.move(c, other.where(c));
      const auto sentence = refusal(c);
      CAPTURE(o.name, other.name, sentence);
      CHECK(names(sentence, o.name, other.name));
    }
}

TEST_CASE("a twin must lie in exactly the same place", "[overlap]") {
  for (const auto& o : outputs) {
    if (!*o.twin) continue;
    for (const auto& i : inputs) {
      if (std::string(o.twin) != i.name) continue;
      call exact;
      o.move(exact, address(i.where(exact)));
      CHECK(refusal(exact) == "");
      for (const sara::index_t shift : {1, -1}) {
        call c;
        o.move(c, address(i.where(c)) + shift);
        const auto sentence = refusal(c);
        CAPTURE(o.name, shift, sentence);
        CHECK(names(sentence, o.name, i.name));
      }
    }
  }
}

TEST_CASE("the gradient may not be the logits when it accumulates", "[overlap]") {
  call c;
  c.out.grad_logits = sara::layers_view<float>(c.logits(), layers, tokens, experts);
  CHECK(names(refusal(c, sara::gradient_mode::accumulate), "grad_logits", "logits"));
}

TEST_CASE("the gradient may not be the logits of another layer, nor overlap itself", "[overlap]") {
  call swapped;
  const std::vector<sara::matrix_view<float>> list{{swapped.logits() + tokens * experts, tokens, experts},
                                                   {swapped.logits(), tokens, experts}};
  swapped.out.grad_logits = list;
  CHECK(names(refusal(swapped), "grad_logits", "logits"));

  call same;
  const std::vector<sara::matrix_view<float>> twice(2, sara::matrix_view<float>(same.grad(), tokens, experts));
  same.out.grad_logits = twice;
  CHECK(refusal(same).find("grad_logits") != std::string::npos);

  call flat;   // a layer stride of nothing
  flat.out.grad_logits = sara::layers_view<float>(flat.grad(), layers, tokens, experts, experts, 0);
  CHECK(refusal(flat).find("grad_logits") != std::string::npos);
}

TEST_CASE("an in-place gradient of another type is refused", "[overlap]") {
  const auto what = oracle::rounded_to<sara::bf16>(oracle::plain_problem(2, 1, 1, 8, 4));
  oracle::arguments<sara::bf16> given(what);
  std::vector<float> room(64);
  auto in = given.inputs();
  // The logits in the first half of what the gradient would cover.
  in.logits = sara::matrix_view<const sara::bf16>(reinterpret_cast<const sara::bf16*>(room.data()), 8, 4);
  const sara::js_routing_outputs<sara::bf16, float> out{.grad_logits = sara::matrix_view<float>(room.data(), 8, 4)};
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    CHECK_THROWS_AS(sara::js_routing_into(exec, in, out), sara::invalid_argument);
  });
  CHECK(std::all_of(room.begin(), room.end(), [](float x) { return x == 0; }));
}

TEST_CASE("columns of one buffer are apart unless they cross", "[overlap]") {
  std::vector<float> buffer(tokens * 16);
  const auto columns = [&](sara::index_t first) { return sara::matrix_view<float>(buffer.data() + first, tokens, experts, 16); };
  std::vector<float> anchors(batch * experts, 0.2f);
  oracle::for_each_executor([&](const auto& exec, const char* name) {
    CAPTURE(name);
    const auto refused = [&](sara::index_t logits, sara::index_t grad) {
      try {
        sara::js_routing_into(exec,
                              sara::js_routing_inputs<float>{.logits = sara::matrix_view<const float>(columns(logits)),
                                                             .sequences = sara::sequences_view::uniform(batch, length),
                                                             .anchors = sara::matrix_view<const float>(anchors.data(), batch, experts)},
                              {.grad_logits = columns(grad)});
        return false;
      } catch (const sara::invalid_argument&) {
        return true;
      }
    };
    CHECK_FALSE(refused(0, 5));
    CHECK_FALSE(refused(5, 0));
    CHECK_FALSE(refused(0, 11));
    CHECK_FALSE(refused(11, 5));
    CHECK_FALSE(refused(3, 3));   // exactly the logits
    CHECK(refused(0, 4));
    CHECK(refused(4, 0));
    CHECK(refused(7, 8));
  });
}
