// A seeded differential fuzzer: the instruction sets and Eigen against the oracle, over random shapes, layouts, weights and options
// of js_routing and of its pieces. SARA_FUZZ_SECONDS lengthens it, SARA_FUZZ_SEED starts it elsewhere; a finding names its seed.
#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/js_routing.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

#include <chrono>
#include <cstdlib>

#include "catch.hpp"
#include "oracle/evaluate.hpp"
#include "oracle/pieces.hpp"

namespace {

using oracle::block, oracle::for_each_executor;

double from_environment(const char* name, double otherwise) {
  const char* const text = std::getenv(name);
  return text ? std::atof(text) : otherwise;
}

// One random question to one operation, in storage T.
template <class T> struct round_of {
  using A = sara::arithmetic_t<T>;
  static constexpr bool exact = std::is_same_v<A, double>;
  static constexpr double epsilon = std::numeric_limits<A>::epsilon();

  std::uint64_t seed;
  oracle::source from{seed};
  std::size_t experts = from.chance(0.5) ? from.pick(oracle::expert_counts) : 1 + from.below(300);
  std::size_t tokens = from.below(1 + std::min<std::size_t>(40, 6000 / experts));
  double scale = from.pick(std::vector{1.0, -2.0, 0.125});
  int threads = 1 + static_cast<int>(from.below(3));

  oracle::placement place() {
    return {.list = false,
            .row_padding = static_cast<sara::index_t>(from.below(4)),
            .layer_padding = 0,
            .offset = static_cast<sara::index_t>(from.below(3))};
  }
  std::vector<double> logits() {
    auto z = from.normals(tokens * experts, from.pick(std::vector{0.1, 2.0, 10.0}));
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t e = 0, hidden = from.chance(0.2) ? experts / 3 : 0; e < hidden; ++e)
        z[t * experts + from.below(experts)] = -std::numeric_limits<double>::infinity();
    for (std::size_t t = 0; t < tokens; ++t) {   // at least one expert is left
      double* const row = z.data() + t * experts;
      if (*std::max_element(row, row + experts) < -1e300) row[from.below(experts)] = 0;
    }
    return oracle::rounded_to<T>(z);
  }

  void fused() {
    const auto in = oracle::rounded_to<T>(oracle::random_problem(seed, 4000));
    const oracle::posing how{.logits = place(), .others = place(), .grad = place()};
    const auto want = oracle::solve(in);
    for_each_executor(
        [&](const auto& exec, const char* name) {
          INFO(name << ", js_routing");
          const auto got = oracle::evaluate<T, A>(exec, in, how);
          const double tolerance = exact ? 1e-12 : 2e-6;
          // 1e-28: of a histogram one rounding off its anchor, where nothing else is wanted (a single expert).
          if (exact)
            CHECK((got.loss == want.loss || (std::isnan(got.loss) && std::isnan(want.loss)) ||
                   std::abs(got.loss - want.loss) <= tolerance * std::abs(want.loss) + 16 * epsilon * want.root_loss + 1e-28));
          else
            CHECK(oracle::loss_error(got.loss, want.loss, want.root_loss) <= 1);
          CHECK(oracle::relative_error(got.histograms, want.histograms) <= tolerance);
          CHECK(oracle::relative_error(got.grad, want.grad, 16 * epsilon * want.grad_floor) <= tolerance);
        },
        threads);
  }

