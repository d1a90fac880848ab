// One model's figures against a naive evaluation of small data, and how they are kept.
#include "sara_finetune/evaluation/evaluation.hpp"

#include <cmath>
#include <functional>
#include <numbers>
#include <set>

#include "../files.hpp"
#include "../model/small_model.hpp"
#include "catch.hpp"
#include "sara_finetune/evaluation/divergences.hpp"

namespace {

using namespace sara_finetune;

// Real pairs of one language, cut into two languages that share some of the high-resource sentences.
struct small_data {
  prepared_corpus corpus = prepare({.parallel = {files::embedded()}, .vocabulary = 600, .context = 128});
  model_shape shape = small::shape();
  std::vector<float> parameters, pretrained;

  small_data() {
    shape.vocabulary = corpus.words.vocabulary();
    shape.context = 128;
    parameters = small::parameters<float>(shape, 3);
    pretrained = small::parameters<float>(shape, 4);
    std::vector<encoded_split>& languages = corpus.data.languages;
    languages.push_back(languages[0]);
    languages[0].test.resize(20);
    languages[1].language = "xx";
    languages[1].test.erase(languages[1].test.begin(), languages[1].test.begin() + 10);
    languages[1].test.push_back(languages[1].test[3]);   // a repeated pair
  }

  model_evaluation evaluated(const std::map<std::string, measured_sentences>& frozen, int threads) const {
    sara::thread_pool pool(threads);
    return evaluate(shape, parameters, corpus.data, sara_finetune::part::test, corpus.words, frozen, pool);
  }

  double bits_per_byte(const std::vector<const encoded_sentence*>& sentences) const {
    moe_model<float> model(shape);
    std::set<std::string> seen;
    double nats = 0, bytes = 0;
    for (const encoded_sentence* sentence : sentences) {
      if (!seen.insert(sentence->text).second) continue;
      packed_batch batch;
      append(batch, *sentence);
      nats += model.forward(parameters, batch, pass::evaluation);
      bytes += static_cast<double>(sentence->text.size());
    }
    return nats / std::numbers::ln2 / bytes;
  }

  // [layers, experts] of one sentence.
  measured_sentences histograms(const std::vector<float>& of, const encoded_sentence& sentence) const {
    sara::thread_pool pool(1);
    const std::vector<const encoded_sentence*> one{&sentence};
    return measure(shape, of, one, pass::routing, pool);
  }
};

model_evaluation made_up() {
  model_evaluation e;
  e.bits_per_byte = {{"en", 1.0 / 3}, {"sw", 2.7182818284590452}};
  e.cloze = {{"en", {.right = 100, .items = 311}}, {"sw", {.right = 0, .items = 0}}};
  e.divergence = {
      {"sw",
       {.live = {0.1, 1e-300}, .anchored = {0.3, std::nextafter(0.1, 1)}, .unpaired = {5, 6}, .within_high = {7, 8}, .within_low = {}}}};
  e.normalized = {{"sw", {.live = {0.25, 0.5}, .unpaired = {1, 2}, .within_high = {3, 4}, .within_low = {5, 6}}}};
  e.entropy = {{"en", {1.1, 0.7}}, {"sw", {1.2, 1e-7}}};
  e.expert_use = {{"en", {{0.2, 0.8}, {0.1 + 0.2, 0.7}}}, {"sw", {{1, 0}, {0.5, 0.5}}}};
  return e;
}

void check_equal(const layer_divergences& a, const layer_divergences& b) {
  CHECK(a.live == b.live);
  CHECK(a.anchored == b.anchored);
  CHECK(a.unpaired == b.unpaired);
  CHECK(a.within_high == b.within_high);
  CHECK(a.within_low == b.within_low);
}

void check_equal(const model_evaluation& a, const model_evaluation& b) {
  CHECK(a.bits_per_byte == b.bits_per_byte);
  REQUIRE(a.cloze.size() == b.cloze.size());
  for (const auto& [language, result] : a.cloze) {
    CHECK(result.right == b.cloze.at(language).right);
    CHECK(result.items == b.cloze.at(language).items);
  }
  for (const auto column : {&model_evaluation::divergence, &model_evaluation::normalized}) {
    REQUIRE((a.*column).size() == (b.*column).size());
    for (const auto& [language, divergences] : a.*column) check_equal(divergences, (b.*column).at(language));
  }
  CHECK(a.entropy == b.entropy);
  CHECK(a.expert_use == b.expert_use);
}

}   // namespace

