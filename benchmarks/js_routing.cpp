// The fused loss: value and gradient, gradient accumulated, value alone; on the CPU's kernels and on Eigen's.
//
// Bytes, of one element of logits (T) and gradient (G): overwrite T + G, accumulate T + 2 G, value alone T. Histograms, anchors
// and slopes ([layers, sequences, experts]) are left out: they are 1 / tokens of it.
#include <sara/eigen.hpp>
#include <sara/js_divergence.hpp>
#include <sara/js_routing.hpp>

#include <chrono>
#include <map>

#include "expected.hpp"
#include "measure.hpp"
#include "random_data.hpp"

namespace benchmarks {
namespace {

enum class kind { overwrite, accumulate, value };
constexpr const char* kind_names[] = {"overwrite", "accumulate", "value"};

template <class T, class G>
constexpr const char* storage_name = std::is_same_v<T, float>   ? "fp32"
                                     : std::is_same_v<G, float> ? "bf16-fp32"
                                                                : "bf16";

template <class T> struct problem {
  explicit problem(const routing_shape& s)
      : shape(s),
        logits(random_logits<T>(s.elements(), 1)),
        anchors(random_distributions(s.layers * s.sequences, s.experts, 2)),
        want(expect_routing(s, logits, anchors)) {}

  sara::js_routing_inputs<T> inputs() const {
    return {.logits = sara::layers_view<const T>(logits.data(), shape.layers, shape.tokens(), shape.experts),
            .sequences = sara::sequences_view::uniform(shape.sequences, shape.length),
            .anchors = sara::layers_view<const float>(anchors.data(), shape.layers, shape.sequences, shape.experts)};
  }

  routing_shape shape;
  std::vector<T> logits;
  std::vector<float> anchors;
  oracle::result<double> want;
};

// Made when it is first timed, and kept for the other executors.
template <class T> const problem<T>& problem_of(const routing_shape& shape) {
  static std::map<routing_shape, problem<T>> known;
  return known.try_emplace(shape, shape).first->second;
}

double seconds_of(const std::function<void()>& call) {
  std::vector<double> seconds(20);
  for (double& s : seconds) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  std::nth_element(seconds.begin(), seconds.begin() + 10, seconds.end());
  return seconds[10];
}

// The step on [experts] alone, from finished histograms to divergences and slopes.
double seconds_of_step(const sara::cpu_executor& exec, const problem<float>& p) {
  const index_t rows = p.shape.layers * p.shape.sequences, experts = p.shape.experts;
  const std::vector<float> histograms(p.want.histograms.begin(), p.want.histograms.end());
  std::vector<float> divergence(static_cast<std::size_t>(rows)), slopes(histograms.size());
  return seconds_of([&] {
    sara::js_divergence_into(exec,
                             sara::js_divergence_inputs<float>{.p = sara::matrix_view{p.anchors.data(), rows, experts},
                                                               .q = sara::matrix_view{histograms.data(), rows, experts}},
                             {.divergence = divergence, .grad_q = sara::matrix_view{slopes.data(), rows, experts}});
  });
}

template <class T, class G, class Executor>
void time_one(benchmark::State& state, const Executor& exec, int threads, const routing_shape& shape, kind what) {
  const problem<T>& p = problem_of<T>(shape);
  std::vector<float> loss(1);
  std::vector<G> gradient(what == kind::value ? 0 : p.logits.size(), G(1.0f)), before;
  if (what == kind::accumulate) {   // as large as the gradient, so that the check sees both
    const float size = 1.0f / static_cast<float>(shape.layers * shape.tokens() * shape.experts);
    for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] = G(size * sara::load_value(p.logits[gradient.size() - 1 - i]));
    before = gradient;
  }

  sara::js_routing_outputs<T, G> out{.loss = loss};
  if (what != kind::value) out.grad_logits = sara::layers_view<G>(gradient.data(), shape.layers, shape.tokens(), shape.experts);
  const sara::js_routing_options options{.mode =
                                             what == kind::accumulate ? sara::gradient_mode::accumulate : sara::gradient_mode::overwrite};

