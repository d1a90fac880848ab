// The hot kernels, each on one small problem, for callgrind to count: it collects inside of `measured` alone, so neither the start
// of the process nor the making of the problem counts.
//
// Without an argument it lists the cases, one a line; with the name of one it runs it. Ends with 0 if the case did real work, 1 if not,
// 2 for a wrong argument, 77 where the case's instruction set is missing.
#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/js_routing.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

using sara::gradient_mode;
using sara::index_t;

// The statement after the call keeps it from becoming a jump, on which callgrind would leave this function.
extern "C" [[gnu::noinline]] void measured(const std::function<void()>& call) {
  call();
  asm volatile("" ::: "memory");
}

namespace {

constexpr index_t sequences = 4, length = 64, tokens = sequences * length;

// Standard deviation 2, as a trained router's logits: a sum of four whole numbers, since the functions of <random> and <cmath> may
// change their last bits, and top_k's count with them, from one system to the next.
double draw(std::mt19937_64& bits) {
  const std::uint64_t four = bits();
  const auto sum = static_cast<double>((four & 0xffff) + ((four >> 16) & 0xffff) + ((four >> 32) & 0xffff) + (four >> 48));
  return (sum - 131070) / 18919;
}

template <class T> std::vector<T> random_values(index_t size, unsigned seed) {
  std::mt19937_64 bits(seed);
  std::vector<T> values(static_cast<std::size_t>(size));
  for (T& x : values) x = T(static_cast<sara::arithmetic_t<T>>(draw(bits)));
  return values;
}

// Rows of positive numbers that sum to 1.
template <class T> std::vector<T> random_distributions(index_t rows, index_t experts, unsigned seed) {
  std::vector<T> values = random_values<T>(rows * experts, seed);
  for (auto row = values.begin(); row != values.end(); row += experts) {
    T sum = 0;
    for (auto x = row; x != row + experts; ++x) sum += * x = *x * *x + T(0.01);
    for (auto x = row; x != row + experts; ++x) *x /= sum;
  }
  return values;
}

template <class T> T untouched(gradient_mode mode = gradient_mode::overwrite) {
  if constexpr (std::is_integral_v<T>)
    return -1;
  else
    return T(mode == gradient_mode::accumulate ? 0x1p-14f : std::numeric_limits<float>::quiet_NaN());
}
template <class T> std::vector<T> untouched(index_t size, gradient_mode mode = gradient_mode::overwrite) {
  return std::vector<T>(static_cast<std::size_t>(size), untouched<T>(mode));
}

// What a call wrote: is all of it finite, and most of it neither 0 nor what was there before?
template <class T> bool is_work(const std::vector<T>& values, gradient_mode mode = gradient_mode::overwrite) {
  const auto number = [](T x) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<double>(x);
    else
      return static_cast<double>(sara::load_value(x));
  };
  const double before = number(untouched<T>(mode));
  std::size_t changed = 0;
  for (const T& x : values) {
    if (!std::isfinite(number(x))) return false;
    if (number(x) != 0 && number(x) != before) ++changed;
  }
  return changed > values.size() / 2;
}

template <class T> bool js_routing(const sara::cpu_executor& exec, index_t experts, gradient_mode mode) {
  using A = sara::arithmetic_t<T>;
  const std::vector<T> logits = random_values<T>(tokens * experts, 1);
  const std::vector<A> anchors = random_distributions<A>(sequences, experts, 2);
  std::vector<A> loss = untouched<A>(1);
  std::vector<T> grad = untouched<T>(tokens * experts, mode);
  measured([&] {
    sara::js_routing_into(exec,
                          sara::js_routing_inputs<T>{.logits = sara::matrix_view{logits.data(), tokens, experts},
                                                     .sequences = sara::sequences_view::uniform(sequences, length),
                                                     .anchors = sara::matrix_view{anchors.data(), sequences, experts}},
                          {.loss = loss, .grad_logits = sara::matrix_view{grad.data(), tokens, experts}}, {.mode = mode});
  });
  return is_work(loss) && is_work(grad, mode);
}

