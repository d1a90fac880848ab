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

TEST_CASE("errors: shapes as text", "[core]") {
  const sara::index_t extents[] = {2, 5, std::int64_t{1} << 33};
  CHECK(sara::shape_text(extents, 3) == "[2, 5, 8589934592]");
  CHECK(sara::shape_text(extents, 1) == "[2]");
  CHECK(sara::shape_text(extents, 0) == "[]");
}
