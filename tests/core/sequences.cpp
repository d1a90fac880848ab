// Which token rows belong to which sequence, in every layout, and what becomes of offsets that make no sense.
#include <sara/core/sequences.hpp>

#include <random>
#include <vector>

#include "catch.hpp"

namespace {

using rows = std::vector<sara::index_t>;

std::vector<rows> all(const sara::sequences_view& v, sara::index_t tokens) {
  std::vector<rows> found;
  sara::for_each_sequence(v, tokens, [&](sara::index_t s, const sara::token_range& r) {
    CHECK(s == static_cast<sara::index_t>(found.size()));
    rows mine;
    for (sara::index_t i = 0; i < r.count; ++i) mine.push_back(r.first + i * r.step);
    found.push_back(mine);
  });
  return found;
}

template <class I> std::vector<rows> packed(const std::vector<I>& offsets, sara::index_t tokens) {
  return all(sara::sequences_view::packed(offsets), tokens);
}

}   // namespace

TEST_CASE("sequences: the three layouts", "[core]") {
  CHECK(all(sara::sequences_view::uniform(2, 3), 6) == std::vector<rows>{{0, 1, 2}, {3, 4, 5}});
  CHECK(all(sara::sequences_view::interleaved(3, 2), 6) == std::vector<rows>{{0, 2, 4}, {1, 3, 5}});
  CHECK(packed(std::vector<std::int32_t>{0, 2, 2, 6}, 6) == std::vector<rows>{{0, 1}, {}, {2, 3, 4, 5}});
  CHECK(packed(std::vector<std::int64_t>{1, 2, 4}, 6) == std::vector<rows>{{1}, {2, 3}});   // rows 0, 4, 5 belong to none
}

TEST_CASE("sequences: empty batches", "[core]") {
  CHECK(all(sara::sequences_view::uniform(0, 3), 0).empty());
  CHECK(all(sara::sequences_view::uniform(2, 0), 0) == std::vector<rows>{{}, {}});
  CHECK(all(sara::sequences_view::interleaved(0, 2), 0) == std::vector<rows>{{}, {}});
  CHECK(packed(std::vector<std::int32_t>{0}, 5).empty());
  CHECK(packed(std::vector<std::int32_t>{0, 0, 5, 5}, 5) == std::vector<rows>{{}, {0, 1, 2, 3, 4}, {}});
}

TEST_CASE("sequences: offsets are clamped to the tokens, and one that falls counts as the largest before it", "[core]") {
  CHECK(packed(std::vector<std::int32_t>{-5, 2, 100}, 4) == std::vector<rows>{{0, 1}, {2, 3}});
  CHECK(packed(std::vector<std::int64_t>{0, 4, 2, 5}, 6) == std::vector<rows>{{0, 1, 2, 3}, {}, {4}});
  CHECK(packed(std::vector<std::int64_t>{std::int64_t{1} << 40, 3}, 4) == std::vector<rows>{{}});

  std::mt19937 bits(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::int32_t> offsets(1 + bits() % 8);
    for (auto& o : offsets) o = static_cast<std::int32_t>(bits() % 24) - 6;
    const sara::index_t tokens = bits() % 16;
    std::vector<int> visits(static_cast<std::size_t>(tokens));
    sara::index_t last = -1;
    for (const rows& sequence : packed(offsets, tokens))
      for (sara::index_t t : sequence) {
        REQUIRE(t > last);   // in order, so never twice
        REQUIRE(t < tokens);
        last = t;
      }
  }
}

TEST_CASE("sequences: what a view knows of itself", "[core]") {
  const std::vector<std::int32_t> offsets{0, 2, 6};
  const auto p = sara::sequences_view::packed(offsets, 4);
  CHECK(p.layout() == sara::token_layout::packed);
  CHECK(p.sequences() == 2);
  CHECK(p.length() == 4);
  CHECK(p.given());
  CHECK(!sara::sequences_view{}.given());
  CHECK(sara::sequences_view::uniform(3, 7).length() == 7);
  CHECK(sara::sequences_view::interleaved(7, 3).sequences() == 3);
  static_assert(std::is_trivially_copyable_v<sara::sequences_view>);
}
