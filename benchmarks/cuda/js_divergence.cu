// The divergence of rows of distributions on the GPU, with the slopes of neither, one or both sides.
//
// Bytes of one element: 4 (p) + 4 (q), and 4 for each side's slopes. Its arithmetic is double: it is not bound by memory.
#include <sara/js_divergence.hpp>

#include "measure.cuh"
#include "problem.hpp"

namespace benchmarks {
namespace {

struct shape {
  index_t rows, experts;

  index_t elements() const { return rows * experts; }
};
constexpr const char* side_names[] = {"value", "one slope", "both slopes"};

timed_call rows_apart(const shape& s, int sides) {
  const double bytes = static_cast<double>(s.elements()) * 4 * (2 + sides);
  const index_t sets = sets_for(bytes);
  struct memory {
    device_array<float> p, q, divergence, grad_p, grad_q;
    std::vector<double> want, want_p, want_q;
  };
  const auto m = std::make_shared<memory>();
  const auto p = random_distributions(s.rows, s.experts, 1), q = random_distributions(s.rows, s.experts, 2);
  const auto x = as_double(p), y = as_double(q);
  const auto experts = static_cast<std::size_t>(s.experts);
  for (std::size_t at = 0; at < x.size(); at += experts) {
    m->want.push_back(oracle::js(&x[at], &y[at], experts));
    const auto of_p = oracle::js_slope_p(&x[at], &y[at], experts), of_q = oracle::js_slope_q(&x[at], &y[at], experts);
    m->want_p.insert(m->want_p.end(), of_p.begin(), of_p.end());
    m->want_q.insert(m->want_q.end(), of_q.begin(), of_q.end());
  }
  m->p = device_array<float>(p, sets);
  m->q = device_array<float>(q, sets);
  m->divergence = device_array<float>(s.rows * sets);
  m->grad_p = device_array<float>(sides > 1 ? s.elements() * sets : 0);
  m->grad_q = device_array<float>(sides > 0 ? s.elements() * sets : 0);
  return {.bytes = bytes,
          .tolerance = tolerance_of<float>,
          .sets = sets,
          .run =
              [=](index_t set, cudaStream_t stream) {
                const auto matrix = [&](const device_array<float>& a) {
                  return sara::matrix_view<float>(a.data() + set * s.elements(), s.rows, s.experts);
                };
                sara::js_divergence_outputs<float> out{.divergence = {m->divergence.data() + set * s.rows, s.rows}};
                if (sides > 0) out.grad_q = matrix(m->grad_q);
                if (sides > 1) out.grad_p = matrix(m->grad_p);
                sara::js_divergence_into(sara::cuda_executor{stream},
                                         sara::js_divergence_inputs<float>{.p = matrix(m->p), .q = matrix(m->q)}, out);
              },
          .error =
              [=](index_t set) {
                double error = largest_error(m->divergence.read(set * s.rows, s.rows), m->want);
                if (sides > 0) error = std::max(error, largest_error(m->grad_q.read(set * s.elements(), s.elements()), m->want_q));
                if (sides > 1) error = std::max(error, largest_error(m->grad_p.read(set * s.elements(), s.elements()), m->want_p));
                return error;
              }};
}

void add_all(const batch_size& size) {
  for (const shape& s : {shape{size.layers * 8, 128}, shape{8 * size.tokens, 128}})
    for (const int sides : {0, 1, 2})
      add("js_divergence/fp32/" + std::to_string(s.rows) + "x" + std::to_string(s.experts) + "/" + side_names[sides],
          [=] { return rows_apart(s, sides); });
}

}   // namespace
}   // namespace benchmarks

int main(int argc, char** argv) { return benchmarks::run(argc, argv, benchmarks::add_all); }
