// The readers of parallel and monolingual text.
#include "sara_finetune/text/corpus.hpp"

#include <set>
#include <sstream>

#include "../files.hpp"
#include "catch.hpp"
#include "sara_finetune/text/utf8.hpp"

namespace {

using files::complaint, files::temporary_folder;
using sara_finetune::parallel_source, sara_finetune::parallel_text, sara_finetune::read_monolingual, sara_finetune::read_parallel;

std::string tmx(const std::string& body) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<tmx version=\"1.4\"><header srclang=\"en\"/><body>\n" + body + "</body></tmx>\n";
}

std::string unit(const std::string& english, const std::string& swahili) {
  return "<tu><tuv xml:lang=\"en\"><seg>" + english + "</seg></tuv>\n<tuv xml:lang=\"sw\"><seg>" + swahili + "</seg></tuv></tu>\n";
}

std::size_t words(const std::string& sentence) {
  std::istringstream in(sentence);
  std::size_t count = 0;
  for (std::string word; in >> word;) ++count;
  return count;
}

std::string folded(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

}   // namespace

TEST_CASE("corpus: UTF-8 is checked strictly", "[sara_finetune]") {
  using sara_finetune::count_characters, sara_finetune::first_invalid_utf8;
  const std::string good[] = {"",
                              "a",
                              "\x7f",
                              "\xc2\x80",
                              "\xdf\xbf",
                              "\xe0\xa0\x80",
                              "\xed\x9f\xbf",
                              "\xee\x80\x80",
                              "\xef\xbf\xbf",
                              "\xf0\x90\x80\x80",
                              "\xf4\x8f\xbf\xbf"};
  for (const std::string& text : good) {
    CHECK(first_invalid_utf8(text) == std::string::npos);
    CHECK(count_characters(text) == (text.empty() ? 0 : 1));
  }
  const std::string bad[] = {"\x80",           // a continuation alone
                             "\xc0\x80",       // overlong
                             "\xc1\xbf",       //
                             "\xe0\x9f\xbf",   //
                             "\xf0\x8f\xbf\xbf",
                             "\xed\xa0\x80",       // surrogates
                             "\xed\xbf\xbf",       //
                             "\xf4\x90\x80\x80",   // beyond U+10FFFF
                             "\xf5\x80\x80\x80",   //
                             "\xff",
                             "\xc2",           // cut off
                             "\xe0\xa0",       //
                             "\xf0\x90\x80",   //
                             "\xc2"
                             "a",
                             "\xe1\x80"
                             "a",
                             "\xf1\x80\x80"
                             "a"};
  for (const std::string& text : bad) {
    CAPTURE(text);
    CHECK(first_invalid_utf8(text) == 0);
    CHECK(first_invalid_utf8("ab\xc3\xa9" + text) == 4);
  }
}