// Sequences of many lengths, one of them empty, and every eighth token hidden.
bool js_routing_packed(const sara::cpu_executor& exec, index_t experts) {
  const std::vector<std::int32_t> offsets = {0, 7, 7, 40, 137, 200, 256};
  const index_t ragged = static_cast<index_t>(offsets.size()) - 1;
  const std::vector<float> logits = random_values<float>(tokens * experts, 1), anchors = random_distributions<float>(ragged, experts, 2);
  std::vector<float> weights(tokens), loss = untouched<float>(1), grad = untouched<float>(tokens * experts);
  for (std::size_t t = 0; t < weights.size(); ++t) weights[t] = t % 8 == 5 ? 0.0f : 0.5f + static_cast<float>(t % 3);
  measured([&] {
    sara::js_routing_into(exec,
                          sara::js_routing_inputs<float>{.logits = sara::matrix_view{logits.data(), tokens, experts},
                                                         .sequences = sara::sequences_view::packed(offsets),
                                                         .anchors = sara::matrix_view{anchors.data(), ragged, experts},
                                                         .token_weights = weights},
                          {.loss = loss, .grad_logits = sara::matrix_view{grad.data(), tokens, experts}});
  });
  return is_work(loss) && is_work(grad);
}

bool gate_softmax(const sara::cpu_executor& exec, index_t experts) {
  const std::vector<float> logits = random_values<float>(tokens * experts, 1);
  std::vector<float> probs = untouched<float>(tokens * experts), log_sum_exp = untouched<float>(tokens);
  measured([&] {
    sara::gate_softmax_into(exec, sara::gate_softmax_inputs<float>{.logits = {logits.data(), tokens, experts}},
                            {.probs = sara::matrix_view{probs.data(), tokens, experts}, .log_sum_exp = log_sum_exp});
  });
  return is_work(probs) && is_work(log_sum_exp);
}

bool gate_softmax_backward(const sara::cpu_executor& exec, index_t experts) {
  const std::vector<float> probs = random_distributions<float>(tokens, experts, 1), slopes = random_values<float>(tokens * experts, 2),
                           of_log_sum_exp = random_values<float>(tokens, 3);
  std::vector<float> grad = untouched<float>(tokens * experts);
  measured([&] {
    sara::gate_softmax_backward_into(
        exec,
        sara::gate_softmax_backward_inputs<float>{
            .probs = {probs.data(), tokens, experts}, .grad_probs = {slopes.data(), tokens, experts}, .grad_log_sum_exp = of_log_sum_exp},
        {.grad_logits = sara::matrix_view{grad.data(), tokens, experts}});
  });
  return is_work(grad);
}

bool top_k(const sara::cpu_executor& exec, index_t k, index_t experts) {
  const std::vector<float> scores = random_values<float>(tokens * experts, 1);
  std::vector<std::int32_t> indices = untouched<std::int32_t>(tokens * k);
  std::vector<float> weights = untouched<float>(tokens * k);
  measured([&] {
    sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = {scores.data(), tokens, experts}},
                     {.indices = sara::matrix_view{indices.data(), tokens, k}, .weights = {weights.data(), tokens, k}});
  });
  return is_work(indices) && is_work(weights);
}

bool routing_histogram(const sara::cpu_executor& exec, index_t experts) {
  const std::vector<float> logits = random_values<float>(tokens * experts, 1);
  std::vector<float> histograms = untouched<float>(sequences * experts);
  measured([&] {
    sara::routing_histogram_into(exec,
                                 sara::routing_histogram_inputs<float>{.logits = sara::matrix_view{logits.data(), tokens, experts},
                                                                       .sequences = sara::sequences_view::uniform(sequences, length)},
                                 {.histograms = sara::matrix_view{histograms.data(), sequences, experts}});
  });
  return is_work(histograms);
}

bool routing_histogram_backward(const sara::cpu_executor& exec, index_t experts) {
  const std::vector<float> logits = random_values<float>(tokens * experts, 1), slopes = random_values<float>(sequences * experts, 2);
  std::vector<float> grad = untouched<float>(tokens * experts);
  measured([&] {
    sara::routing_histogram_backward_into(
        exec,
        sara::routing_histogram_backward_inputs<float>{.logits = sara::matrix_view{logits.data(), tokens, experts},
                                                       .sequences = sara::sequences_view::uniform(sequences, length),
                                                       .grad_histograms = sara::matrix_view{slopes.data(), sequences, experts}},
        {.grad_logits = sara::matrix_view{grad.data(), tokens, experts}});
  });
  return is_work(grad);
}

