// What the model reads: which sentences, as which tokens, and what was left out.
#include "sara_finetune/text/dataset.hpp"

#include <algorithm>
#include <set>

#include "../files.hpp"
#include "catch.hpp"
#include "sara_finetune/text/utf8.hpp"

namespace {

using files::complaint, files::temporary_folder;
using sara_finetune::append, sara_finetune::corpus_options, sara_finetune::dataset, sara_finetune::encode, sara_finetune::encoded_pair;
using sara_finetune::encoded_sentence, sara_finetune::encoded_split, sara_finetune::packed_batch, sara_finetune::prepare;
using sara_finetune::prepared_corpus, sara_finetune::tokenizer;

corpus_options small(std::vector<std::filesystem::path> parallel) {
  corpus_options options;
  options.parallel = std::move(parallel);
  options.vocabulary = 700;
  return options;
}

const prepared_corpus& embedded() {
  static const prepared_corpus corpus = prepare(small({files::embedded()}));
  return corpus;
}

std::vector<sara_finetune::pair> embedded_pairs() { return sara_finetune::read_parallel({.file = files::embedded()}).pairs; }

std::string tsv(const std::vector<sara_finetune::pair>& pairs) {
  std::string bytes;
  for (const auto& p : pairs) bytes += p.high + "\t" + p.low + "\n";
  return bytes;
}

std::vector<const std::vector<encoded_pair>*> parts(const encoded_split& of) { return {&of.training, &of.validation, &of.test}; }

std::vector<std::string> texts(const std::vector<encoded_sentence>& sentences) {
  std::vector<std::string> all;
  for (const encoded_sentence& s : sentences) all.push_back(s.text);
  return all;
}

bool same(const encoded_sentence& a, const encoded_sentence& b) { return a.text == b.text && a.tokens == b.tokens; }

bool same(const dataset& a, const dataset& b) {
  const auto same_sentences = [](const auto& x, const auto& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](const auto& p, const auto& q) { return same(p, q); });
  };
  const auto same_pairs = [](const auto& x, const auto& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(),
                      [](const auto& p, const auto& q) { return p.id == q.id && same(p.high, q.high) && same(p.low, q.low); });
  };
  const auto same_splits = [&](const encoded_split& x, const encoded_split& y) {
    return x.language == y.language && same_pairs(x.training, y.training) && same_pairs(x.validation, y.validation) &&
           same_pairs(x.test, y.test);
  };
  return same_sentences(a.high_text, b.high_text) &&
         std::equal(a.low_text.begin(), a.low_text.end(), b.low_text.begin(), b.low_text.end(), same_sentences) &&
         std::equal(a.languages.begin(), a.languages.end(), b.languages.begin(), b.languages.end(), same_splits);
}

}   // namespace

TEST_CASE("dataset: a sentence is BOS and its pieces, and keeps its text", "[sara_finetune]") {
  const tokenizer& words = embedded().words;
  const std::string text = "The caf\xc3\xa9 opens  early.";
  const encoded_sentence s = encode(words, text);
  CHECK(s.text == text);
  REQUIRE(s.length() > 2);
  CHECK(s.tokens.front() == tokenizer::bos);
  CHECK(std::vector<int>(s.tokens.begin() + 1, s.tokens.end()) == words.encode(text));
  CHECK(words.decode(s.tokens) == text);
  CHECK(encode(words, "").tokens == std::vector<std::int32_t>{tokenizer::bos});
}