  void softmax() {
    const auto z = logits();
    const auto g = oracle::rounded_to<A>(from.normals(z.size()));
    const auto at = place();
    std::vector<double> probs, grad, lse;
    for (std::size_t t = 0; t < tokens; ++t) {
      // In long double: at 1,024 experts a plain sum in double is not better than what it judges.
      const std::vector<long double> row(z.begin() + static_cast<std::ptrdiff_t>(t * experts),
                                         z.begin() + static_cast<std::ptrdiff_t>((t + 1) * experts));
      const auto exact_p = oracle::softmax(row.data(), experts);
      const std::vector<double> p(exact_p.begin(), exact_p.end());
      const auto d = oracle::softmax_backward(p.data(), g.data() + t * experts, experts);
      probs.insert(probs.end(), p.begin(), p.end());
      grad.insert(grad.end(), d.begin(), d.end());
      lse.push_back(oracle::log_sum_exp(z.data() + t * experts, experts));
    }
    for_each_executor(
        [&](const auto& exec, const char* name) {
          INFO(name << ", gate_softmax");
          block<T> logits(1, tokens, experts, at, z);
          block<A> p(1, tokens, experts, at), weights(1, tokens, experts, {}, g), out(1, tokens, experts, at);
          std::vector<A> sums(tokens);
          sara::gate_softmax_into(exec, sara::gate_softmax_inputs<T>{.logits = logits.matrix()},
                                  sara::gate_softmax_outputs<T, A>{.probs = p.matrix(), .log_sum_exp = sums});
          sara::gate_softmax_backward_into(exec, sara::gate_softmax_backward_inputs<A>{.probs = p.matrix(), .grad_probs = weights.matrix()},
                                           {.grad_logits = out.matrix()});
          CHECK(oracle::relative_error(p.values(), probs) <= 16 * epsilon);
          CHECK(oracle::relative_error(sums, lse, 64 * epsilon) <= 8 * epsilon);
          if (experts > 1) CHECK(oracle::relative_error(out.values(), grad, 64 * epsilon) <= 32 * epsilon);
          CHECK((p.padding_is_untouched() && out.padding_is_untouched()));
        },
        threads);
  }

  void top() {
    const std::size_t k = 1 + from.below(std::min<std::size_t>(experts, 12));
    const bool renormalize = from.chance(0.5);
    auto scores = logits();
    if (from.chance(0.5))
      for (double& s : scores) s = std::round(s);
    if (from.chance(0.2))
      for (double& s : scores)
        if (from.chance(0.1)) s = std::numeric_limits<double>::quiet_NaN();
    const auto values = oracle::rounded_to<T>(from.uniforms(scores.size(), 0.1, 1)), g = oracle::rounded_to<A>(from.normals(tokens * k));
    const auto at = place();
    std::vector<double> weights, grad;
    std::vector<std::int32_t> indices;
    for (std::size_t t = 0; t < tokens; ++t) {
      const auto chosen = oracle::top_k(scores.data() + t * experts, experts, k);
      const auto w = oracle::top_k_weights(values.data() + t * experts, chosen, renormalize, scale);
      const auto d = oracle::top_k_backward(values.data() + t * experts, experts, chosen, g.data() + t * k, renormalize, scale);
      indices.insert(indices.end(), chosen.begin(), chosen.end());
      weights.insert(weights.end(), w.begin(), w.end());
      grad.insert(grad.end(), d.begin(), d.end());
    }
    for_each_executor(
        [&](const auto& exec, const char* name) {
          INFO(name << ", top_k, k " << k << ", renormalize " << renormalize);
          block<T> s(1, tokens, experts, at, scores), v(1, tokens, experts, {}, values);
          block<A> w(1, tokens, k, at), gw(1, tokens, k, {}, g), out(1, tokens, experts, at);
          block<std::int32_t> i(1, tokens, k, at);
          sara::top_k_into(exec, sara::top_k_inputs<T, T>{.scores = s.matrix(), .values = v.matrix()},
                           sara::top_k_outputs<T>{.indices = i.matrix(), .weights = w.matrix()},
                           {.renormalize = renormalize, .scale = scale});
          CHECK(i.values() == indices);
          CHECK(oracle::relative_error(w.values(), weights) <= 8 * epsilon);
          sara::top_k_backward_into(
              exec, sara::top_k_backward_inputs<T>{.indices = i.matrix(), .grad_weights = gw.matrix(), .values = v.matrix()},
              sara::top_k_backward_outputs<T, A>{.grad_values = out.matrix()}, {.renormalize = renormalize, .scale = scale});
          if (!(renormalize && k == 1)) CHECK(oracle::relative_error(out.values(), grad, 64 * epsilon) <= 32 * epsilon);
          CHECK((i.padding_is_untouched() && w.padding_is_untouched() && out.padding_is_untouched()));
        },
        threads);
  }

