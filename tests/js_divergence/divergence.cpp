// js_divergence of rows against long double: from disjoint rows down to rows 1e-12 apart, symmetric, never negative.
#include <sara/js_divergence.hpp>

#include "catch.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;

constexpr long double ln2 = 0.693147180559945309417232121458L;

// Pairs of rows whose divergence runs from ln 2 down to below 1e-12, as T holds them.
struct pairs {
  std::size_t rows = 0, experts;
  std::vector<double> p, q;

  template <class T> static pairs make(std::size_t experts, T) {
    oracle::source from(experts);
    pairs all{0, experts, {}, {}};
    const auto add = [&](const std::vector<double>& a, const std::vector<double>& b) {
      all.p.insert(all.p.end(), a.begin(), a.end());
      all.q.insert(all.q.end(), b.begin(), b.end());
      ++all.rows;
    };
    for (const double apart : {8.0, 2.0, 1.0, 0.3, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 2e-6}) {
      const auto z = from.normals(experts, 2), d = from.normals(experts, apart);
      auto moved = z;
      for (std::size_t e = 0; e < experts; ++e) moved[e] += d[e];
      add(oracle::softmax(z.data(), experts), oracle::softmax(moved.data(), experts));
    }
    // disjoint, half disjoint, and one all but absent
    std::vector<double> left(experts, 0), right(experts, 0), tiny(experts, 1e-30);
    for (std::size_t e = 0; e < experts; ++e) (e % 2 ? left : right)[e] = 2.0 / static_cast<double>(experts);
    tiny[experts / 2] = 1;
    if (experts % 2 == 0) {
      add(left, right);
      add(right, std::vector<double>(experts, 1.0 / static_cast<double>(experts)));
    }
    add(tiny, std::vector<double>(experts, 1.0 / static_cast<double>(experts)));
    all.p = oracle::rounded_to<T>(all.p);
    all.q = oracle::rounded_to<T>(all.q);
    return all;
  }
};

template <class T, class Executor>
std::vector<sara::arithmetic_t<T>> divergence_of(const Executor& exec, const std::vector<double>& p, const std::vector<double>& q,
                                                 std::size_t experts) {
  const std::size_t rows = p.size() / experts;
  block<T> a(1, rows, experts, oracle::apart, p), b(1, rows, experts, oracle::apart, q);
  std::vector<sara::arithmetic_t<T>> out(rows, NAN);
  sara::js_divergence_into(exec, sara::js_divergence_inputs<T>{.p = a.matrix(), .q = b.matrix()}, {.divergence = out});
  return out;
}

double worst_relative(const std::vector<double>& got, const std::vector<long double>& want) {
  double worst = 0;
  for (std::size_t r = 0; r < want.size(); ++r) {
    const double error =
        want[r] == 0 ? (got[r] == 0 ? 0 : HUGE_VAL) : static_cast<double>(std::abs(static_cast<long double>(got[r]) - want[r]) / want[r]);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

}   // namespace

TEMPLATE_TEST_CASE("js_divergence: relative error from ln 2 down to 1e-12", "[js_divergence][precision]", double, float, sara::bf16,
                   sara::fp16) {
  double least = 1, largest = 0;
  for (const std::size_t experts : oracle::expert_counts) {
    const pairs in = pairs::make(experts, TestType{});
    const std::vector<long double> p(in.p.begin(), in.p.end()), q(in.q.begin(), in.q.end());
    std::vector<long double> want;
    for (std::size_t r = 0; r < in.rows; ++r) {
      want.push_back(oracle::js(p.data() + r * experts, q.data() + r * experts, experts));
      if (want.back() > 0) least = std::min(least, static_cast<double>(want.back()));
      largest = std::max(largest, static_cast<double>(want.back()));
    }
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      const auto got = oracle::as_doubles(divergence_of<TestType>(exec, in.p, in.q, experts));
      CHECK(worst_relative(got, want) <= (std::is_same_v<TestType, double> ? (experts <= 128 ? 1e-14 : 5e-14)
                                          : experts <= 128                 ? 1e-6
                                                                           : 3e-6));
      for (const double factor : {0.0, 2.0, -1.0, 1.00001}) {   // what must not pass
        auto wrong = got;
        for (double& x : wrong) x *= factor;
        if (largest > 0 && experts > 1) CHECK(worst_relative(wrong, want) > 3e-6);
      }
    });
  }
  if (!std::is_same_v<sara::arithmetic_t<TestType>, TestType>) return;
  CHECK(least < 1e-11);
  CHECK(largest > 0.69);
}

