// The tokenizer: exact round trips, the same bytes every time, and what it refuses.
#include "sara_finetune/text/tokenizer.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <random>

#include "../files.hpp"
#include "catch.hpp"
#include "sara_finetune/text/splits.hpp"

namespace {

using files::complaint;
using sara_finetune::monolingual_text, sara_finetune::tokenizer, sara_finetune::training_text;

const std::vector<monolingual_text>& embedded() {
  static const auto texts = training_text(sara_finetune::split({sara_finetune::read_parallel({.file = files::embedded()})}));
  return texts;
}

const tokenizer& trained() {
  static const tokenizer t = tokenizer::train(embedded(), 800);
  return t;
}

std::string utf8(std::uint32_t c) {
  std::string text;
  const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6), put(0x80 | (c & 63));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  } else {
    put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 63)), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  }
  return text;
}

void round_trip(const tokenizer& t, const std::string& text) {
  const std::vector<int> ids = t.encode(text);
  REQUIRE(t.decode(ids) == text);
  REQUIRE(std::count(ids.begin(), ids.end(), tokenizer::unknown) == 0);
  REQUIRE(std::count(ids.begin(), ids.end(), tokenizer::bos) == 0);
  REQUIRE(std::count(ids.begin(), ids.end(), tokenizer::eos) == 0);
}

}   // namespace

TEST_CASE("tokenizer: fills its vocabulary and shortens the text", "[sara_finetune]") {
  const tokenizer& t = trained();
  CHECK(t.vocabulary() == 800);
  for (const monolingual_text& text : embedded()) {
    std::size_t tokens = 0, bytes = 0;
    for (const std::string& sentence : text.sentences) {
      const auto ids = t.encode(sentence);
      CHECK(*std::min_element(ids.begin(), ids.end()) > tokenizer::eos);
      CHECK(*std::max_element(ids.begin(), ids.end()) < t.vocabulary());
      tokens += ids.size();
      bytes += sentence.size();
    }
    CAPTURE(text.language, tokens, bytes);
    CHECK(tokens * 2 < bytes);
  }
  // A word is the same tokens at the start of a sentence and inside.
  const auto word = t.encode("water"), twice = t.encode("water water");
  REQUIRE(twice.size() == 2 * word.size());
  CHECK(std::equal(word.begin(), word.end(), twice.begin()));
  CHECK(std::equal(word.begin(), word.end(), twice.begin() + static_cast<std::ptrdiff_t>(word.size())));
}

TEST_CASE("tokenizer: the round trip is exact", "[sara_finetune]") {
  const tokenizer& t = trained();
  CHECK(t.encode("").empty());
  CHECK(t.decode({}).empty());
  for (const std::string text :
       {" ", "  ", "   x", "x   ", " a  b   c ", "\t", "a\tb\t\tc\n\r\n", "\xe2\x96\x81", "\xe2\x96\x81 a\xe2\x96\x81\xe2\x96\x81",
        " \xe2\x96\x81", "\xe2\x96\x82\xe2\x96\x80", "<s></s><unk><0x41><0xE2>", " \xe2\x81\x87 ", "\xe2\x96\x85",
        "\xef\xbb\xbf"
        "a",
        "\xc2\xa0\xe3\x80\x80\xe2\x80\x8d", "e\xcc\x81 \xc3\xa9 \xef\xac\x81 \xef\xbc\xa1 \xe2\x84\xab",
        "\xe0\xa6\xac\xe0\xa6\xbe\xe0\xa6\x82\xe0\xa6\xb2\xe0\xa6\xbe", "\xf0\x9f\x91\xa9\xf0\x9f\x8f\xbd\xe2\x80\x8d\xf0\x9f\x9a\x80"}) {
    CAPTURE(text);
    round_trip(t, text);
  }
  round_trip(t, std::string(1, '\0'));
  round_trip(t, std::string("a\0b\0", 4));
  for (const monolingual_text& text : embedded()) {
    for (const std::string& sentence : text.sentences) round_trip(t, sentence);
  }
}

