// The exception of a broken contract and its sentence.
#include <sara/core/errors.hpp>

#include "catch.hpp"

TEST_CASE("errors: one type, which the standard's handlers catch too, and the call's name", "[core]") {
  static_assert(std::is_base_of_v<std::invalid_argument, sara::invalid_argument>);
  REQUIRE_THROWS_AS(sara::fail("call", "logits is wrong"), sara::invalid_argument);
  REQUIRE_THROWS_AS(sara::fail("call", "logits is wrong"), std::exception);
  std::string text;
  try {
    sara::fail("call", "logits is wrong");
  } catch (const std::exception& e) {
    text = e.what();
  }
  CHECK(text == "sara::call: logits is wrong");
}

TEST_CASE("errors: sentences of text, numbers and shapes", "[core]") {
  const sara::index_t extents[] = {2, 5, std::int64_t{1} << 33};
  CHECK(std::string(sara::sentence().shape(extents, 3).text()) == "[2, 5, 8589934592]");
  CHECK(std::string(sara::sentence().shape(extents, 0).text()) == "[]");
  sara::sentence s("row ");
  s << std::int16_t{-3} << " of " << std::size_t{7} << " has " << 0.25 << ", ";
  s.shape(extents, 1);
  CHECK(std::string(s.text()) == "row -3 of 7 has 0.25, [2]");
  CHECK(std::string((sara::sentence("logits") << ": " << s).text()) == "logits: row -3 of 7 has 0.25, [2]");
}

TEST_CASE("errors: a sentence too long is cut, not overrun", "[core]") {
  const std::string name(300, 'a');
  sara::sentence s;
  for (int i = 0; i < 5; ++i) s << name.c_str() << i;
  const std::string text = s.text();
  CHECK(text.size() < 700);
  CHECK(text.substr(0, 301) == name + "0");
  CHECK(text == (sara::sentence() << s << "more").text());
}