TEST_CASE("dataset: what a batch predicts is the pieces and EOS", "[sara_finetune]") {
  packed_batch batch;
  append(batch, {.text = "", .tokens = {1, 10, 11, 12}});
  append(batch, {.text = "", .tokens = {1}});
  append(batch, {.text = "", .tokens = {1, 20, 21}}, 2);
  append(batch, {.text = "", .tokens = {1, 30}}, 2);
  CHECK(batch.tokens == std::vector<std::int32_t>{1, 10, 11, 12, 1, 1, 20, 21, 1, 30});
  CHECK(batch.targets == std::vector<std::int32_t>{10, 11, 12, 2, 2, 20, 21, 2, 30, 2});
  CHECK(batch.target_weights == std::vector<float>{1, 1, 1, 1, 1, 0, 0, 1, 0, 0});
  CHECK(batch.cu_seqlens == std::vector<std::int64_t>{0, 4, 5, 8, 10});
  batch.check({.vocabulary = 40});

  const packed_batch before = batch;
  CHECK(complaint([&] {
          append(batch, {.text = "", .tokens = {1, 10}}, 3);
        }) == "append: expected a sentence with a BOS and given from 0 to its length, found given 3 of 2 tokens");
  CHECK(complaint([&] { append(batch, {.text = "", .tokens = {1, 10}}, -1); }).ends_with("found given -1 of 2 tokens"));
  CHECK(complaint([&] { append(batch, {}); }).ends_with("found given 0 of 0 tokens"));
  CHECK(batch.tokens == before.tokens);
  CHECK(batch.cu_seqlens == before.cu_seqlens);
}

TEST_CASE("dataset: the parts of the split, encoded", "[sara_finetune]") {
  const auto& [words, data] = embedded();
  CHECK(words.vocabulary() == 700);
  CHECK(data.high == "en");
  REQUIRE(data.languages.size() == 1);
  const encoded_split& sw = data.languages[0];
  CHECK(sw.language == "sw");
  CHECK(sw.file == files::embedded().string());

  const auto plain = sara_finetune::split({sara_finetune::read_parallel({.file = files::embedded()})}).at(0);
  const auto check_part = [&words = embedded().words](const std::vector<encoded_pair>& encoded,
                                                      const std::vector<sara_finetune::pair>& pairs) {
    REQUIRE(encoded.size() == pairs.size());
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      REQUIRE(encoded[i].id == pairs[i].id);
      REQUIRE(same(encoded[i].high, encode(words, pairs[i].high)));
      REQUIRE(same(encoded[i].low, encode(words, pairs[i].low)));
    }
  };
  check_part(sw.training, plain.training);
  check_part(sw.validation, plain.validation);
  check_part(sw.test, plain.test);

  REQUIRE(data.low_text.size() == 1);
  REQUIRE(data.low_text[0].size() == sw.training.size());
  REQUIRE(data.high_text.size() == sw.training.size());
  for (std::size_t i = 0; i < sw.training.size(); ++i) {
    REQUIRE(same(data.low_text[0][i], sw.training[i].low));
    REQUIRE(same(data.high_text[i], sw.training[i].high));
  }
  REQUIRE(data.files.size() == 1);
  CHECK(data.files[0].training == sw.training.size());
  CHECK(data.files[0].validation == sw.validation.size());
  CHECK(data.files[0].test == sw.test.size());
}

TEST_CASE("dataset: the tokenizer learns from the training parts alone", "[sara_finetune]") {
  const temporary_folder folder;
  auto pairs = embedded_pairs();
  const std::size_t block = std::min<std::size_t>(32, pairs.size() / 10);
  const auto trained_on = [&](sara_finetune::part changed) {
    auto other = pairs;
    std::size_t left = 20;
    for (std::size_t i = 0; i < other.size() && left > 0; ++i) {
      if (sara_finetune::part_of_block(i / block) != changed) continue;
      other[i].high = other[i].low = "Zxqv jjwk " + std::to_string(i) + " zxqv jjwk.";
      --left;
    }
    return prepare(small({folder.write("en-sw.tsv", tsv(other))})).words.serialized();
  };
  CHECK(trained_on(sara_finetune::part::test) == embedded().words.serialized());
  CHECK(trained_on(sara_finetune::part::validation) == embedded().words.serialized());
  CHECK(trained_on(sara_finetune::part::training) != embedded().words.serialized());

  // Nor is monolingual text heard, of which there may be much more in one language than in another.
  corpus_options with_text = small({files::embedded()});
  with_text.text = {{"en", folder.write("more.txt", "Zxqv jjwk zxqv jjwk.\n")}};
  CHECK(prepare(with_text).words.serialized() == embedded().words.serialized());
}

