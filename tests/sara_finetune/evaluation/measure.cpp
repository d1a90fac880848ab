// Passes over many sentences: against one sentence at a time, the formulas, and every number of threads.
#include "sara_finetune/evaluation/measure.hpp"

#include <cstring>

#include "../files.hpp"
#include "../model/small_model.hpp"
#include "catch.hpp"

namespace {

using namespace sara_finetune;

struct sample {
  model_shape shape = small::shape();
  std::vector<float> parameters = small::parameters<float>(shape, 5);
  std::vector<encoded_sentence> sentences = {};
  std::vector<const encoded_sentence*> pointers = {};

  explicit sample(std::size_t count) {
    std::mt19937 random(7);
    for (std::size_t i = 0; i < count; ++i) {
      encoded_sentence& sentence = sentences.emplace_back();
      sentence.text = "sentence " + std::to_string(i);
      sentence.tokens = {tokenizer::bos};
      for (auto length = i == 3 ? 0 : i == 4 ? 59 : 1 + random() % 20; length > 0; --length)
        sentence.tokens.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(shape.vocabulary)));
    }
    for (const encoded_sentence& sentence : sentences) pointers.push_back(&sentence);
  }
};

template <class T> bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}   // namespace

TEST_CASE("measure: what a sentence at a time gives, by the formulas", "[sara_finetune]") {
  const sample of(41);
  sara::thread_pool pool(2);
  const measured_sentences measured = measure(of.shape, of.parameters, of.pointers, pass::evaluation, pool);
  const index_t layers = of.shape.layers, experts = of.shape.experts;
  REQUIRE(measured.sentences == 41);
  REQUIRE(measured.layers == layers);
  REQUIRE(measured.experts == experts);
  REQUIRE(measured.histograms.size() == static_cast<std::size_t>(41 * layers * experts));
  REQUIRE(measured.cross_entropies.size() == 41);

  moe_model<float> model(of.shape);
  std::vector<double> entropies(static_cast<std::size_t>(layers)), choices(static_cast<std::size_t>(layers * experts));
  double tokens = 0;
  for (std::size_t i = 0; i < of.sentences.size(); ++i) {
    packed_batch alone;
    append(alone, of.sentences[i]);
    CHECK(measured.cross_entropies[i] == Approx(model.forward(of.parameters, alone, pass::evaluation)).epsilon(1e-5));
    tokens += static_cast<double>(alone.token_count());
    for (index_t l = 0; l < layers; ++l) {
      std::vector<double> histogram(static_cast<std::size_t>(experts));
      for (index_t t = 0; t < alone.token_count(); ++t) {
        const float* const logits = model.router_logits()[l].row(t);
        double total = 0;
        for (index_t e = 0; e < experts; ++e) total += std::exp(static_cast<double>(logits[e]));
        for (index_t e = 0; e < experts; ++e) {
          const double p = std::exp(static_cast<double>(logits[e])) / total;
          histogram[static_cast<std::size_t>(e)] += p / static_cast<double>(alone.token_count());
          entropies[static_cast<std::size_t>(l)] -= p * std::log(p);
        }
        for (index_t k = 0; k < of.shape.chosen; ++k) choices[static_cast<std::size_t>(l * experts + model.chosen()[l](t, k))] += 1;
      }
      for (index_t e = 0; e < experts; ++e) {
        const auto at = (i * static_cast<std::size_t>(layers) + static_cast<std::size_t>(l)) * static_cast<std::size_t>(experts);
        CHECK(measured.histograms[at + static_cast<std::size_t>(e)] == Approx(histogram[static_cast<std::size_t>(e)]).margin(1e-5));
      }
    }
  }
  for (std::size_t l = 0; l < entropies.size(); ++l) CHECK(measured.entropies[l] == Approx(entropies[l] / tokens).epsilon(1e-5));
  for (std::size_t e = 0; e < choices.size(); ++e)
    CHECK(measured.expert_use[e] == Approx(choices[e] / tokens / of.shape.chosen).epsilon(1e-12));
}