  void histograms() {
    const auto batches = oracle::token_batches();
    const oracle::token_batch& batch = batches[from.below(batches.size())];
    tokens = batch.tokens;
    const std::size_t k = 1 + from.below(4);
    const auto z = logits();
    auto masks = oracle::rounded_to<A>(from.uniforms(tokens, 0.25, 2));
    for (double& m : masks) m = from.chance(0.3) ? 0 : m;
    std::vector<std::int64_t> chosen(tokens * k);
    for (auto& e : chosen) e = static_cast<std::int64_t>(from.below(experts + 2)) - 1;
    const auto routed = oracle::rounded_to<T>(from.uniforms(chosen.size(), 0, 1)),
               g = oracle::rounded_to<A>(from.normals(batch.sequences() * experts));
    const auto at = place();
    std::vector<double> soft, hard, grad(tokens * experts, 0);
    std::vector<std::int64_t> counts;
    for (std::size_t s = 0; s < batch.sequences(); ++s) {
      const auto h = oracle::histogram(z.data(), experts, batch.rows[s], masks);
      const auto c = oracle::hard_histogram(chosen.data(), k, experts, batch.rows[s], masks, routed);
      for (const double x : h.sums) soft.push_back(h.mass == 0 ? 0 : x / h.mass);
      hard.insert(hard.end(), c.sums.begin(), c.sums.end());
      counts.insert(counts.end(), c.counts.begin(), c.counts.end());
      for (const std::size_t t : batch.rows[s]) {
        const auto p = oracle::softmax(z.data() + t * experts, experts);
        const auto d = oracle::softmax_backward(p.data(), g.data() + s * experts, experts);
        for (std::size_t e = 0; e < experts && masks[t] != 0 && experts > 1; ++e) grad[t * experts + e] = scale * masks[t] / h.mass * d[e];
      }
    }
    for_each_executor(
        [&](const auto& exec, const char* name) {
          INFO(name << ", histograms, " << batch.name << ", k " << k);
          block<T> logits(1, tokens, experts, at, z), w(1, tokens, k, at, routed);
          block<std::int64_t> i(1, tokens, k, at, std::vector<double>(chosen.begin(), chosen.end())), n(1, batch.sequences(), experts, at);
          block<A> h(1, batch.sequences(), experts, at), sums(1, batch.sequences(), experts, at),
              slopes(1, batch.sequences(), experts, at, g), out(1, tokens, experts, at);
          const auto m = oracle::as_storage<A>(masks);
          sara::routing_histogram_into(
              exec, sara::routing_histogram_inputs<T>{.logits = logits.view(), .sequences = batch.view, .token_weights = m},
              {.histograms = h.view()});
          sara::hard_routing_histogram_into(
              exec,
              sara::hard_routing_histogram_inputs<T, std::int64_t>{.indices = i.view(),
                                                                   .experts = static_cast<sara::index_t>(experts),
                                                                   .sequences = batch.view,
                                                                   .token_weights = m,
                                                                   .weights = w.view()},
              {.sums = sums.view(), .counts = n.view()});
          sara::routing_histogram_backward_into(
              exec,
              sara::routing_histogram_backward_inputs<T>{
                  .logits = logits.view(), .sequences = batch.view, .token_weights = m, .grad_histograms = slopes.view()},
              sara::routing_histogram_backward_outputs<T, A>{.grad_logits = out.view()}, {.scale = scale});
          CHECK(oracle::relative_error(h.values(), soft) <= 32 * epsilon);
          CHECK(oracle::relative_error(sums.values(), hard) <= 32 * epsilon);
          CHECK(n.values() == counts);
          CHECK(oracle::relative_error(out.values(), grad, 64 * epsilon) <= 32 * epsilon);
          CHECK((h.padding_is_untouched() && sums.padding_is_untouched() && out.padding_is_untouched()));
        },
        threads);
  }

