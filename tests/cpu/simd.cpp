// Loads, stores and reductions of the SIMD vectors against their scalar twins, in every instruction set.
#include <sara/cpu/simd.hpp>

#include <sara/cpu/dispatch.hpp>

#include <bit>
#include <numeric>
#include <random>
#include <vector>

#include "catch.hpp"

namespace {

template <class T, class A> struct widen_kernel {
  using arithmetic = A;
  const T* from;
  A* to;
  sara::index_t n;

  template <int bytes> SARA_INLINE void run() const {
    using V = sara::simd<A, bytes>;
    for (sara::index_t i = 0; i + V::lanes <= n; i += V::lanes) sara::store(to + i, sara::load<V>(from + i));
  }
};

template <class T> struct narrow_kernel {
  using arithmetic = float;
  const float* from;
  T* to;
  sara::index_t n;

  template <int bytes> SARA_INLINE void run() const {
    using V = sara::simd<float, bytes>;
    for (sara::index_t i = 0; i + V::lanes <= n; i += V::lanes) sara::store(to + i, sara::load<V>(from + i));
  }
};

template <class A> struct reduce_kernel {
  using arithmetic = A;
  const A* from;
  A *sum, *largest;

  template <int bytes> SARA_INLINE void run() const {
    using V = sara::simd<A, bytes>;
    const V x = sara::load<V>(from);
    *sum = sara::sum_of_lanes(x);
    *largest = sara::max_of_lanes(x).v[0];
  }
};

template <class A> struct four_sums_kernel {
  using arithmetic = A;
  const A* from;   // four vectors
  A *together, *largest, *apart;
  int* lanes;

  template <int bytes> SARA_INLINE void run() const {
    using V = sara::simd<A, bytes>;
    *lanes = V::lanes;
    V x[4];
    for (int i = 0; i < 4; ++i) {
      x[i] = sara::load<V>(from + i * V::lanes);
      apart[i] = sara::sum_of_lanes(x[i]);
    }
    sara::simd<A, 4 * sizeof(A)> of_each;
    sara::store(together, sara::sums_of_lanes(x, of_each));
    sara::store(largest, of_each);
  }
};

struct width_kernel {
  using arithmetic = float;
  int* bytes_seen;

  template <int bytes> SARA_INLINE void run() const { *bytes_seen = bytes; }
};

template <class Visit> void for_each_isa(Visit&& visit) {
  for (const auto isa : {sara::instruction_set::vector128, sara::instruction_set::avx2, sara::instruction_set::avx512})
    if (sara::is_supported(isa)) {
      INFO(sara::name_of(isa));
      visit(isa);
    }
}

// By bits: std::isnan is always false under -ffast-math, and the conversions must hold there too.
bool is_nan(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffu) > 0x7f800000u; }
bool same(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (is_nan(a) && is_nan(b)); }

}   // namespace

TEMPLATE_TEST_CASE("simd: every 16-bit pattern widens as its scalar twin does, and comes back", "[cpu]", sara::bf16, sara::fp16) {
  std::vector<TestType> all(65536), back(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
  for_each_isa([&](sara::instruction_set isa) {
    std::vector<float> wide(65536);
    std::vector<double> wider(65536);
    sara::run_kernel(isa, 64, widen_kernel<TestType, float>{all.data(), wide.data(), 65536});
    sara::run_kernel(isa, 64, widen_kernel<TestType, double>{all.data(), wider.data(), 65536});
    sara::run_kernel(isa, 64, narrow_kernel<TestType>{wide.data(), back.data(), 65536});
    int wrong = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const float want = sara::load_value(all[i]);
      wrong += !same(wide[i], want) || !same(static_cast<float>(wider[i]), want);
      wrong += is_nan(want) ? !is_nan(sara::load_value(back[i])) : back[i].bits != all[i].bits;
    }
    CHECK(wrong == 0);
  });
}