TEST_CASE("measure: the same bits for every number of threads and on every run", "[sara_finetune]") {
  const sample of(70);
  sara::thread_pool one(1), two(2), three(3);
  const measured_sentences first = measure(of.shape, of.parameters, of.pointers, pass::evaluation, one);
  for (sara::thread_pool* pool : {&one, &two, &three}) {
    const measured_sentences again = measure(of.shape, of.parameters, of.pointers, pass::evaluation, *pool);
    CHECK(same_bits(again.histograms, first.histograms));
    CHECK(same_bits(again.cross_entropies, first.cross_entropies));
    CHECK(same_bits(again.entropies, first.entropies));
    CHECK(same_bits(again.expert_use, first.expert_use));
    const measured_sentences routed = measure(of.shape, of.parameters, of.pointers, pass::routing, *pool);
    CHECK(same_bits(routed.histograms, first.histograms));
    CHECK(same_bits(routed.entropies, first.entropies));
    CHECK(same_bits(routed.expert_use, first.expert_use));
    CHECK(routed.cross_entropies.empty());
  }
}

TEST_CASE("measure: no sentences have extents and no figures", "[sara_finetune]") {
  const sample of(0);
  sara::thread_pool pool(2);
  const measured_sentences none = measure(of.shape, of.parameters, {}, pass::evaluation, pool);
  CHECK(none.sentences == 0);
  CHECK(none.layers == of.shape.layers);
  CHECK(none.experts == of.shape.experts);
  CHECK(none.histograms.empty());
  CHECK(none.cross_entropies.empty());
  CHECK(none.entropies == std::vector<double>(4, 0.0));
  CHECK(none.expert_use == std::vector<double>(20, 0.0));
  CHECK(cross_entropies(of.shape, of.parameters, {}, pool).empty());
}

TEST_CASE("cross_entropies: of what is not given", "[sara_finetune]") {
  const sample of(20);
  sara::thread_pool pool(2);
  std::vector<continued_sentence> continued;
  for (std::size_t i = 0; i < of.sentences.size(); ++i)
    continued.push_back({.sentence = of.pointers[i], .given = of.sentences[i].length() * static_cast<index_t>(i % 3) / 2});
  const std::vector<double> found = cross_entropies(of.shape, of.parameters, continued, pool);
  REQUIRE(found.size() == of.sentences.size());
  moe_model<float> model(of.shape);
  for (std::size_t i = 0; i < found.size(); ++i) {
    packed_batch alone;
    append(alone, of.sentences[i]);
    model.forward(of.parameters, alone, pass::evaluation);
    double expected = 0;
    for (auto t = static_cast<std::size_t>(continued[i].given); t < alone.tokens.size(); ++t)
      expected += static_cast<double>(model.cross_entropies()[t]);
    CHECK(found[i] == Approx(expected).epsilon(1e-5).margin(1e-6));
  }
  CHECK(found[2] == 0);   // given to its end
}

TEST_CASE("measure: what the model cannot read is one sentence", "[sara_finetune]") {
  sample of(20);
  sara::thread_pool pool(3);
  const auto complaint = [&] { return files::complaint([&] { measure(of.shape, of.parameters, of.pointers, pass::routing, pool); }); };
  CHECK(complaint() == "");
  of.sentences[17].tokens[1] = 19;
  CHECK(complaint() == "measure: sentence 17 ('sentence 17') must have tokens below 19 (the vocabulary), but has 19");
  of.sentences[17].tokens.assign(61, 1);
  CHECK(complaint() == "measure: sentence 17 ('sentence 17') must have at most 60 tokens (the context), but has 61");
  of.sentences[17].tokens.clear();
  CHECK(complaint() == "measure: sentence 17 ('sentence 17') must have tokens, BOS at least, but has none");
  of.pointers[17] = nullptr;
  CHECK(complaint() == "measure: sentence 17 must have tokens, BOS at least, but has none");
  of.pointers.resize(17);
  const std::vector<continued_sentence> beyond{{.sentence = of.pointers[3], .given = 2}};
  CHECK(files::complaint([&] { cross_entropies(of.shape, of.parameters, beyond, pool); }) ==
        "measure: sentence 0 ('sentence 3') must have 0 to 1 tokens given, but has 2");
  of.parameters.pop_back();
  CHECK(complaint().starts_with("measure: expected the " + std::to_string(of.parameters.size() + 1) + " parameters"));
}