TEMPLATE_TEST_CASE("js_divergence: of distributions a hair apart", "[js_divergence][precision]", double, float) {
  // p and q share their largest part; the rest moves by units of the storage, down to a divergence of about 1e-12.
  for (const std::size_t experts : {std::size_t{2}, std::size_t{16}, std::size_t{128}, std::size_t{1024}})
    for (const double apart : {1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 2e-6}) {
      oracle::source from(experts);
      auto p = oracle::distributions(from, 1, experts), q = p;
      for (std::size_t e = 0; e + 1 < experts; e += 2) {
        const double d = apart * std::min(p[e], p[e + 1]);
        q[e] += d;
        q[e + 1] -= d;
      }
      p = oracle::rounded_to<TestType>(p);
      q = oracle::rounded_to<TestType>(q);
      const std::vector<long double> wide_p(p.begin(), p.end()), wide_q(q.begin(), q.end());
      const std::vector<long double> want{oracle::js(wide_p.data(), wide_q.data(), experts)};
      for_each_executor([&](const auto& exec, const char* name) {
        INFO(name << ", experts " << experts << ", divergence " << static_cast<double>(want[0]));
        CHECK(worst_relative(oracle::as_doubles(divergence_of<TestType>(exec, p, q, experts)), want) <=
              (std::is_same_v<TestType, double> ? (experts <= 128 ? 1e-14 : 5e-14)
               : experts <= 128                 ? 1e-6
                                                : 3e-6));
      });
    }
}

TEMPLATE_TEST_CASE("js_divergence: symmetric bit by bit, never negative, at most ln 2 and a unit", "[js_divergence][precision]", double,
                   float, sara::bf16, sara::fp16) {
  using A = sara::arithmetic_t<TestType>;
  for (const std::size_t experts : oracle::expert_counts) {
    pairs in = pairs::make(experts, TestType{});
    oracle::source from(99);
    for (const double sigma : {0.01, 1.0, 4.0, 30.0}) {
      const auto p = oracle::rounded_to<TestType>(oracle::distributions(from, 20, experts, sigma)),
                 q = oracle::rounded_to<TestType>(oracle::distributions(from, 20, experts, sigma));
      in.p.insert(in.p.end(), p.begin(), p.end());
      in.q.insert(in.q.end(), q.begin(), q.end());
    }
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      const auto pq = divergence_of<TestType>(exec, in.p, in.q, experts), qp = divergence_of<TestType>(exec, in.q, in.p, experts);
      CHECK(oracle::same_bits(pq, qp));
      // Rounded rows do not sum to 1: ln 2 times the mean of their sums bounds them. In double the sum over experts rounds too.
      std::size_t wrong = 0;
      for (std::size_t r = 0; r < pq.size(); ++r) {
        double mass = 0;
        for (std::size_t e = 0; e < experts; ++e) mass += (in.p[r * experts + e] + in.q[r * experts + e]) / 2;
        const double bound = static_cast<double>(ln2) * std::max(mass, 1.0);
        wrong +=
            !(pq[r] >= 0 && static_cast<double>(pq[r]) <= bound + (std::is_same_v<TestType, double> ? 1e-14 : oracle::unit_of<A>(bound)));
      }
      CHECK(wrong == 0);
    });
  }
}

TEST_CASE("js_divergence: rows that are no distributions are taken as they are", "[js_divergence][precision]") {
  for_each_executor([](const auto& exec, const char* name) {
    INFO(name);
    const std::vector<double> p{0, 0, 0, 3, 1, 0.5}, q{0, 0, 0, 1, 5, 0.5};
    const auto got = divergence_of<double>(exec, p, q, 3);
    CHECK(got[0] == 0);
    CHECK(std::abs(got[1] - oracle::js(p.data() + 3, q.data() + 3, 3)) <= 1e-14);
  });
}

TEMPLATE_TEST_CASE("js_divergence: a NaN stays in its row", "[js_divergence]", double, float) {
  for (const std::size_t experts : {std::size_t{1}, std::size_t{3}, std::size_t{8}, std::size_t{65}})
    for_each_executor([&](const auto& exec, const char* name) {
      INFO(name << ", experts " << experts);
      oracle::source from(3);
      auto p = oracle::distributions(from, 5, experts), q = oracle::distributions(from, 5, experts);
      p[1 * experts + experts / 2] = NAN;
      q[3 * experts + experts - 1] = NAN;
      const auto got = divergence_of<TestType>(exec, p, q, experts);
      for (std::size_t r = 0; r < 5; ++r) CHECK(std::isnan(got[r]) == (r == 1 || r == 3));
    });
}