TEST_CASE("dataset: a pair longer than the context is left out whole, and counted", "[sara_finetune]") {
  const auto& [words, data] = embedded();
  std::set<std::int64_t> lengths;
  for (const auto* pairs : parts(data.languages[0])) {
    for (const encoded_pair& p : *pairs) lengths.insert(std::max(p.high.length(), p.low.length()));
  }
  corpus_options options = small({files::embedded()});
  options.context = *std::next(lengths.begin(), static_cast<std::ptrdiff_t>(lengths.size() / 2));   // some are exactly as long
  const dataset shorter = prepare(options, &words).data;
  std::size_t kept = 0, expected = 0;
  for (const auto* pairs : parts(data.languages[0])) {
    for (const encoded_pair& p : *pairs) expected += std::max(p.high.length(), p.low.length()) <= options.context;
  }
  bool as_long_as_the_context = false;
  for (const auto* pairs : parts(shorter.languages[0])) {
    kept += pairs->size();
    for (const encoded_pair& p : *pairs) {
      REQUIRE(p.high.length() <= options.context);
      REQUIRE(p.low.length() <= options.context);
      REQUIRE(words.decode(p.low.tokens) == p.low.text);
      as_long_as_the_context |= std::max(p.high.length(), p.low.length()) == options.context;
    }
  }
  CHECK(as_long_as_the_context);
  CHECK(kept == expected);
  const std::size_t all = embedded_pairs().size() - data.languages[0].duplicates;
  CHECK(kept < all);
  CHECK(shorter.languages[0].too_long == all - kept);
  CHECK(shorter.files[0].too_long == all - kept);
  CHECK(shorter.high_text.size() == shorter.languages[0].training.size());
  CHECK(shorter.low_text[0].size() == shorter.languages[0].training.size());

  options.context = 3;
  CHECK(complaint([&, &t = words] { prepare(options, &t); }) ==
        files::embedded().string() + ": no pair is left for training: all of them are longer than 3 tokens");
  options.context = 1;
  CHECK(complaint([&] { prepare(options); }) == "corpus: expected a context of at least 2, found 1");
}

TEST_CASE("dataset: monolingual text holds nothing that is held out, and nothing too long", "[sara_finetune]") {
  const auto& [words, data] = embedded();
  const encoded_split& sw = data.languages[0];
  const std::string held_out = sw.test[0].high.text, held_out_low = sw.validation[1].low.text, known = sw.training[2].high.text;
  std::string longer;
  for (int i = 0; i < 60; ++i) longer += "water and fire ";
  REQUIRE(words.encode(longer).size() > 95);

  const temporary_folder folder;
  corpus_options options = small({files::embedded()});
  options.text = {{"en", folder.write("en.txt", "Fresh water runs down.\n  " + held_out + "\n" + longer + "\n" + known + "\n" + known +
                                                    "\n" + held_out_low + "\nFresh water runs down.\n")},
                  {"sw", folder.write("sw.txt", "Maji safi.\n" + held_out_low + "\n")}};
  const dataset more = prepare(options, &words).data;

  auto expected = texts(data.high_text);
  expected.push_back("Fresh water runs down.");   // once, and `known` stood there
  CHECK(texts(more.high_text) == expected);
  expected = texts(data.low_text[0]);
  expected.push_back("Maji safi.");
  CHECK(texts(more.low_text[0]) == expected);

  REQUIRE(more.files.size() == 3);
  CHECK(more.files[0].parallel);
  CHECK_FALSE(more.files[1].parallel);
  CHECK(more.files[1].language == "en");
  CHECK(more.files[1].training == 4);
  CHECK(more.files[1].duplicates == 2);
  CHECK(more.files[1].too_long == 1);
  CHECK(more.files[2].training == 1);
  CHECK(more.files[2].duplicates == 1);
  CHECK(more.files[2].too_long == 0);

  // What is held out stays so where it is too long to be tested.
  const auto longest = std::max_element(sw.test.begin(), sw.test.end(), [](const encoded_pair& p, const encoded_pair& q) {
    return p.low.length() - p.high.length() < q.low.length() - q.high.length();
  });
  options.context = longest->low.length() - 1;
  REQUIRE(longest->high.length() <= options.context);
  options.text = {{"en", folder.write("en.txt", longest->high.text + "\nWater.\n")}};
  const dataset held = prepare(options, &words).data;
  CHECK(held.languages[0].too_long > 0);
  CHECK(held.files[1].duplicates == 1);
  CHECK(held.high_text.back().text == "Water.");
}