TEMPLATE_TEST_CASE("simd: floats narrow bit by bit as their scalar twin does", "[cpu]", sara::bf16, sara::fp16) {
  std::mt19937 bits(2);
  std::vector<float> x;
  for (int i = 0; i < 200000; ++i) {
    x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits())));
    x.push_back(std::bit_cast<float>((static_cast<std::uint32_t>(bits()) & 0x807fffffu) |
                                     ((100u + static_cast<std::uint32_t>(bits()) % 46u) << 23)));
    // halfway between two patterns, and beside it
    const auto h = static_cast<std::uint16_t>(bits());
    TestType a, b;
    a.bits = h;
    b.bits = static_cast<std::uint16_t>(h + 1);
    const float middle = (sara::load_value(a) + sara::load_value(b)) / 2;
    for (float m : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 2 * middle)}) x.push_back(m);
  }
  for_each_isa([&](sara::instruction_set isa) {
    std::vector<TestType> got(x.size());
    sara::run_kernel(isa, 64, narrow_kernel<TestType>{x.data(), got.data(), static_cast<sara::index_t>(x.size())});
    int wrong = 0;
    for (std::size_t i = 0; i < x.size() / 16 * 16; ++i) wrong += got[i].bits != TestType(x[i]).bits;
    CHECK(wrong == 0);
  });
}

TEMPLATE_TEST_CASE("simd: sums and maxima over the lanes", "[cpu]", float, double) {
  for_each_isa([](sara::instruction_set isa) {
    for (std::size_t at = 0; at < 16; ++at) {
      std::vector<TestType> x(16);
      std::iota(x.begin(), x.end(), TestType(1));
      x[at] += 100;
      const auto lanes = isa == sara::instruction_set::avx512 ? 64 / sizeof(TestType)
                         : isa == sara::instruction_set::avx2 ? 32 / sizeof(TestType)
                                                              : 16 / sizeof(TestType);
      TestType sum = 0, largest = 0;
      sara::run_kernel(isa, 16, reduce_kernel<TestType>{x.data(), &sum, &largest});
      const auto end = x.begin() + static_cast<std::ptrdiff_t>(lanes);
      CHECK(sum == std::accumulate(x.begin(), end, TestType(0)));
      CHECK(largest == *std::max_element(x.begin(), end));
    }
  });
}

TEMPLATE_TEST_CASE("simd: four sums at once are the same as one by one, beside the largest of two lanes", "[cpu]", float, double) {
  std::mt19937 bits(3);
  for_each_isa([&](sara::instruction_set isa) {
    for (const sara::index_t columns : {1, 2, 4, 8, 16}) {         // 1: single lanes
      for (const TestType unit : {TestType(1), TestType(0.7)}) {   // sums of whole numbers are exact
        std::vector<TestType> x(64);
        for (TestType& each : x) each = static_cast<TestType>(bits() % 1000000) * unit;
        TestType together[4], largest[4], apart[4];
        int lanes = 0;
        sara::run_kernel(isa, columns, four_sums_kernel<TestType>{x.data(), together, largest, apart, &lanes});
        for (int i = 0; i < 4; ++i) {
          const auto lane = x.begin() + i * lanes;
          TestType most = 0;
          for (int l = 0; l < lanes; ++l) most = std::max(most, lanes < 4 ? lane[l] : lane[l] + lane[l ^ 2]);
          CHECK(together[i] == apart[i]);
          CHECK(largest[i] == most);
          if (unit == 1) CHECK(together[i] == std::accumulate(lane, lane + lanes, TestType(0)));
        }
      }
    }
  });
}

TEST_CASE("simd: short rows get vectors no longer than they are", "[cpu]") {
  for_each_isa([](sara::instruction_set isa) {
    for (sara::index_t columns = 1; columns <= 40; ++columns) {
      int bytes = 0;
      sara::run_kernel(isa, columns, width_kernel{&bytes});
      CHECK(bytes >= 4);
      CHECK(bytes <= 4 * columns);
      if (columns >= 16) CHECK(bytes == (isa == sara::instruction_set::avx512 ? 64 : isa == sara::instruction_set::avx2 ? 32 : 16));
    }
  });
}