bool hard_routing_histogram(const sara::cpu_executor& exec, index_t k, index_t experts) {
  std::mt19937_64 bits(1);
  std::vector<std::int32_t> indices(static_cast<std::size_t>(tokens * k));
  for (auto& e : indices) e = static_cast<std::int32_t>(bits() % static_cast<std::uint64_t>(experts));
  const std::vector<float> weights = random_distributions<float>(tokens, k, 2);
  std::vector<float> histograms = untouched<float>(sequences * experts);
  measured([&] {
    sara::hard_routing_histogram_into(
        exec,
        sara::hard_routing_histogram_inputs<float, std::int32_t>{.indices = sara::matrix_view{indices.data(), tokens, k},
                                                                 .experts = experts,
                                                                 .sequences = sara::sequences_view::uniform(sequences, length),
                                                                 .weights = sara::matrix_view{weights.data(), tokens, k}},
        {.histograms = sara::matrix_view{histograms.data(), sequences, experts}});
  });
  return is_work(histograms);
}

bool js_divergence(const sara::cpu_executor& exec, index_t experts) {
  const std::vector<float> p = random_distributions<float>(tokens, experts, 1), q = random_distributions<float>(tokens, experts, 2);
  std::vector<float> divergence = untouched<float>(tokens), grad_p = untouched<float>(tokens * experts), grad_q = grad_p;
  measured([&] {
    sara::js_divergence_into(
        exec, sara::js_divergence_inputs<float>{.p = {p.data(), tokens, experts}, .q = {q.data(), tokens, experts}},
        {.divergence = divergence, .grad_p = {grad_p.data(), tokens, experts}, .grad_q = {grad_q.data(), tokens, experts}});
  });
  return is_work(divergence) && is_work(grad_p) && is_work(grad_q);
}

struct kernel_case {
  std::string name;
  sara::instruction_set isa;
  std::function<bool(const sara::cpu_executor&)> run;
};

// Not AVX-512, which valgrind does not know.
std::vector<kernel_case> every_case() {
  std::vector<kernel_case> all;
  for (const auto isa : {sara::instruction_set::vector128, sara::instruction_set::avx2}) {
    const auto add = [&](const std::string& name, auto run) { all.push_back({name + "/" + sara::name_of(isa), isa, run}); };
    for (const index_t experts : {128, 60})
      for (const auto mode : {gradient_mode::overwrite, gradient_mode::accumulate}) {
        const std::string rest = "/" + std::to_string(experts) + (mode == gradient_mode::overwrite ? "/overwrite" : "/accumulate");
        add("js_routing/fp32" + rest, [=](const auto& exec) { return js_routing<float>(exec, experts, mode); });
        add("js_routing/bf16" + rest, [=](const auto& exec) { return js_routing<sara::bf16>(exec, experts, mode); });
        add("js_routing/double" + rest, [=](const auto& exec) { return js_routing<double>(exec, experts, mode); });
      }
    add("js_routing/packed/128", [](const auto& exec) { return js_routing_packed(exec, 128); });
    add("gate_softmax/forward/128", [](const auto& exec) { return gate_softmax(exec, 128); });
    add("gate_softmax/backward/128", [](const auto& exec) { return gate_softmax_backward(exec, 128); });
    add("top_k/8_of_128", [](const auto& exec) { return top_k(exec, 8, 128); });
    add("top_k/6_of_64", [](const auto& exec) { return top_k(exec, 6, 64); });
    add("routing_histogram/forward/128", [](const auto& exec) { return routing_histogram(exec, 128); });
    add("routing_histogram/backward/128", [](const auto& exec) { return routing_histogram_backward(exec, 128); });
    add("js_divergence/128", [](const auto& exec) { return js_divergence(exec, 128); });
    if (isa == sara::instruction_set::vector128)   // plain code, the same for all
      add("routing_histogram/hard/8_of_128", [](const auto& exec) { return hard_routing_histogram(exec, 8, 128); });
  }
  return all;
}

}   // namespace

int main(int argc, char** argv) {
  const std::vector<kernel_case> cases = every_case();
  if (argc == 1)
    for (const kernel_case& c : cases) std::printf("%s\n", c.name.c_str());
  if (argc == 1) return 0;
  for (const kernel_case& c : cases) {
    if (argc != 2 || c.name != argv[1]) continue;
    if (!sara::is_supported(c.isa)) {
      std::fprintf(stderr, "test_instructions: there is no %s here\n", sara::name_of(c.isa));
      return 77;
    }
    if (c.run({.threads = 1, .isa = c.isa})) return 0;
    std::fprintf(stderr, "test_instructions: %s did no real work: its outputs are not finite, or hardly written\n", c.name.c_str());
    return 1;
  }
  std::fprintf(stderr, "test_instructions: takes the name of one case, or nothing to list them; there is no case '%s'\n", argv[1]);
  return 2;
}