  void divergence() {
    auto p = oracle::distributions(from, tokens, experts, 2), q = p;
    const double apart = from.pick(std::vector{1e-6, 1e-3, 1.0});
    for (double& x : q) x = from.chance(0.1) ? 0 : x * std::exp(apart * from.normal());
    p = oracle::rounded_to<T>(p);
    q = oracle::rounded_to<T>(q);
    const auto at = place();
    for_each_executor(
        [&](const auto& exec, const char* name) {
          INFO(name << ", js_divergence, apart " << apart);
          block<T> a(1, tokens, experts, at, p), b(1, tokens, experts, at, q);
          block<A> slopes(1, tokens, experts, at);
          std::vector<A> got(tokens), swapped(tokens);
          sara::js_divergence_into(exec, sara::js_divergence_inputs<T>{.p = a.matrix(), .q = b.matrix()},
                                   {.divergence = got, .grad_q = slopes.matrix()});
          sara::js_divergence_into(exec, sara::js_divergence_inputs<T>{.p = b.matrix(), .q = a.matrix()}, {.divergence = swapped});
          CHECK(oracle::same_bits(got, swapped));
          const auto all = slopes.values();
          for (std::size_t t = 0; t < tokens; ++t) {
            const auto row = [&](const std::vector<double>& v) {
              return std::vector<long double>(v.begin() + static_cast<std::ptrdiff_t>(t * experts),
                                              v.begin() + static_cast<std::ptrdiff_t>((t + 1) * experts));
            };
            const auto wide_p = row(p), wide_q = row(q);
            const auto want = static_cast<double>(oracle::js(wide_p.data(), wide_q.data(), experts));
            const auto slope = oracle::js_slope_q(wide_p.data(), wide_q.data(), experts);
            CHECK(std::abs(static_cast<double>(got[t]) - want) <= want * (exact ? 5e-14 : 1e-6));
            CHECK(oracle::relative_error(std::vector<A>(all.begin() + static_cast<std::ptrdiff_t>(t * experts),
                                                        all.begin() + static_cast<std::ptrdiff_t>((t + 1) * experts)),
                                         std::vector<double>(slope.begin(), slope.end())) <= 4 * epsilon);
          }
        },
        threads);
  }

  void run() {
    INFO("SARA_FUZZ_SEED=" << seed << ", "
                           << (exact            ? "double"
                               : sizeof(T) == 4 ? "float"
                                                : "bf16")
                           << ", experts " << experts << ", tokens " << tokens << ", threads " << threads);
    switch (seed / 3 % 5) {
      case 0:
        return fused();
      case 1:
        return softmax();
      case 2:
        return top();
      case 3:
        return histograms();
      default:
        return divergence();
    }
  }
};

void run_seed(std::uint64_t seed) {
  switch (seed % 3) {
    case 0:
      return round_of<float>{seed}.run();
    case 1:
      return round_of<double>{seed}.run();
    default:
      return round_of<sara::bf16>{seed}.run();
  }
}

}   // namespace

TEST_CASE("fuzz: instruction sets, Eigen and the oracle agree", "[fuzz]") {
  const auto begin = std::chrono::steady_clock::now();
  const double seconds = from_environment("SARA_FUZZ_SECONDS", 5);
  const auto first = static_cast<std::uint64_t>(from_environment("SARA_FUZZ_SEED", 1));
  std::uint64_t seed = first;
  // At least one of every operation in every storage, however slow the machine.
  for (; seed < first + 15 || std::chrono::steady_clock::now() - begin < std::chrono::duration<double>(seconds); ++seed) run_seed(seed);
  INFO("seeds " << first << " to " << seed);
  CHECK(seed >= first + 15);
}
