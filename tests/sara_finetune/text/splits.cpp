// Training, validation and test.
#include "sara_finetune/text/splits.hpp"

#include <map>
#include <set>

#include "../files.hpp"
#include "catch.hpp"

namespace {

using files::complaint;
using sara_finetune::leave_out_held_out, sara_finetune::leave_out_longer, sara_finetune::monolingual_text, sara_finetune::pair;
using sara_finetune::parallel_split, sara_finetune::parallel_text, sara_finetune::part, sara_finetune::part_of_block, sara_finetune::split;
using sara_finetune::split_options, sara_finetune::training_text;

parallel_text numbered(std::size_t pairs, const std::string& language = "sw") {
  parallel_text text{.file = "en-" + language + ".tsv", .language = language, .pairs = {}};
  for (std::size_t i = 0; i < pairs; ++i) {
    const std::string n = std::to_string(i);
    text.pairs.push_back({.id = n, .high = "sentence " + n, .low = language + " " + n});
  }
  return text;
}

std::set<std::string> sentences(const std::vector<pair>& pairs) {
  std::set<std::string> all;
  for (const pair& p : pairs) {
    all.insert(p.high);
    all.insert(p.low);
  }
  return all;
}

bool disjoint(const std::set<std::string>& a, const std::set<std::string>& b) {
  for (const std::string& x : a) {
    if (b.contains(x)) return false;
  }
  return true;
}

// Which part each id went to; each id once.
std::map<std::string, part> parts_of(const parallel_split& s) {
  std::map<std::string, part> where;
  const auto note = [&](const std::vector<pair>& pairs, part p) {
    for (const pair& q : pairs) REQUIRE(where.emplace(q.id, p).second);
  };
  note(s.training, part::training);
  note(s.validation, part::validation);
  note(s.test, part::test);
  return where;
}

}   // namespace

TEST_CASE("splits: one block in ten is test and one validation, whatever the length", "[sara_finetune]") {
  std::size_t test = 0, validation = 0;
  std::set<std::size_t> places;
  for (std::size_t block = 0; block < 1000; ++block) {
    test += part_of_block(block) == part::test;
    validation += part_of_block(block) == part::validation;
    if (part_of_block(block) == part::test) places.insert(block % 10);
    if (block % 10 == 9) {
      CHECK(test == block / 10 + 1);
      CHECK(validation == block / 10 + 1);
    }
  }
  CHECK(places.size() == 10);   // no fixed beat
  std::size_t held_out = 0;
  for (std::size_t block = 0; block < 100; ++block) {
    held_out += part_of_block(block, {.every = 5, .validation = 1, .test = 2}) != part::training;
  }
  CHECK(held_out == 60);

  // A new version must not move a sentence into another part: figures of different versions are compared.
  const std::vector<std::size_t> test_blocks = [] {
    std::vector<std::size_t> blocks;
    for (std::size_t block = 0; block < 60; ++block) {
      if (part_of_block(block) == part::test) blocks.push_back(block);
    }
    return blocks;
  }();
  CHECK(test_blocks == std::vector<std::size_t>{2, 17, 27, 34, 47, 57});
}

TEST_CASE("splits: a block stays together, every pair goes somewhere", "[sara_finetune]") {
  for (const std::size_t pairs : {std::size_t{10}, std::size_t{57}, std::size_t{320}, std::size_t{3071}}) {
    CAPTURE(pairs);
    const parallel_split s = split({numbered(pairs)}).at(0);
    const auto where = parts_of(s);
    REQUIRE(where.size() == pairs);
    CHECK(s.duplicates == 0);
    const std::size_t block = std::min<std::size_t>(32, pairs / 10);
    for (std::size_t i = 0; i < pairs; ++i) REQUIRE(where.at(std::to_string(i)) == part_of_block(i / block));
    CHECK(s.language == "sw");
    CHECK(s.file == "en-sw.tsv");
    if (pairs != 57) {   // whose last blocks are too few for a share
      CHECK(static_cast<double>(s.test.size()) == Approx(0.1 * static_cast<double>(pairs)).epsilon(0.1));
      CHECK(static_cast<double>(s.validation.size()) == Approx(0.1 * static_cast<double>(pairs)).epsilon(0.1));
    }
  }
}

TEST_CASE("splits: texts of one series are cut alike, and more text moves nothing", "[sara_finetune]") {
  const auto both = split({numbered(1000, "sw"), numbered(1400, "ne")});
  const auto sw = parts_of(both.at(0)), ne = parts_of(both.at(1)), alone = parts_of(split({numbered(1000, "sw")}).at(0));
  CHECK(sw == alone);
  for (const auto& [id, where] : sw) REQUIRE(ne.at(id) == where);
}

