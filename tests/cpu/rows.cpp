// The exponentials of rows: of any height, whether or not their largest logit had to be found. Their sums. Rows written past the caches.
#include <sara/cpu/rows.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "catch.hpp"

namespace {

template <class A> struct exponentials {
  std::vector<A> values;
  std::vector<A> sums;
  std::vector<sara::math::exp_row<A>> peaks;
};

// Of 8 rows; in place, nothing is taken for usual.
template <class A> exponentials<A> exponentials_of(sara::instruction_set isa, std::vector<A> z, std::size_t columns, bool in_place) {
  exponentials<A> got{std::vector<A>(z.size(), A(-1)), std::vector<A>(8), std::vector<sara::math::exp_row<A>>(8)};
  const A* from[8];
  A* to[8];
  for (std::size_t r = 0; r < 8; ++r) {
    from[r] = z.data() + r * columns;
    to[r] = (in_place ? z : got.values).data() + r * columns;
  }
  sara::run_kernel(isa, static_cast<sara::index_t>(columns),
                   sara::exponentials_kernel<A>{from, to, got.sums.data(), got.peaks.data(), 8, static_cast<sara::index_t>(columns)});
  if (in_place) got.values = z;
  return got;
}

// Groups of rows whose column e is 7 r + e, which every storage holds exactly, written one after the other.
template <class A, class G> struct writing_kernel {
  using arithmetic = A;
  std::vector<G*> rows;   // a multiple of rows_at_once
  sara::index_t columns;
  sara::row_write how;

  template <int bytes> SARA_INLINE void run() const {
    using S = sara::simd<A, bytes>;
    const sara::row_cut<S> cut(columns);
    sara::row_writer<G> writer(how);
    for (std::size_t first = 0; first < rows.size(); first += sara::rows_at_once) {
      G* to[sara::rows_at_once];
      S start[sara::rows_at_once];
      for (std::size_t r = 0; r < sara::rows_at_once; ++r) {
        to[r] = rows[first + r];
        start[r] = S::broadcast(static_cast<A>(7 * (first + r)));
      }
      writer.write(
          to, cut, [=](auto r, sara::index_t e) __attribute__((always_inline)) {
            return start[r] + sara::lane_numbers<S>() + static_cast<A>(e);
          });
    }
  }
};

template <class Visit> void for_each_isa(Visit&& visit) {
  for (const auto isa : {sara::instruction_set::vector128, sara::instruction_set::avx2, sara::instruction_set::avx512})
    if (sara::is_supported(isa)) {
      INFO(sara::name_of(isa));
      visit(isa);
    }
}

// Rows of normal logits, each moved so that its largest is of a height.
template <class A> std::vector<A> rows_of_heights(std::mt19937& bits, std::size_t columns, const std::vector<A>& heights) {
  std::normal_distribution<double> normal(0, 3);
  std::vector<A> z(8 * columns);
  for (std::size_t r = 0; r < 8; ++r) {
    const auto row = z.begin() + static_cast<std::ptrdiff_t>(r * columns), end = row + static_cast<std::ptrdiff_t>(columns);
    for (auto x = row; x != end; ++x) *x = static_cast<A>(normal(bits));
    const A move = heights[r % heights.size()] - *std::max_element(row, end);
    for (auto x = row; x != end; ++x) *x += move;
  }
  return z;
}

}   // namespace