TEST_CASE("corpus: TMX languages, inline elements and layout", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.write(
      "mixed.tmx",
      "\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!DOCTYPE tmx SYSTEM \"tmx14.dtd\">\n<tmx version=\"1.1\"><header/><body>\n"
      "<tu tuid=\"a\"><note>n</note><tuv lang=\"EN_us\"><seg>One <hi>two</hi> <bpt i=\"1\">&lt;b&gt;</bpt>three<ept "
      "i=\"1\">&lt;/b&gt;</ept> "
      "<ph>{0}</ph>four &amp; five</seg></tuv><tuv xml:lang=\"sw-KE\"><seg><![CDATA[<moja> mbili]]></seg></tuv></tu>\n"
      "<tu tuid=\"a\"><tuv xml:lang=\"sw\"><seg> tatu </seg></tuv><tuv xml:lang=\"en\"><seg>\n   a  b\n\tc<hi> </hi>d\n</seg></tuv></tu>\n"
      "<tu><tuv xml:lang=\"EN\"><seg>caf&#xe9;</seg></tuv><tuv xml:lang=\"SW\"><seg>\xc2\xa0kahawa</seg></tuv></tu>\n"
      "<tu><tuv xml:lang=\"eng\"><seg>no</seg></tuv><tuv xml:lang=\"en-GB\"><seg>yes</seg></tuv><tuv "
      "xml:lang=\"sw\"><seg>ndiyo</seg></tuv></tu>\n"
      "</body></tmx>\n");
  const parallel_text text = read_parallel({.file = file, .low = "SW"});
  CHECK(text.language == "sw");
  CHECK(text.file == file.string());
  REQUIRE(text.pairs.size() == 4);
  CHECK(text.pairs[0].high == "One two three four & five");
  CHECK(text.pairs[0].low == "<moja> mbili");
  CHECK(text.pairs[1].high == "a  b c d");
  CHECK(text.pairs[1].low == "tatu");
  CHECK(text.pairs[2].high == "caf\xc3\xa9");
  CHECK(text.pairs[2].low == "\xc2\xa0kahawa");
  CHECK(text.pairs[3].high == "yes");
  const std::set<std::string> ids = {text.pairs[0].id, text.pairs[1].id, text.pairs[2].id, text.pairs[3].id};
  CHECK(ids.size() == 4);
  CHECK(text.pairs[0].id == "a");
  CHECK(text.pairs[2].id == "unit 3");
}

TEST_CASE("corpus: elements may stand in one another as deep as they like", "[sara_finetune]") {
  const temporary_folder folder;
  std::string open, close;
  for (int i = 0; i < 200000; ++i) {
    open += "<hi>";
    close += "</hi>";
  }
  const auto file = folder.write("deep.tmx", tmx(unit("a" + open + "b" + close + "c", "d")));
  CHECK(read_parallel({.file = file}).pairs.at(0).high == "abc");
}

TEST_CASE("corpus: a TMX file's other language is found, and one of several is chosen", "[sara_finetune]") {
  const temporary_folder folder;
  CHECK(read_parallel({.file = folder.write("two.tmx", tmx(unit("a", "b")))}).language == "sw");
  const std::string three =
      "<tu><tuv xml:lang=\"en\"><seg>a</seg></tuv><tuv xml:lang=\"fr-CA\"><seg>b</seg></tuv>"
      "<tuv xml:lang=\"sw\"><seg>c</seg></tuv></tu>";
  const auto file = folder.write("three.tmx", tmx(three));
  CHECK(complaint([&] { read_parallel({.file = file}); }) ==
        file.string() + ": expected one language beside en, found fr, sw: say which one is meant");
  CHECK(read_parallel({.file = file, .low = "sw"}).pairs.at(0).low == "c");
  CHECK(read_parallel({.file = file, .low = "fr"}).pairs.at(0).low == "b");
  CHECK(read_parallel({.file = file, .high = "fr", .low = "en"}).pairs.at(0).high == "b");
  const auto alone = folder.write("alone.tmx", tmx("<tu><tuv xml:lang=\"en\"><seg>a</seg></tuv></tu>"));
  CHECK(complaint([&] { read_parallel({.file = alone}); }) == alone.string() + ": expected translations of en, found no other language");
}