TEST_CASE("tokenizer: the round trip of random UTF-8 is exact", "[sara_finetune]") {
  const tokenizer& t = trained();
  std::mt19937_64 bits(7);
  const auto below = [&](std::uint64_t n) { return static_cast<std::uint32_t>(bits() % n); };
  for (int trial = 0; trial < 3000; ++trial) {
    std::string text;
    for (std::uint32_t length = below(40); length > 0; --length) {
      switch (below(6)) {
        case 0:
          text += ' ';
          break;
        case 1:
          text += "\xe2\x96\x81";
          break;
        case 2:
          text += utf8(below(0x80));
          break;
        case 3:
          text += utf8(below(0x800));
          break;
        case 4: {
          const std::uint32_t c = below(0x10000 - 0x800);
          text += utf8(c < 0xd800 ? c : c + 0x800);
          break;
        }
        default:
          text += utf8(0x10000 + below(0x100000));
      }
    }
    CAPTURE(trial, text);
    round_trip(t, text);
  }
}

TEST_CASE("tokenizer: every character of the Unicode survives", "[sara_finetune]") {
  const tokenizer& t = trained();
  for (std::uint32_t c = 0; c < 0x110000; c += 64) {
    std::string text;
    for (std::uint32_t i = c; i < c + 64; ++i) {
      if (i < 0xd800 || i > 0xdfff) text += utf8(i);
    }
    round_trip(t, text);
  }
}

TEST_CASE("tokenizer: two trainings give the same bytes, and they are a tokenizer", "[sara_finetune]") {
  const tokenizer again = tokenizer::train(embedded(), 800), loaded = tokenizer::load(trained().serialized());
  CHECK(again.serialized() == trained().serialized());
  CHECK(loaded.serialized() == trained().serialized());
  CHECK(loaded.vocabulary() == 800);
  for (const monolingual_text& text : embedded()) {
    for (const std::string& sentence : text.sentences) REQUIRE(loaded.encode(sentence) == trained().encode(sentence));
  }
  CHECK(tokenizer::train(embedded(), 500).serialized() != trained().serialized());
}

TEST_CASE("tokenizer: a language is heard as much as another, however little of it there is", "[sara_finetune]") {
  auto texts = embedded();
  REQUIRE(texts.at(1).language == "sw");
  const auto all = texts[1].sentences;
  texts[1].sentences.resize(all.size() / 8);
  const auto tokens_a_byte = [&](const tokenizer& t) {
    std::size_t tokens = 0, bytes = 0;
    for (const std::string& sentence : texts[1].sentences) {
      tokens += t.encode(sentence).size();
      bytes += sentence.size();
    }
    return static_cast<double>(tokens) / static_cast<double>(bytes);
  };
  // What is repeated until it is as long as the English gets pieces of its own; put in as it is, it would get few.
  const tokenizer balanced = tokenizer::train(texts, 600);
  auto one = texts[0];
  one.sentences.insert(one.sentences.end(), texts[1].sentences.begin(), texts[1].sentences.end());
  const tokenizer unbalanced = tokenizer::train({one}, 600);
  CAPTURE(tokens_a_byte(balanced), tokens_a_byte(unbalanced));
  CHECK(tokens_a_byte(balanced) < 0.8 * tokens_a_byte(unbalanced));

  // Pieces of one language's text are one text.
  auto pieces = embedded();
  monolingual_text rest{.file = "x", .language = "sw", .sentences = {all.begin() + 100, all.end()}};
  pieces[1].sentences.resize(100);
  pieces.push_back(rest);
  CHECK(tokenizer::train(pieces, 600).serialized() == tokenizer::train(embedded(), 600).serialized());
}

