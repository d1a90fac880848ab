// The divergence of rows of distributions, with the slopes of neither, one or both sides.
//
// Bytes of one element: 4 (p) + 4 (q), and 4 for each side's slopes.
#include <sara/eigen.hpp>
#include <sara/js_divergence.hpp>

#include "expected.hpp"
#include "measure.hpp"
#include "random_data.hpp"

namespace benchmarks {
namespace {

struct shape {
  index_t rows, experts;
};

constexpr const char* side_names[] = {"value", "one slope", "both slopes"};

template <class Executor> void time_one(benchmark::State& state, const Executor& exec, int threads, shape s, int sides) {
  const auto p = random_distributions(s.rows, s.experts, 1), q = random_distributions(s.rows, s.experts, 2);
  std::vector<float> divergence(static_cast<std::size_t>(s.rows)), grad_p(p.size()), grad_q(p.size());
  sara::js_divergence_outputs<float> out{.divergence = divergence};
  if (sides > 0) out.grad_q = sara::matrix_view{grad_q.data(), s.rows, s.experts};
  if (sides > 1) out.grad_p = sara::matrix_view{grad_p.data(), s.rows, s.experts};
  const double elements = static_cast<double>(p.size());
  measure(
      state, {elements, elements * 4 * (2 + sides), 4e-6, threads},
      [&] {
        sara::js_divergence_into(exec,
                                 sara::js_divergence_inputs<float>{.p = sara::matrix_view{p.data(), s.rows, s.experts},
                                                                   .q = sara::matrix_view{q.data(), s.rows, s.experts}},
                                 out);
      },
      [&] {
        const auto x = as_double(p), y = as_double(q);
        const auto experts = static_cast<std::size_t>(s.experts);
        std::vector<double> want, slope_p, slope_q;
        for (std::size_t at = 0; at < x.size(); at += experts) {
          want.push_back(oracle::js(&x[at], &y[at], experts));
          const auto of_p = oracle::js_slope_p(&x[at], &y[at], experts), of_q = oracle::js_slope_q(&x[at], &y[at], experts);
          slope_p.insert(slope_p.end(), of_p.begin(), of_p.end());
          slope_q.insert(slope_q.end(), of_q.begin(), of_q.end());
        }
        double error = largest_error(divergence, want);
        if (sides > 0) error = std::max(error, largest_error(grad_q, slope_q));
        if (sides > 1) error = std::max(error, largest_error(grad_p, slope_p));
        return error;
      });
}

void add_all(shape s, int sides, const std::vector<cpu_case>& cases) {
  const std::string head = "js_divergence/fp32/" + std::to_string(s.rows) + "x" + std::to_string(s.experts) + "/" + side_names[sides] + "/";
  for (const cpu_case& c : cases) add(head + text(c), [=](benchmark::State& state) { time_one(state, c.executor(), c.count(), s, sides); });
  add(head + "eigen", [=](benchmark::State& state) { time_one(state, sara::eigen_executor{}, 1, s, sides); });
}

}   // namespace
}   // namespace benchmarks

int main(int argc, char** argv) {
  using namespace benchmarks;
  add_all({384, 128}, 1, every_cpu_case());
  add_all({8192, 128}, 0, {{.threads = threading::one}, {}});
  add_all({8192, 128}, 1, {{.threads = threading::one}, {}});
  add_all({8192, 128}, 2, {{.threads = threading::one}, {}});
  add_all({8192, 257}, 1, {{}});
  return run(argc, argv);
}
