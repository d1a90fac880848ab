// Overlap of arguments against a byte by byte comparison, and the sentences of broken contracts.
#include <sara/core/checks.hpp>

#include <random>
#include <set>
#include <vector>

#include "catch.hpp"

namespace {

using sara::footprint, sara::index_t, sara::layers_view, sara::matrix_view, sara::vector_view;

char memory[4096];

bool share_a_byte(const footprint& a, const footprint& b) {
  std::set<const char*> bytes;
  for (index_t r = 0; r < a.rows; ++r)
    for (index_t i = 0; i < a.row_bytes; ++i) bytes.insert(a.data + r * a.stride_bytes + i);
  for (index_t r = 0; r < b.rows; ++r)
    for (index_t i = 0; i < b.row_bytes; ++i)
      if (bytes.count(b.data + r * b.stride_bytes + i)) return true;
  return false;
}

template <class F> std::string sentence(F&& f) {
  try {
    f();
  } catch (const sara::invalid_argument& e) {
    return e.what();
  }
  return "";
}

}   // namespace

TEST_CASE("checks: rows of one stride overlap exactly where they share a byte", "[core]") {
  std::mt19937 bits(11);
  int shared = 0, apart = 0;
  for (int round = 0; round < 20000; ++round) {
    const index_t stride = 4 + static_cast<index_t>(bits() % 12);
    const auto random = [&] {
      return footprint{memory + 512 + bits() % 64, 2 + static_cast<index_t>(bits() % 4),
                       1 + static_cast<index_t>(bits() % static_cast<unsigned>(stride)), stride};
    };
    const footprint a = random(), b = random();
    const bool want = share_a_byte(a, b);
    REQUIRE(sara::overlap(a, b) == want);
    REQUIRE(sara::overlap(b, a) == want);
    (want ? shared : apart)++;
  }
  CHECK(shared > 1000);
  CHECK(apart > 1000);
}

TEST_CASE("checks: no shared byte goes unnoticed, whatever the strides", "[core]") {
  std::mt19937 bits(12);
  for (int round = 0; round < 20000; ++round) {
    const auto random = [&] {
      const index_t width = 1 + static_cast<index_t>(bits() % 10);
      return footprint{memory + 512 + bits() % 128, static_cast<index_t>(bits() % 5), width, width + static_cast<index_t>(bits() % 8)};
    };
    const footprint a = random(), b = random();
    if (share_a_byte(a, b)) REQUIRE(sara::overlap(a, b));
    if (a.rows && b.rows && (a.end() <= b.data || b.end() <= a.data)) REQUIRE(!sara::overlap(a, b));
  }
}

TEST_CASE("checks: arguments of a call", "[core]") {
  std::vector<float> v(64), elsewhere(64);
  const auto columns = [&](index_t from, index_t count) { return matrix_view<float>{v.data() + from, 8, count, 8}; };
  const auto clash = [&](const auto& in, const auto& out, const char* twin = nullptr) {
    return sentence([&] {
      sara::overlap_checks<2> places("call");
      places.input("left", in);
      places.output("right", out, twin);
    });
  };
  CHECK(clash(columns(0, 4), columns(4, 4)).empty());
  CHECK(clash(columns(0, 5), columns(4, 4)) == "sara::call: right shares memory with left");
  CHECK(clash(columns(0, 4), columns(0, 4)).find("right") != std::string::npos);
  CHECK(clash(columns(0, 4), columns(0, 4), "left").empty());
  CHECK(clash(columns(0, 4), columns(1, 4), "left") == "sara::call: right shares memory with left; it may be exactly it, or apart from it");
  CHECK(clash(columns(0, 4), matrix_view<float>{elsewhere.data(), 8, 8}).empty());
  CHECK(clash(columns(0, 4), matrix_view<float>{}).empty());
  CHECK(!clash(columns(0, 8), vector_view<float>{v.data() + 63, 1}).empty());
  CHECK(clash(columns(0, 8), vector_view<float>{v.data() + 64, 0}).empty());
}