TEST_CASE("tokenizer: what cannot be learned is refused with what could", "[sara_finetune]") {
  CHECK(complaint([] { tokenizer::train({}); }) == "tokenizer: expected text to train on, found none");
  CHECK(complaint([] { tokenizer::train({{.file = "f", .language = "ne", .sentences = {""}}}); }) ==
        "tokenizer: expected text in ne to train on, found none");
  CHECK(complaint([] { tokenizer::train({{.file = "f", .language = "ne", .sentences = {"caf\xe9"}}}); }) ==
        "tokenizer: expected UTF-8 text in ne, found 'caf\xe9'");

  // The sentences' figures are the border: there it works, one beside it does not.
  const std::string high = complaint([] { tokenizer::train(embedded(), 60000); });
  int most = 0;
  REQUIRE(std::sscanf(high.c_str(), "tokenizer: the training text supports a vocabulary of at most %d, but 60000 is asked for", &most) ==
          1);
  CHECK(most > 1000);
  CHECK(tokenizer::train(embedded(), most).vocabulary() == most);
  CHECK(complaint([&] { tokenizer::train(embedded(), most + 1); }).starts_with("tokenizer: the training text supports"));

  const std::string low = complaint([] { tokenizer::train(embedded(), 10); });
  int least = 0;
  REQUIRE(std::sscanf(low.c_str(), "tokenizer: a vocabulary of 10 is too small for this text: it needs at least %d", &least) == 1);
  CHECK(least > 280);
  CHECK(tokenizer::train(embedded(), least).vocabulary() == least);
  CHECK(complaint([&] { tokenizer::train(embedded(), least - 1); }).starts_with("tokenizer: a vocabulary of " + std::to_string(least - 1)));

  for (const std::string sentence : {"a", " ", "a b c", "aaaaaaaa", "\xe2\x96\x81", "\xf0\x9f\x91\xa9"}) {
    CAPTURE(sentence);
    CHECK(complaint([&] { tokenizer::train({{.file = "f", .language = "en", .sentences = {sentence}}}); }).starts_with("tokenizer: "));
  }
}

TEST_CASE("tokenizer: what is no tokenizer is refused", "[sara_finetune]") {
  const std::string& good = trained().serialized();
  const std::string start = "tokenizer: expected a SentencePiece model with byte fallback as this program writes it, found ";
  CHECK(complaint([] { tokenizer::load(""); }) == start + "nothing");
  CHECK(complaint([] { tokenizer::load("no model at all"); }).starts_with(start));
  for (std::size_t length = 1; length < good.size(); length += length < 400 || length + 400 > good.size() ? 1 : 97) {
    CAPTURE(length);
    REQUIRE(complaint([&] { tokenizer::load(good.substr(0, length)); }).starts_with(start));
  }
  CHECK(complaint([] { trained().encode("caf\xe9"); }) == "tokenizer: expected UTF-8 text, found something else at byte 3");
  CHECK(complaint([] { trained().decode(std::vector<int>{800}); }) == "tokenizer: expected tokens from 0 to 799, found 800");
  CHECK(complaint([] { trained().decode(std::vector<int>{-1}); }) == "tokenizer: expected tokens from 0 to 799, found -1");
}

TEST_CASE("tokenizer: TICO-19 in five languages", "[sara_finetune]") {
  const auto folder = files::tico19();
  if (folder.empty()) {
    WARN("skipped: TICO-19 is not here (SARA_TICO19 names its folder)");
    return;
  }
  std::vector<sara_finetune::parallel_text> texts;
  for (const std::string language : {"sw", "ne", "bn", "hi", "fr"}) {
    texts.push_back(sara_finetune::read_parallel({.file = folder / ("en-" + language + ".tmx")}));
  }
  const auto splits = sara_finetune::split({texts[0]});
  const tokenizer t = tokenizer::train(training_text(splits));
  CHECK(t.vocabulary() == 2000);
  CHECK(t.serialized() == tokenizer::train(training_text(splits)).serialized());
  for (const auto& text : texts) {
    for (const auto& p : text.pairs) {
      round_trip(t, p.high);
      round_trip(t, p.low);
    }
  }
  auto split = splits.at(0);
  const auto length = [&](const std::string& sentence) { return t.encode(sentence).size() + 1; };
  const std::size_t left_out = sara_finetune::leave_out_longer(split, 96, length);
  CHECK(left_out > 0);
  CHECK(left_out < 3071 / 10);
}