TEMPLATE_TEST_CASE("rows: a softmax has the same bits whether its row was usual or its largest logit was found", "[cpu]", float, double) {
  std::mt19937 bits(4);
  for_each_isa([&](sara::instruction_set isa) {
    for (const std::size_t columns : std::vector<std::size_t>{1, 2, 3, 7, 16, 17, 60, 64, 79, 128, 129, 257}) {
      const auto z = rows_of_heights<TestType>(bits, columns, {TestType(3), TestType(2), TestType(13), TestType(10)});
      const auto usual = exponentials_of(isa, z, columns, false), found = exponentials_of(isa, z, columns, true);
      int different = 0, alike = 0;
      for (std::size_t i = 0; i < z.size(); ++i) {
        const auto r = i / columns;
        different += usual.values[i] / usual.sums[r] != found.values[i] / found.sums[r];
        alike += usual.values[i] == found.values[i];
      }
      INFO(columns << " columns");
      CHECK(different == 0);
      CHECK(alike == 0);   // it was another power of two: both ways were gone
      for (std::size_t r = 0; r < 8; ++r) {
        const double one = usual.peaks[r].log_sum_exp(usual.sums[r]), other = found.peaks[r].log_sum_exp(found.sums[r]);
        CHECK(std::abs(one - other) <= 1e-14 * (1 + std::abs(other)));
      }
    }
  });
}

TEMPLATE_TEST_CASE("rows: logits of any height, side by side", "[cpu]", float, double) {
  using A = TestType;
  std::mt19937 bits(5);
  const std::vector<std::vector<A>> groups = {{A(-4.9), A(-5.1)},       {A(15.9), A(16.1), A(17.5)}, {A(3), A(-300), A(88), A(3e4)},
                                              {A(65), A(96), A(120)},   {A(-1e5), A(1e5)},           {A(200), A(250), A(255), A(257)},
                                              {A(-20), A(-90), A(-200)}};
  for_each_isa([&](sara::instruction_set isa) {
    for (const std::size_t columns : std::vector<std::size_t>{1, 5, 16, 60, 64, 129})
      for (const auto& heights : groups)
        for (const bool in_place : {false, true}) {
          const auto z = rows_of_heights<A>(bits, columns, heights);
          const auto got = exponentials_of(isa, z, columns, in_place);
          double worst = 0;
          for (std::size_t r = 0; r < 8; ++r) {
            long double sum = 0;
            for (std::size_t e = 0; e < columns; ++e)
              sum += std::exp(static_cast<long double>(z[r * columns + e]) - static_cast<long double>(z[r * columns]));
            for (std::size_t e = 0; e < columns; ++e) {
              const long double want =
                  std::exp(static_cast<long double>(z[r * columns + e]) - static_cast<long double>(z[r * columns])) / sum;
              const long double p = static_cast<long double>(got.values[r * columns + e]) / static_cast<long double>(got.sums[r]);
              const double error = static_cast<double>(std::abs(p - want) / want) / static_cast<double>(std::numeric_limits<A>::epsilon());
              if (!(error <= worst)) worst = error;
            }
          }
          INFO(columns << " columns, first height " << heights[0] << (in_place ? ", in place" : ""));
          CHECK(worst <= 4);
        }
  });
}

// Rows that fill lines or share them, that follow on one another or do not, from any place in a line; others' memory stays as it was.
TEMPLATE_TEST_CASE("rows: a weighted sum keeps what rows too small for it add", "[cpu]", float, double) {
  using A = TestType;
  const A small = std::numeric_limits<A>::epsilon() / 4;   // four of it are lost on the first four rows' sum of 4, each time
  constexpr int rows = 64;
  for_each_isa([&](sara::instruction_set isa) {
    for (const std::size_t columns : {1u, 3u, 4u, 8u, 16u, 37u}) {
      INFO(sara::name_of(isa) << ", " << columns << " columns");
      std::vector<A> x(rows * columns, small), weights(rows, A(1)), sums(rows, A(1));
      std::fill_n(x.begin(), 4 * columns, A(1));
      A* from[rows];
      for (std::size_t r = 0; r < rows; ++r) from[r] = x.data() + r * columns;
      std::vector<double> total(columns, 0.5);
      sara::run_kernel(
          isa, static_cast<sara::index_t>(columns),
          sara::weighted_sum_kernel<A>{from, weights.data(), sums.data(), rows, static_cast<sara::index_t>(columns), total.data()});
      for (const double t : total) CHECK(t == 0.5 + 4 + (rows - 4) * static_cast<double>(small));
    }
  });
}