TEST_CASE("splits: what repeats a held-out sentence leaves the training", "[sara_finetune]") {
  parallel_text sw = numbered(640), ne = numbered(640, "ne");
  const auto first = [&](part wanted) {
    for (std::size_t i = 0;; ++i) {
      if (part_of_block(i / 32) == wanted) return i;
    }
  };
  const std::size_t train = first(part::training), validation = first(part::validation), test = first(part::test);
  const std::string t = std::to_string(test), v = std::to_string(validation);
  sw.pairs[train].high = "  SENTENCE " + t + " ";
  sw.pairs[train + 1].low = "Sw " + v;
  sw.pairs[train + 2].low = "sentence " + t;   // the other side of what it repeats
  ne.pairs[train + 3].low = "sw " + t;         // another file's
  sw.pairs[validation + 1].high = "Sentence " + t;
  ne.pairs[train + 5].high = "sentence " + t + ".";   // no exact duplicate
  const auto splits = split({sw, ne});
  CHECK(splits.at(0).duplicates == 4);
  CHECK(splits.at(1).duplicates == 1);
  const auto in_sw = parts_of(splits.at(0)), in_ne = parts_of(splits.at(1));
  for (std::size_t gone : {train, train + 1, train + 2, validation + 1}) CHECK_FALSE(in_sw.contains(std::to_string(gone)));
  CHECK_FALSE(in_ne.contains(std::to_string(train + 3)));
  CHECK(in_ne.contains(std::to_string(train + 5)));
  CHECK(splits.at(0).test.size() == 64);
  for (const parallel_split& s : splits) CHECK(s.training.size() + s.validation.size() + s.test.size() + s.duplicates == 640);

  monolingual_text more{.file = "more.txt", .language = "en", .sentences = {"fresh", " sentence " + t, "SW " + v, "sentence " + v + "!"}};
  CHECK(leave_out_held_out(more, splits) == 2);
  CHECK(more.sentences == std::vector<std::string>{"fresh", "sentence " + v + "!"});
  more.sentences = {"sentence " + t};
  CHECK(complaint([&] { leave_out_held_out(more, splits); }) == "more.txt: no sentence is left: all of them are held out");
}

TEST_CASE("splits: what is too long is left out and counted", "[sara_finetune]") {
  parallel_split s = split({numbered(320)}).at(0);
  const std::size_t all = s.training.size() + s.validation.size() + s.test.size();
  const auto length = [](const std::string& sentence) { return sentence.size(); };
  CHECK(leave_out_longer(s, 12, length) == 0);
  s.training[3].high = "a sentence of 27 characters";
  s.training[7].low = "13 characters";
  s.test[0].low = "13 characters";
  const std::string kept = s.training[4].high;
  CHECK(leave_out_longer(s, 12, length) == 3);
  CHECK(s.too_long == 3);
  CHECK(s.training.size() + s.validation.size() + s.test.size() == all - 3);
  CHECK(s.training[3].high == kept);
  CHECK(complaint([&] { leave_out_longer(s, 3, length); }) ==
        "en-sw.tsv: no pair is left for training: all of them are longer than 3 tokens");
}

TEST_CASE("splits: what cannot be split is refused", "[sara_finetune]") {
  CHECK(complaint([] { split({numbered(9)}); }) ==
        "en-sw.tsv: expected at least 10 pairs to split into training, validation and test, found 9");
  parallel_text same = numbered(40);
  for (pair& p : same.pairs) p.high = "always the same";
  CHECK(complaint([&] { split({same}); }) == "en-sw.tsv: no pair is left for training: all of them repeat sentences that are held out");
  const std::string expected = "split: expected block, validation and test of at least 1 and a block left for training, found block ";
  const auto refused = [&](const split_options& options, const std::string& found) {
    CHECK(complaint([&] { split({numbered(100)}, options); }) == expected + found);
  };
  refused({.block = 0}, "0, validation 1 and test 1 of every 10");
  refused({.validation = 0}, "32, validation 0 and test 1 of every 10");
  refused({.test = 0}, "32, validation 1 and test 0 of every 10");
  refused({.every = 2}, "32, validation 1 and test 1 of every 2");
}

TEST_CASE("splits: the text to train on", "[sara_finetune]") {
  const auto splits = split({numbered(320, "sw"), numbered(320, "ne")});
  const auto texts = training_text(
      splits, {{.file = "a", .language = "sw", .sentences = {"zaidi"}}, {.file = "b", .language = "fr", .sentences = {"encore"}}});
  REQUIRE(texts.size() == 4);
  CHECK(texts[0].language == "en");
  CHECK(texts[1].language == "sw");
  CHECK(texts[2].language == "ne");
  CHECK(texts[3].sentences == std::vector<std::string>{"encore"});
  REQUIRE(texts[0].sentences.size() == splits[0].training.size());   // both files have the same English
  CHECK(texts[1].sentences.size() == splits[0].training.size() + 1);
  for (std::size_t i = 0; i < splits[0].training.size(); ++i) {
    REQUIRE(texts[0].sentences[i] == splits[0].training[i].high);
    REQUIRE(texts[1].sentences[i] == splits[0].training[i].low);
    REQUIRE(texts[2].sentences[i] == splits[1].training[i].low);
  }
  CHECK(texts[1].sentences.back() == "zaidi");
}

TEST_CASE("splits: no training sentence of TICO-19 is held out", "[sara_finetune]") {
  const auto folder = files::tico19();
  if (folder.empty()) {
    WARN("skipped: TICO-19 is not here (SARA_TICO19 names its folder)");
    return;
  }
  std::vector<parallel_text> texts;
  for (const std::string language : {"sw", "ne", "bn", "hi", "fr"}) {
    texts.push_back(sara_finetune::read_parallel({.file = folder / ("en-" + language + ".tmx")}));
  }
  const auto splits = split(texts);
  for (const parallel_split& of : splits) {
    CAPTURE(of.language, of.training.size(), of.validation.size(), of.test.size(), of.duplicates);
    CHECK(of.training.size() + of.validation.size() + of.test.size() + of.duplicates == 3071);
    CHECK(of.test.size() >= 280);
    CHECK(of.validation.size() >= 270);
    CHECK(of.duplicates <= 60);
    for (const parallel_split& held_out : splits) {
      CHECK(disjoint(sentences(of.training), sentences(held_out.test)));
      CHECK(disjoint(sentences(of.training), sentences(held_out.validation)));
      CHECK(disjoint(sentences(of.validation), sentences(held_out.test)));
    }
  }
}