TEST_CASE("corpus: a broken TMX file is refused with file and line", "[sara_finetune]") {
  const temporary_folder folder;
  const auto refused = [&](const std::string& bytes, const std::string& after_the_name) {
    const auto file = folder.write("bad.tmx", bytes);
    CHECK(complaint([&] { read_parallel({.file = file, .low = "sw"}); }) == file.string() + after_the_name);
  };
  const std::string fine = unit("a", "b");   // lines 3 and 4
  refused(tmx(fine + "<tu>\n<tuv xml:lang=\"en\"><seg>a</tuv></tu>\n"), ":6: expected well-formed XML, found: Start-end tags mismatch");
  refused(tmx(fine).substr(0, 150), ":4: expected well-formed XML, found: Error parsing start element tag");
  refused("<tmx>\n<body>\n" + fine, ":4: expected well-formed XML, found: Start-end tags mismatch");
  refused("", ":1: expected well-formed XML, found: No document element found");
  refused("sentence\tsentensi\n", ":1: expected well-formed XML, found: No document element found");
  refused("\n<html><body/></html>", ":2: expected a <tmx> with a <body>, found <html>");
  refused("<tmx><header/></tmx>", ":1: expected a <tmx> with a <body>, found <tmx> without one");
  refused(tmx(fine + fine + "<tu><tuv xml:lang=\"en\"><seg>a</seg></tuv></tu>\n"), ":7: expected a <tuv> in sw in this <tu>, found none");
  refused(tmx(fine + "<tu><tuv><seg>a</seg></tuv><tuv xml:lang=\"sw\"><seg>b</seg></tuv></tu>\n"),
          ":5: expected a <tuv> in en in this <tu>, found none");
  refused(tmx(fine + unit("a", " \n ")), ":6: expected a sentence in sw, found an empty <seg>");
  refused(tmx(fine + unit("<ph>{0}</ph>", "b")), ":5: expected a sentence in en, found an empty <seg>");
  refused(tmx(fine + "<tu><tuv xml:lang=\"sw\"/><tuv xml:lang=\"en\"><seg>b</seg></tuv></tu>\n"),
          ":5: expected a sentence in sw, found an empty <seg>");
  refused(tmx(fine + unit("a&#xD800;", "b")), ":5: expected UTF-8 text in en, found a reference to what is no character");
  refused(tmx(fine + unit("caf\xe9", "b")), ":5: expected UTF-8 text, found the byte 0xE9");
  refused("\xff\xfe<\0t\0m\0x", ":1: expected UTF-8 text, found the byte 0xFF");
  refused(std::string("<\0t\0m\0x\0", 8), ":1: expected UTF-8 text, found the byte 0x00");
  refused(tmx(""), ": expected sentence pairs, found none");
}

TEST_CASE("corpus: TSV", "[sara_finetune]") {
  const temporary_folder folder;
  const parallel_text text =
      read_parallel({.file = folder.write("en-sw.tsv", "\xef\xbb\xbf# a comment\nOne # two\tMoja  mbili\r\n#\tx\ty\n three \ttatu")});
  CHECK(text.language == "sw");
  REQUIRE(text.pairs.size() == 2);
  CHECK(text.pairs[0].id == "line 2");
  CHECK(text.pairs[0].high == "One # two");
  CHECK(text.pairs[0].low == "Moja  mbili");
  CHECK(text.pairs[1].id == "line 4");
  CHECK(text.pairs[1].high == "three");
  CHECK(read_parallel({.file = folder.write("pairs.TSV", "a\tb\n")}).language == "pairs");
  CHECK(read_parallel({.file = folder.write("news.en-zh-hant.tsv", "a\tb\n")}).language == "zh-hant");
  CHECK(read_parallel({.file = folder.write("men-sw.tsv", "a\tb\n")}).language == "sw");
  CHECK(read_parallel({.file = folder.write("fr-en.tsv", "a\tb\n"), .high = "fr"}).language == "en");
  CHECK(read_parallel({.file = folder.write("pairs.tsv", "a\tb\n"), .low = "ne"}).language == "ne");

  const auto refused = [&](const std::string& bytes, const std::string& after_the_name) {
    const auto file = folder.write("en-sw.tsv", bytes);
    CHECK(complaint([&] { read_parallel({.file = file}); }) == file.string() + after_the_name);
  };
  refused("a\tb\nc d\n", ":2: expected two sentences with one tab between them, found 0 tabs");
  refused("a\tb\n\nc\td\n", ":2: expected two sentences with one tab between them, found 0 tabs");
  refused("# x\n\na\tb\tc\n", ":2: expected two sentences with one tab between them, found 0 tabs");
  refused("a\tb\tc\n", ":1: expected two sentences with one tab between them, found 2 tabs");
  refused("a\tb\n \tc\n", ":2: expected a sentence in en, found an empty side");
  refused("a\tb\nc\t \r\n", ":2: expected a sentence in sw, found an empty side");
  refused("a\tb\nc\td\ne\t\xed\xa0\x80\n", ":3: expected UTF-8 text, found the byte 0xED");
  refused("", ": expected sentence pairs, found none");
  refused("# only\n# comments\n", ": expected sentence pairs, found none");
}

