// What views take, what they refuse, and that user's initialisers raise no warning.
#include <sara/core/views.hpp>
#include <sara/gate_softmax/types.hpp>
#include <sara/js_routing/types.hpp>
#include <sara/top_k/types.hpp>

#include <array>
#include <memory>
#include <vector>

#include "catch.hpp"

#pragma GCC diagnostic error "-Wmissing-field-initializers"
#pragma GCC diagnostic error "-Wconversion"
#pragma GCC diagnostic error "-Wsign-compare"

namespace {

using sara::index_t, sara::integers_view, sara::layers_view, sara::matrix_view, sara::vector_view;
using floats = std::vector<float>;
using list = std::vector<matrix_view<float>>;
using const_list = std::vector<matrix_view<const float>>;

template <class To, class... From> inline constexpr bool takes = std::is_constructible_v<To, From...>;

// Trivially copyable, so that they can be a kernel's parameters.
static_assert(std::is_trivially_copyable_v<vector_view<float>> && std::is_trivially_copyable_v<matrix_view<float>>);
static_assert(std::is_trivially_copyable_v<layers_view<const float>> && std::is_trivially_copyable_v<integers_view>);

// vector_view: containers that stay, never temporaries, const only where const is promised.
static_assert(takes<vector_view<float>, floats&> && takes<vector_view<const float>, floats&> &&
              takes<vector_view<const float>, const floats&>);
static_assert(!takes<vector_view<float>, const floats&> && !takes<vector_view<double>, floats&>);
static_assert(!takes<vector_view<float>, floats> && !takes<vector_view<const float>, floats> &&
              !takes<vector_view<const float>, const floats>);
static_assert(takes<vector_view<const float>, std::span<float>> && takes<vector_view<float>, std::array<float, 3>&>);
static_assert(!takes<vector_view<const float>, std::array<float, 3>>);
static_assert(takes<vector_view<const float>, vector_view<float>> && !takes<vector_view<float>, vector_view<const float>>);

// matrix_view
static_assert(takes<matrix_view<const float>, matrix_view<float>> && !takes<matrix_view<float>, matrix_view<const float>>);
static_assert(!takes<matrix_view<const double>, matrix_view<float>> && !takes<matrix_view<float>, floats&>);
static_assert(takes<matrix_view<float>, float*, short, unsigned long long> && takes<matrix_view<float>, float*, int, index_t, std::size_t>);
static_assert(!takes<matrix_view<float>, float*, double, int> && !takes<matrix_view<float>, const float*, int, int>);

// layers_view: a block, one matrix, a list; lists of mutable matrices too.
static_assert(takes<layers_view<const float>, list&> && takes<layers_view<const float>, const list&> && takes<layers_view<float>, list&>);
static_assert(takes<layers_view<const float>, const_list&> && !takes<layers_view<float>, const_list&>);
static_assert(!takes<layers_view<const float>, list> && !takes<layers_view<float>, list> && !takes<layers_view<const float>, const_list>);
static_assert(takes<layers_view<const float>, std::span<matrix_view<float>>> &&
              takes<layers_view<float>, std::array<matrix_view<float>, 2>&>);
static_assert(takes<layers_view<const float>, matrix_view<float>> && takes<layers_view<const float>, layers_view<float>>);
static_assert(!takes<layers_view<float>, layers_view<const float>> && !takes<layers_view<float>, matrix_view<const float>>);

// integers_view: int32 and int64, nothing else, no temporaries.
static_assert(takes<integers_view, std::vector<std::int32_t>&> && takes<integers_view, const std::vector<std::int64_t>&>);
static_assert(!takes<integers_view, std::vector<std::int32_t>> && !takes<integers_view, std::vector<std::int16_t>&> &&
              !takes<integers_view, floats&>);
static_assert(takes<integers_view, vector_view<std::int32_t>> && takes<integers_view, vector_view<const std::int64_t>> &&
              !takes<integers_view, vector_view<float>>);
static_assert(takes<integers_view, const std::int32_t*, unsigned char> && takes<integers_view, std::int64_t*, std::size_t>);

}   // namespace

TEST_CASE("views: a view that was never filled is not given", "[core]") {
  CHECK(!vector_view<float>{}.given());
  CHECK(!matrix_view<float>{}.given());
  CHECK(!layers_view<float>{}.given());
  CHECK(!layers_view<const float>{matrix_view<float>{}}.given());
  CHECK(!integers_view{}.given());
  floats empty;
  CHECK(!vector_view<float>{empty}.given());
  float x = 0;
  CHECK(vector_view{&x, 0}.given());   // a place, though of nothing
  CHECK(matrix_view{&x, 0, 5}.given());
  CHECK(matrix_view<float>{nullptr, 0, 5}.given());
}