TEST_CASE("evaluate: every figure of two languages, a sentence at a time", "[sara_finetune]") {
  const small_data of;
  sara::thread_pool pool(2);
  const auto frozen = freeze(of.shape, of.pretrained, of.corpus.data, sara_finetune::part::test, pool);
  const model_evaluation found = of.evaluated(frozen, 2);
  const std::vector<encoded_split>& languages = of.corpus.data.languages;

  std::vector<const encoded_sentence*> high;
  for (const encoded_split& split : languages) {
    std::vector<const encoded_sentence*> low;
    for (const encoded_pair& pair : split.test) {
      high.push_back(&pair.high);
      low.push_back(&pair.low);
    }
    INFO(split.language);
    CHECK(found.bits_per_byte.at(split.language) == Approx(of.bits_per_byte(low)).epsilon(1e-5));

    const auto layers = static_cast<std::size_t>(of.shape.layers);
    std::vector<double> live(layers), normalized(layers), anchored(layers);
    const std::vector<compared_sentences> both{{0, 0}};
    for (const encoded_pair& pair : split.test) {
      const measured_sentences p = of.histograms(of.parameters, pair.low);
      const mean_divergence now = compare(p, of.histograms(of.parameters, pair.high), both);
      const mean_divergence then = compare(p, of.histograms(of.pretrained, pair.high), both);
      for (std::size_t l = 0; l < layers; ++l) {
        const double pairs = static_cast<double>(split.test.size());
        live[l] += now.plain[l] / pairs;
        normalized[l] += now.normalized[l] / pairs;
        anchored[l] += then.plain[l] / pairs;
      }
    }
    const layer_divergences &plain = found.divergence.at(split.language), &by_entropy = found.normalized.at(split.language);
    for (std::size_t l = 0; l < layers; ++l) {
      CHECK(plain.live[l] == Approx(live[l]).epsilon(1e-4));
      CHECK(plain.anchored[l] == Approx(anchored[l]).epsilon(1e-4));
      CHECK(by_entropy.live[l] == Approx(normalized[l]).epsilon(1e-4));
      CHECK(std::abs(plain.live[l] - plain.anchored[l]) > 1e-3);
      for (const auto* floors : {&plain, &by_entropy})
        for (const auto column : {&layer_divergences::unpaired, &layer_divergences::within_high, &layer_divergences::within_low}) {
          REQUIRE((floors->*column).size() == layers);
          CHECK((floors->*column)[l] > 0);
          CHECK((floors->*column)[l] < 1);
        }
    }
    CHECK(plain.within_high != plain.within_low);
    CHECK(plain.unpaired != plain.live);
    CHECK(by_entropy.anchored.empty());
  }
  CHECK(found.bits_per_byte.at("en") == Approx(of.bits_per_byte(high)).epsilon(1e-5));
  CHECK(found.bits_per_byte.size() == 3);
  CHECK(found.cloze.at("en").items > 15);
  CHECK(found.cloze.at("sw").items > 5);
  for (const char* language : {"en", "sw", "xx"}) {
    REQUIRE(found.expert_use.at(language).size() == 4);
    for (const std::vector<double>& layer : found.expert_use.at(language)) {
      REQUIRE(layer.size() == 5);
      double sum = 0;
      for (const double share : layer) sum += share;
      CHECK(sum == Approx(1).epsilon(1e-12));
    }
    REQUIRE(found.entropy.at(language).size() == 4);
    for (const double nats : found.entropy.at(language)) {
      CHECK(nats > 0);
      CHECK(nats < std::log(5));
    }
  }
}

TEST_CASE("evaluate: without frozen histograms live, and the same bits for every number of threads", "[sara_finetune]") {
  const small_data of;
  sara::thread_pool pool(1);
  const model_evaluation found = of.evaluated({}, 1);
  check_equal(of.evaluated({}, 3), found);
  for (const auto& [language, divergences] : found.divergence) CHECK(divergences.anchored == divergences.live);
  auto own = freeze(of.shape, of.parameters, of.corpus.data, sara_finetune::part::test, pool);
  CHECK(own.at("xx").cross_entropies.empty());
  const model_evaluation against_itself = of.evaluated(own, 1);
  for (const auto& [language, divergences] : against_itself.divergence)
    for (std::size_t l = 0; l < divergences.live.size(); ++l) CHECK(divergences.anchored[l] == Approx(divergences.live[l]).epsilon(1e-4));

  own.at("xx").sentences -= 1;
  CHECK(files::complaint([&] { of.evaluated(own, 1); }) ==
        "evaluate: the frozen histograms of xx must be [23 pairs, 4 layers, 5 experts], but are [22 pairs, 4 layers, 5 experts]");
}

