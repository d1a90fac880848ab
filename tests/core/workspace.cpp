// The carver: what it counts is what it carves, at any alignment of the caller's memory.
#include <sara/core/workspace.hpp>

#include <random>
#include <vector>

#include "catch.hpp"

namespace {

struct wants {
  sara::index_t chars, doubles, floats, none;
};
struct places {
  char* chars;
  double* doubles;
  float* floats;
  char* none;
};

places carve(sara::carver& c, const wants& w) {
  return {c.take<char>(w.chars), c.take<double>(w.doubles), c.take<float>(w.floats), c.take<char>(w.none)};
}

}   // namespace

TEST_CASE("workspace: counting and carving agree at every alignment", "[core]") {
  std::mt19937 bits(3);
  for (int round = 0; round < 256; ++round) {
    const wants w{1 + static_cast<sara::index_t>(bits() % 200), static_cast<sara::index_t>(bits() % 40),
                  static_cast<sara::index_t>(bits() % 70), 0};
    sara::carver counting;
    const places nowhere = carve(counting, w);
    CHECK(nowhere.doubles == nullptr);
    const std::size_t bytes = counting.bytes();

    std::vector<char> memory(bytes + 64);
    char* const start = memory.data() + round % 64;
    sara::carver carving(sara::workspace{start, bytes});
    const places at = carve(carving, w);
    REQUIRE(carving.bytes() <= bytes);
    REQUIRE(at.chars >= start);
    REQUIRE(reinterpret_cast<char*>(at.doubles) >= at.chars + w.chars);
    REQUIRE(reinterpret_cast<char*>(at.floats) >= reinterpret_cast<char*>(at.doubles + w.doubles));
    REQUIRE(reinterpret_cast<char*>(at.floats + w.floats) <= start + bytes);
    for (const void* p : {static_cast<const void*>(at.chars), static_cast<const void*>(at.doubles), static_cast<const void*>(at.floats)})
      REQUIRE(reinterpret_cast<std::uintptr_t>(p) % sara::carver::alignment == 0);
  }
}

TEST_CASE("workspace: nothing taken needs no more than its alignment", "[core]") {
  sara::carver counting;
  CHECK(counting.bytes() <= sara::carver::alignment);
}