TEST_CASE("views: address rows and layers by their strides", "[core]") {
  floats v(2 * 3 * 8);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i);
  const matrix_view m{v.data(), 3u, short{5}, 8L};
  CHECK(m.rows() == 3);
  CHECK(m.columns() == 5);
  CHECK(m.row(2) == v.data() + 16);
  CHECK(m(2, 4) == 20);
  CHECK(matrix_view{v.data(), 3, 5}.row_stride() == 5);

  const layers_view<float> block{v.data(), 2, 3, 5, 8, 24};
  CHECK(block.layers() == 2);
  CHECK(block.rows() == 3);
  CHECK(block.columns() == 5);
  CHECK(block[1](2, 4) == 24 + 20);
  CHECK(!block.is_list());
  const layers_view<float> dense{v.data(), 2u, std::size_t{3}, std::int16_t{8}};
  CHECK(dense[1](0, 0) == 24);
  const layers_view<const float> one = m;
  CHECK(one.layers() == 1);
  CHECK(one[0](2, 4) == 20);

  // interleaved layers: layer stride smaller than row stride
  const layers_view<float> columns{v.data(), 2, 6, 4, 8, 4};
  CHECK(columns[1](3, 2) == 3 * 8 + 4 + 2);
}

TEST_CASE("views: a list is read through, as mutable and as const", "[core]") {
  floats a(6, 1), b(6, 2);
  list matrices{{a.data(), 2, 3}, {b.data(), 2, 3}};
  const layers_view<float> mine = matrices;
  const layers_view<const float> direct = matrices, from_view = mine;
  const const_list of_const(matrices.begin(), matrices.end());
  const layers_view<const float> from_const = of_const;
  for (const layers_view<const float>& v : {direct, from_view, from_const}) {
    CHECK(v.is_list());
    CHECK(v.given());
    CHECK(v.layers() == 2);
    CHECK(v.rows() == 2);
    CHECK(v.columns() == 3);
    CHECK(v[0].data() == a.data());
    CHECK(v[1].data() == b.data());
  }
  mine[1](1, 2) = 9;
  CHECK(b[5] == 9);
  const layers_view<const float> again = direct;   // a copy of a const view of a mutable list keeps the list
  CHECK(again[1].data() == b.data());
}

TEST_CASE("views: integers of either width", "[core]") {
  const std::vector<std::int32_t> narrow{0, 3, 7};
  const std::vector<std::int64_t> wide{0, std::int64_t{1} << 40};
  const integers_view n = narrow, w = wide;
  CHECK(n.size() == 3);
  CHECK(n[2] == 7);
  CHECK(n.bytes() == 12);
  CHECK(n.data() == narrow.data());
  CHECK(w[1] == std::int64_t{1} << 40);
  CHECK(w.bytes() == 16);
}

TEST_CASE("views: deduction guides and spans", "[core]") {
  floats v(4);
  const floats c(4);
  static_assert(std::is_same_v<decltype(vector_view{v}), vector_view<float>>);
  static_assert(std::is_same_v<decltype(vector_view{c}), vector_view<const float>>);
  static_assert(std::is_same_v<decltype(matrix_view{v.data(), 2, 2}), matrix_view<float>>);
  const vector_view<const float> from_span = std::span<float>(v);
  CHECK(from_span.data() == v.data());
  CHECK(from_span.size() == 4);
}

TEST_CASE("views: designated initialisers leave out what is optional", "[core]") {
  floats z(6), g(6);
  const std::array<std::int64_t, 2> offsets{0, 2};
  const sara::js_routing_inputs<float> in{.logits = matrix_view{z.data(), 2, 3}, .sequences = sara::sequences_view::packed(offsets)};
  CHECK(in.logits.layers() == 1);
  CHECK(!in.anchors.given());
  const sara::js_routing_outputs<float> out{.grad_logits = matrix_view{g.data(), 2, 3}};
  CHECK(out.grad_logits.given());
  CHECK(!out.loss.given());
  const sara::js_routing_options options{.mode = sara::gradient_mode::accumulate};
  CHECK(options.scale == 1);
  const sara::gate_softmax_outputs<float> softmax_out{.log_sum_exp = g};
  CHECK(!softmax_out.probs.given());
  const sara::top_k_inputs<float> top{.scores = matrix_view{z.data(), 2, 3}};
  CHECK(!top.values.given());
}