TEMPLATE_TEST_CASE("rows: written past the caches as otherwise, and nothing beside them", "[cpu]", float, double, sara::bf16, sara::fp16) {
  using G = TestType;
  using A = sara::arithmetic_t<G>;
  constexpr std::size_t line = 64 / sizeof(G), rows = 12;
  for_each_isa([&](sara::instruction_set isa) {
    std::size_t wrong = 0, written = 0;
    for (std::size_t columns = 1; columns <= 3 * line + 3; ++columns)
      for (std::size_t skip = 0; skip < line; ++skip)
        for (const std::size_t gap : {std::size_t(0), std::size_t(1), line}) {   // before the sixth and the last row
          std::vector<G> memory[2];
          for (const bool past : {false, true}) {
            std::vector<G>& m = memory[past];
            m.resize(rows * columns + 2 * gap + 3 * line);
            for (G& x : m) sara::store_value(x, A(-1));
            G* at = m.data() + line - reinterpret_cast<std::uintptr_t>(m.data()) % 64 / sizeof(G) + skip;
            writing_kernel<A, G> kernel{
                {}, static_cast<sara::index_t>(columns), past ? sara::row_write::past_caches : sara::row_write::overwrite};
            for (std::size_t r = 0; r < rows; ++r, at += columns) {
              at += r == 5 || r == rows - 1 ? gap : 0;
              kernel.rows.push_back(at);
            }
            sara::run_kernel(isa, kernel.columns, kernel);
            sara::finish_past_caches();
            // By their places in lines, not in the vectors, which start anywhere.
            m.erase(m.begin(), m.begin() + (kernel.rows[0] - static_cast<std::ptrdiff_t>(skip) - m.data()) - 1);
            m.resize(rows * columns + 2 * gap + line + skip);
          }
          for (std::size_t i = 0; i < memory[0].size(); ++i) {
            wrong += sara::load_value(memory[0][i]) != sara::load_value(memory[1][i]);
            written += sara::load_value(memory[1][i]) != A(-1);
          }
          written -= rows * columns;
        }
    CHECK(wrong == 0);
    CHECK(written == 0);
  });
}
TEST_CASE("rows: past the caches goes what is large, and fills lines or shares few of them", "[cpu]") {
  alignas(64) static float memory[64];
  alignas(64) static sara::bf16 narrow[64];
  constexpr auto past_caches = sara::row_write::past_caches;
  CHECK(sara::row_write_of(sara::gradient_mode::overwrite, memory, 16, 16, true) == past_caches);
  CHECK(sara::row_write_of(sara::gradient_mode::overwrite, memory, 16, 16, false) == sara::row_write::overwrite);
  CHECK(sara::row_write_of(sara::gradient_mode::accumulate, memory, 16, 16, true) == sara::row_write::accumulate);
  const auto how = [](auto* data, sara::index_t stride, sara::index_t columns) {
    return sara::row_write_of(sara::gradient_mode::overwrite, data, stride, columns, true);
  };
  CHECK(how(memory, 32, 16) == past_caches);
  CHECK(how(memory + 1, 60, 60) == past_caches);
  CHECK(how(memory + 1, 47, 47) == sara::row_write::overwrite);   // short
  CHECK(how(memory + 1, 16, 16) == sara::row_write::overwrite);
  CHECK(how(memory + 1, 480, 60) == sara::row_write::overwrite);   // interleaved
  CHECK(how(memory, 17, 16) == sara::row_write::overwrite);
  CHECK(how(narrow + 1, 128, 128) == sara::row_write::overwrite);
  CHECK(how(narrow + 1, 192, 192) == past_caches);
  CHECK(how(narrow, 128, 128) == past_caches);
  CHECK(how(reinterpret_cast<const float*>(reinterpret_cast<const char*>(memory) + 2), 60, 60) == sara::row_write::overwrite);
}