TEST_CASE("dataset: with a tokenizer at hand none is trained", "[sara_finetune]") {
  const prepared_corpus again = prepare(small({files::embedded()}));
  CHECK(again.words.serialized() == embedded().words.serialized());
  CHECK(same(again.data, embedded().data));

  const prepared_corpus first = prepare(small({files::embedded()}), &embedded().words);
  CHECK(same(first.data, embedded().data));
  corpus_options other = small({files::embedded()});
  other.vocabulary = 500;
  CHECK(prepare(other, &embedded().words).words.serialized() == embedded().words.serialized());
  CHECK(prepare(other).words.vocabulary() == 500);
}

TEST_CASE("dataset: languages that share their English, and two files of one language", "[sara_finetune]") {
  const temporary_folder folder;
  const auto pairs = embedded_pairs();
  auto reversed = pairs;
  for (auto& p : reversed) std::reverse(p.low.begin(), p.low.end());
  for (auto& p : reversed) {
    if (sara_finetune::first_invalid_utf8(p.low) != std::string::npos) p.low = "not to be reversed, " + p.high;
  }
  std::vector<sara_finetune::pair> begin(pairs.begin(), pairs.begin() + 150), end(pairs.begin() + 150, pairs.begin() + 300);
  for (auto* p : {&begin[0], &begin[70], &end[5]}) {
    for (int i = 0; i < 5; ++i) p->low += " " + p->low;
  }
  const auto a = folder.write("a.en-sw.tsv", tsv(begin)), b = folder.write("b.en-sw.tsv", tsv(end));
  const auto xx = folder.write("en-xx.tsv", tsv(reversed));
  const dataset data = prepare(small({a, xx, b}), &embedded().words).data;

  REQUIRE(data.languages.size() == 2);
  REQUIRE(data.low_text.size() == 2);
  const encoded_split &sw = data.languages[0], &other = data.languages[1];
  CHECK(sw.language == "sw");
  CHECK(sw.file == a.string() + ", " + b.string());
  CHECK(other.language == "xx");
  REQUIRE(data.files.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto& f = data.files[i];
    CHECK(f.training + f.validation + f.test + f.duplicates + f.too_long == (i == 1 ? pairs.size() : 150));
  }
  CHECK(data.files[0].training + data.files[2].training == sw.training.size());
  CHECK(data.files[0].test + data.files[2].test == sw.test.size());
  CHECK(data.files[0].duplicates + data.files[2].duplicates == sw.duplicates);
  CHECK(data.files[0].too_long > 0);
  CHECK(data.files[2].too_long > 0);
  CHECK(data.files[0].too_long + data.files[2].too_long == sw.too_long);
  CHECK(data.low_text[0].size() == sw.training.size());
  CHECK(data.low_text[1].size() == other.training.size());

  std::set<std::string> ids, high, held_out;
  std::size_t all = 0;
  for (const auto* part : parts(sw)) {
    all += part->size();
    for (const encoded_pair& p : *part) ids.insert(p.id);
  }
  CHECK(ids.size() == all);
  CHECK(ids.contains("line 2"));
  CHECK(std::any_of(ids.begin(), ids.end(), [](const std::string& id) { return id.starts_with("file 2, line "); }));

  for (const encoded_split& of : data.languages) {
    for (const encoded_pair& p : of.training) high.insert(p.high.text);
    for (const encoded_pair& p : of.validation) held_out.insert(p.high.text);
    for (const encoded_pair& p : of.test) held_out.insert(p.high.text);
  }
  CHECK(data.high_text.size() == high.size());
  for (const std::string& text : texts(data.high_text)) {
    REQUIRE(high.contains(text));
    REQUIRE_FALSE(held_out.contains(text));   // of none of the files
  }
}