TEST_CASE("evaluate: two pairs' floors are one another's", "[sara_finetune]") {
  small_data of;
  of.corpus.data.languages.resize(1);
  std::vector<encoded_pair>& pairs = of.corpus.data.languages[0].test;
  pairs.resize(2);
  const model_evaluation found = of.evaluated({}, 1);
  const auto between = [&](const encoded_sentence& p, const encoded_sentence& q) {
    return compare(of.histograms(of.parameters, p), of.histograms(of.parameters, q), std::vector<compared_sentences>{{0, 0}});
  };
  const mean_divergence one = between(pairs[0].low, pairs[1].high), other = between(pairs[1].low, pairs[0].high);
  const mean_divergence high = between(pairs[0].high, pairs[1].high), low = between(pairs[0].low, pairs[1].low);
  const auto check = [&](const layer_divergences& floors, std::vector<double> mean_divergence::*kind) {
    for (std::size_t l = 0; l < 4; ++l) {
      CHECK(floors.unpaired[l] == Approx(((one.*kind)[l] + (other.*kind)[l]) / 2).epsilon(1e-4));
      CHECK(floors.within_high[l] == Approx((high.*kind)[l]).epsilon(1e-4));
      CHECK(floors.within_low[l] == Approx((low.*kind)[l]).epsilon(1e-4));
    }
  };
  check(found.divergence.at("sw"), &mean_divergence::plain);
  check(found.normalized.at("sw"), &mean_divergence::normalized);
}

TEST_CASE("evaluate: one pair has no floors, none and a broken model are refused", "[sara_finetune]") {
  small_data of;
  std::vector<encoded_split>& languages = of.corpus.data.languages;
  languages[1].test.resize(1);
  const model_evaluation found = of.evaluated({}, 1);
  const layer_divergences& of_one = found.divergence.at("xx");
  CHECK(of_one.live.size() == 4);
  CHECK(of_one.unpaired.empty());
  CHECK(of_one.within_high.empty());
  CHECK(of_one.within_low.empty());
  CHECK(found.cloze.at("xx").items == 0);
  languages[1].test.clear();
  CHECK(files::complaint([&] { of.evaluated({}, 1); }) == "evaluate: expected text in xx, found none");
  of.parameters[100] = std::nanf("");
  CHECK(files::complaint([&] { of.evaluated({}, 1); }).starts_with("evaluate: the cross-entropy in en must be finite, but is "));
}

TEST_CASE("model_evaluation: what is written is read again, bit by bit", "[sara_finetune]") {
  const model_evaluation written = made_up();
  check_equal(nlohmann::json::parse(nlohmann::json(written).dump(2)).get<model_evaluation>(), written);
  check_equal(nlohmann::json::parse(nlohmann::json(model_evaluation{}).dump()).get<model_evaluation>(), {});
}

TEST_CASE("model_evaluation: what is missing or something else is one sentence", "[sara_finetune]") {
  const auto complaint = [](const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json json = made_up();
    change(json);
    return files::complaint([&] { json.get<model_evaluation>(); });
  };
  CHECK(complaint([](auto&) {}) == "");
  CHECK(complaint([](auto& j) { j = 3; }) == "evaluation: it must be an object, but is number");
  CHECK(complaint([](auto& j) { j.erase("entropy"); }) == "evaluation: entropy must be an object, but is missing");
  CHECK(complaint([](auto& j) { j["cloze"] = nlohmann::json::array(); }) == "evaluation: cloze must be an object, but is array");
  CHECK(complaint([](auto& j) { j["bits_per_byte"]["sw"] = "2"; }) == "evaluation: bits_per_byte.sw must be a number, but is string");
  CHECK(complaint([](auto& j) { j["divergence"]["sw"].erase("within_low"); }) ==
        "evaluation: divergence.sw.within_low must be a list, but is missing");
  CHECK(complaint([](auto& j) { j["normalized"]["sw"]["live"][1] = nullptr; }) ==
        "evaluation: normalized.sw.live[1] must be a number, but is null");
  CHECK(complaint([](auto& j) { j["expert_use"]["en"][1] = 0.5; }) == "evaluation: expert_use.en[1] must be a list, but is number");
  CHECK(complaint([](auto& j) { j["cloze"]["en"].erase("items"); }) == "evaluation: cloze.en.items must be a whole number, but is missing");
  CHECK(complaint([](auto& j) { j["cloze"]["en"]["right"] = 0.5; }) == "evaluation: cloze.en.right must be a whole number, but is 0.5");
  CHECK(complaint([](auto& j) { j["cloze"]["en"]["right"] = 312; }) ==
        "evaluation: cloze.en.right must be from 0 to items, 311, but is 312");
  model_evaluation kept = made_up();
  nlohmann::json broken = model_evaluation{};
  broken.erase("expert_use");
  CHECK_THROWS_AS(from_json(broken, kept), std::runtime_error);
  check_equal(kept, made_up());
}