TEST_CASE("corpus: monolingual text, and files that are not there", "[sara_finetune]") {
  const temporary_folder folder;
  const auto text = read_monolingual(folder.write("news.txt", " one \n\n\t\r\ntwo  three\r\nfour"), "en");
  CHECK(text.language == "en");
  CHECK(text.sentences == std::vector<std::string>{"one", "two  three", "four"});

  const auto blank = folder.write("blank.txt", "\n \n");
  CHECK(complaint([&] { read_monolingual(blank, "en"); }) == blank.string() + ": expected a sentence a line, found none");
  const auto broken = folder.write("broken.txt", "one\ntwo\xc0\xaf\n");
  CHECK(complaint([&] { read_monolingual(broken, "en"); }) == broken.string() + ":2: expected UTF-8 text, found the byte 0xC0");
  const auto absent = folder.path() / "absent.tsv", picture = folder.write("pairs.csv", "a,b");
  CHECK(complaint([&] { read_monolingual(absent, "en"); }) == absent.string() + ": cannot be read: No such file or directory");
  CHECK(complaint([&] { read_parallel({.file = absent}); }) == absent.string() + ": cannot be read: No such file or directory");
  CHECK(complaint([&] { read_monolingual(folder.path(), "en"); }) == folder.path().string() + ": cannot be read: it is a folder");
  CHECK(complaint([&] { read_parallel({.file = picture}); }) ==
        picture.string() + ": expected parallel text as .tmx or .tsv, found '.csv'");
}

TEST_CASE("corpus: the embedded English-Swahili pairs", "[sara_finetune]") {
  const parallel_text text = read_parallel({.file = files::embedded()});
  CHECK(text.language == "sw");
  CHECK(text.pairs.size() >= 300);
  std::set<std::string> seen;
  for (const auto& p : text.pairs) {
    CAPTURE(p.high, p.low);
    CHECK(words(p.high) >= 8);
    CHECK(words(p.high) <= 20);
    CHECK(words(p.low) >= 8);
    CHECK(words(p.low) <= 20);
    CHECK(seen.insert(folded(p.high)).second);
    CHECK(seen.insert(folded(p.low)).second);
  }
}

TEST_CASE("corpus: TICO-19's memories", "[sara_finetune]") {
  const auto folder = files::tico19();
  if (folder.empty()) {
    WARN("skipped: TICO-19 is not here (SARA_TICO19 names its folder)");
    return;
  }
  std::vector<std::string> ids;
  for (const std::string language : {"sw", "ne", "bn", "hi", "fr"}) {
    const parallel_text text = read_parallel({.file = folder / ("en-" + language + ".tmx")});
    CHECK(text.language == language);
    CHECK(text.pairs.size() == 3071);
    std::vector<std::string> own;
    for (const auto& p : text.pairs) own.push_back(p.id);
    CHECK(std::set<std::string>(own.begin(), own.end()).size() == own.size());
    if (ids.empty()) ids = own;
    CHECK(ids == own);   // a sentence has one name in every language
    if (language == "sw") {
      CHECK(text.pairs[0].id == "CMU_1:1");
      CHECK(text.pairs[0].high == "about how long have these symptoms been going on?");
      CHECK(text.pairs[0].low == "je, dalili hizi zimekuwa zikiendelea kwa takriban muda gani sasa?");
    }
  }
}