TEST_CASE("dataset: what cannot be prepared is refused", "[sara_finetune]") {
  const temporary_folder folder;
  const auto refused = [](const corpus_options& options, const std::string& sentence) {
    CHECK(complaint([&] { prepare(options, &embedded().words); }) == sentence);
  };
  refused({}, "corpus: expected at least one file of sentence pairs, found none");
  corpus_options options = small({files::embedded()});
  const auto text = folder.write("text.txt", "Une phrase.\n");
  options.text = {{"fr", text}};
  refused(options, text.string() + ": expected text in a language that has sentence pairs (en, sw), found 'fr'");
  options.text = {{"en", text}, {"en", folder.path() / "." / "text.txt"}};
  refused(options, (folder.path() / "." / "text.txt").string() + ": expected each file once, found this one twice");
  options.text = {{"en", folder.write("held.txt", embedded().data.languages[0].test[0].high.text + "\n")}};
  refused(options, (folder.path() / "held.txt").string() + ": no sentence is left: all of them are held out");
  std::string longer;
  for (int i = 0; i < 60; ++i) longer += "water and fire ";
  options.text = {{"sw", folder.write("long.txt", longer + "\n" + longer + "x\n")}};
  refused(options, (folder.path() / "long.txt").string() + ": no sentence is left: all of them are longer than 96 tokens");
  refused(small({files::embedded(), files::embedded()}), files::embedded().string() + ": expected each file once, found this one twice");
  const auto few = folder.write("en-sw.tsv", "one\tmoja\ntwo\tmbili\n");
  refused(small({few}), few.string() + ": expected at least 10 pairs to split into training, validation and test, found 2");
  const auto reversed = folder.write("sw-en.tsv", "moja\tone\n");
  refused(small({reversed}), reversed.string() + ": expected a name such as en-sw.tsv, which says what en is translated into, found 'en'");
  corpus_options huge = small({files::embedded()});
  huge.vocabulary = 60000;
  CHECK(complaint([&] { prepare(huge); }).starts_with("tokenizer: the training text supports a vocabulary of at most "));
}

TEST_CASE("dataset: the report names every file, and warns of few pairs", "[sara_finetune]") {
  dataset data;
  data.files = {
      {.file = "a.tmx", .language = "sw", .training = 12450, .validation = 301, .test = 1000, .duplicates = 12, .too_long = 1234567},
      {.file = "b.txt", .language = "en", .parallel = false, .training = 999, .duplicates = 3}};
  data.languages = {{.file = "a.tmx", .language = "sw"}};
  data.languages[0].training.resize(700);
  data.languages[0].test.resize(300);
  const std::string plain =
      "a.tmx: en-sw, 12,450 pairs for training, 301 for validation, 1,000 for test; left out: 12 that repeat held-out sentences, "
      "1,234,567 longer than the context\n"
      "b.txt: en, 999 sentences for pretraining; left out: 3 that repeat held-out sentences, 0 longer than the context\n";
  CHECK(about(data) == plain);
  data.languages[0].test.resize(299);
  CHECK(about(data) == plain +
                           "warning: 999 pairs of en-sw are too few to train this model (expected 1,000 or more): the figures only "
                           "illustrate\n");
}

TEST_CASE("dataset: TICO-19, English and Swahili", "[sara_finetune]") {
  const auto folder = files::tico19();
  if (folder.empty()) {
    WARN("skipped: TICO-19 is not here (SARA_TICO19 names its folder)");
    return;
  }
  corpus_options options;
  options.parallel = {folder / "en-sw.tmx"};
  const auto [words, data] = prepare(options);
  CHECK(words.vocabulary() == 2000);
  const encoded_split& sw = data.languages.at(0);
  CHECK(sw.training.size() + sw.validation.size() + sw.test.size() + sw.duplicates + sw.too_long == 3071);
  CHECK(sw.training.size() > 2200);
  CHECK(sw.validation.size() > 250);
  CHECK(sw.test.size() > 250);
  packed_batch batch;
  for (const auto* pairs : parts(sw)) {
    for (const encoded_pair& p : *pairs) {
      REQUIRE(p.high.length() <= 96);
      REQUIRE(p.low.length() <= 96);
      append(batch, p.high);
      append(batch, p.low);
    }
  }
  batch.check({});
}