  const double elements = static_cast<double>(shape.elements());
  const double bytes = sizeof(T) + (what == kind::value ? 0.0 : what == kind::accumulate ? 2.0 * sizeof(G) : 1.0 * sizeof(G));
  const double tolerance = std::is_same_v<G, float> ? 4e-6 : 8e-3;   // of bf16: half a unit in its last place is 2^-9
  measure(
      state, {.elements = elements, .bytes = elements * bytes, .tolerance = tolerance, .threads = threads},
      [&] { sara::js_routing_into(exec, p.inputs(), out, options); },
      [&] {
        const double of_loss = std::fabs(static_cast<double>(loss[0]) - p.want.loss) / p.want.loss;
        if (what == kind::value || !(of_loss <= 4e-6)) return of_loss <= 4e-6 ? of_loss : INFINITY;
        if (what == kind::overwrite) return largest_error(gradient, p.want.grad);
        std::vector<double> want = as_double(before);
        for (std::size_t i = 0; i < want.size(); ++i) want[i] += p.want.grad[i];
        return largest_error(gradient, want);
      });
}

template <class T, class G> void add_cpu(const routing_shape& shape, kind what, const cpu_case& c) {
  add(std::string("js_routing/") + storage_name<T, G> + "/" + text(shape) + "/" + kind_names[static_cast<int>(what)] + "/" + text(c),
      [=](benchmark::State& state) {
        time_one<T, G>(state, c.executor(), c.count(), shape, what);
        if constexpr (std::is_same_v<T, float>)
          if (shape.length <= 256)   // where the step on [experts] is no longer small
            state.counters["step %"] = benchmark::Counter(100 * seconds_of_step(c.executor(), problem_of<float>(shape)),
                                                          benchmark::Counter::kIsIterationInvariantRate);
      });
}

template <class T, class G> void add_eigen(const routing_shape& shape, kind what) {
  add(std::string("js_routing/") + storage_name<T, G> + "/" + text(shape) + "/" + kind_names[static_cast<int>(what)] + "/eigen",
      [=](benchmark::State& state) { time_one<T, G>(state, sara::eigen_executor{}, 1, shape, what); });
}

void add_all() {
  constexpr routing_shape small{1, 8, 1024, 128}, large{1, 8, 4096, 256};
  add_copies({static_cast<std::size_t>(small.elements()) * 4, static_cast<std::size_t>(small.elements()) * 8,
              static_cast<std::size_t>(large.elements()) * 4, static_cast<std::size_t>(large.elements()) * 8});

  for (const auto& shape : {small, large}) {
    for (const cpu_case& c : every_cpu_case()) {
      add_cpu<float, float>(shape, kind::overwrite, c);
      add_cpu<sara::bf16, float>(shape, kind::overwrite, c);
      add_cpu<sara::bf16, sara::bf16>(shape, kind::overwrite, c);
    }
    for (const kind what : {kind::accumulate, kind::value}) {
      add_cpu<float, float>(shape, what, {});
      add_cpu<sara::bf16, float>(shape, what, {});
      add_cpu<sara::bf16, sara::bf16>(shape, what, {});
    }
    for (const kind what : {kind::overwrite, kind::accumulate, kind::value}) add_eigen<float, float>(shape, what);
  }

  // Models: all MoE layers in one call.
  constexpr routing_shape qwen3{48, 4, 256, 128}, phi35{32, 4, 1024, 16}, deepseek_v3{58, 4, 128, 256};
  for (const auto& shape : {qwen3, phi35, deepseek_v3}) {
    add_cpu<float, float>(shape, kind::overwrite, {});
    add_cpu<sara::bf16, float>(shape, kind::overwrite, {});
    add_cpu<sara::bf16, sara::bf16>(shape, kind::overwrite, {});
    add_eigen<float, float>(shape, kind::overwrite);
  }

  // Odd numbers of experts beside their round neighbours (128 is above).
  for (const index_t experts : {60, 64, 129, 256, 257, 384, 385}) {
    add_cpu<float, float>({1, 8, 1024, experts}, kind::overwrite, {});
    add_cpu<sara::bf16, sara::bf16>({1, 8, 1024, experts}, kind::overwrite, {});
  }

  // Short sequences, on one thread.
  for (const index_t experts : {128, 256})
    for (const index_t length : {32, 256})
      add_cpu<float, float>({1, 8192 / length, length, experts}, kind::overwrite, {.threads = threading::one});

  // One sequence on two threads.
  for (const auto threads : {threading::one, threading::pool})
    add_cpu<float, float>({1, 1, 8192, 128}, kind::overwrite, {.threads = threads});
}

}   // namespace
}   // namespace benchmarks

int main(int argc, char** argv) {
  benchmarks::add_all();
  return benchmarks::run(argc, argv);
}