TEST_CASE("checks: layers, in blocks and lists", "[core]") {
  std::vector<float> v(64), w(64);
  const layers_view<float> block{v.data(), 2, 4, 8};
  const std::vector<matrix_view<float>> swapped{{v.data() + 32, 4, 8}, {v.data(), 4, 8}}, same{{v.data(), 4, 8}, {v.data() + 32, 4, 8}},
      twice{{w.data(), 4, 8}, {w.data() + 8, 4, 8}}, other{{w.data(), 4, 8}, {w.data() + 32, 4, 8}};
  const auto clash = [&](const layers_view<float>& out) {
    return sentence([&] {
      sara::overlap_checks<2> places("call");
      places.input("logits", block);
      places.output("grad_logits", out, "logits");
    });
  };
  CHECK(clash(block).empty());
  CHECK(clash(same).empty());
  CHECK(clash(other).empty());
  CHECK(clash(swapped).find("grad_logits shares memory with logits") != std::string::npos);   // layer 0 would overwrite layer 1's input
  CHECK(clash(twice).find("its layers 0 and 1 share memory") != std::string::npos);
  CHECK(clash(layers_view<float>{w.data(), 2, 4, 8, 8, 0}).find("its layers 0 and 1 share memory") != std::string::npos);
  CHECK(clash(layers_view<float>{w.data(), 2, 4, 4, 8, 4}).empty());   // layers side by side in one row
}

TEST_CASE("checks: sentences name the argument, the expected and the actual shape", "[core]") {
  const sara::call_checks check{"call"};
  std::vector<float> v(64);
  CHECK(sentence([&] { check.required("logits", matrix_view<float>{}); }) == "sara::call: logits is required, but was not given");
  CHECK(sentence([&] {
          check.shape("weights", vector_view<float>{v.data(), 3}, "[tokens]", 4);
        }) == "sara::call: weights must have shape [tokens] = [4], but has [3]");
  CHECK(sentence([&] {
          check.shape("probs", matrix_view<float>{v.data(), 3, 5}, "[tokens, experts]", 4, 5);
        }) == "sara::call: probs must have shape [tokens, experts] = [4, 5], but has [3, 5]");
  CHECK(sentence([&] {
          check.shape("logits", layers_view<float>{v.data(), 2, 3, 5}, "[layers, tokens, experts]", 2, 4, 5);
        }) == "sara::call: logits must have shape [layers, tokens, experts] = [2, 4, 5], but has [2, 3, 5]");
  CHECK(sentence([&] {
          check.shape("probs", matrix_view<float>{v.data(), 3, 5, 4}, "[tokens, experts]", 3, 5);
        }) == "sara::call: probs must have a row stride of at least its 5 columns, but has 4");
  CHECK(sentence([&] {
          check.shape("probs", matrix_view<float>{nullptr, 3, 5}, "[tokens, experts]", 3, 5);
        }) == "sara::call: probs must point to its 15 elements, but is a null pointer");
  CHECK(sentence([&] { check.shape("probs", matrix_view<float>{nullptr, 0, 5}, "[tokens, experts]", 0, 5); }).empty());

  const std::vector<matrix_view<float>> uneven{{v.data(), 3, 5}, {v.data() + 16, 2, 5}};
  CHECK(sentence([&] {
          check.shape("logits", layers_view<float>{uneven}, "[layers, tokens, experts]", 2, 3, 5);
        }).find("logits[1] must have shape") != std::string::npos);
  const std::vector<matrix_view<float>> hole{{v.data(), 3, 5}, {nullptr, 3, 5}};
  CHECK(sentence([&] {
          check.shape("logits", layers_view<float>{hole}, "[layers, tokens, experts]", 2, 3, 5);
        }).find("logits[1] must point to") != std::string::npos);
}

TEST_CASE("checks: sequences must make the tokens", "[core]") {
  const sara::call_checks check{"call"};
  CHECK(sentence([&] { check.shape(sara::sequences_view::uniform(2, 3), 6); }).empty());
  CHECK(sentence([&] { check.shape(sara::sequences_view::interleaved(3, 2), 7); }) ==
        "sara::call: sequences: 2 sequences of 3 tokens do not make the 7 tokens of the other arguments");
  CHECK(!sentence([&] { check.shape(sara::sequences_view::uniform(-2, -3), 6); }).empty());
  CHECK(!sentence([&] { check.shape(sara::sequences_view::packed(sara::integers_view{}), 6); }).empty());
  const std::vector<std::int32_t> offsets{0, 6};
  CHECK(sentence([&] { check.shape(sara::sequences_view::packed(offsets), 6); }).empty());
}

TEST_CASE("checks: a single row beside the columns of a strided matrix shares nothing with it", "[core]") {
  const footprint columns{memory, 5, 16, 32};
  for (index_t at = 0; at + 4 <= 160; at += 4) {
    const footprint one{memory + at, 1, 4, 4};
    INFO("at " << at);
    CHECK(sara::overlap(columns, one) == share_a_byte(columns, one));
    CHECK(sara::overlap(one, columns) == share_a_byte(columns, one));
  }
}
