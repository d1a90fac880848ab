// Who runs in the race: one small interface, one file a library.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "../expected.hpp"

namespace race {

using benchmarks::index_t;
using benchmarks::routing_shape;

// How far what the last run left behind is from the oracle: the value (loss, probabilities, chosen scores) and the gradient, both
// relative to the largest entry; negative where there is none.
struct errors {
  double value = -1, gradient = -1;
};

struct contestant {
  std::string library;
  std::string job;   // contestants of one job are ranked, the first of the race's own library being what the others are compared with
  std::string how;
  int threads;
  std::function<void()> run;
  std::function<errors()> check;
  bool spawns = false;   // its threads, anew in every run
  double at = 0;         // where on a figure's axis, in a heat that has one

  std::string name() const { return how.empty() ? library : library + ", " + how; }
};

inline const std::string whole_job = "loss and gradient", softmax_forward = "softmax", softmax_backward = "softmax backward",
                         top_k = "top-k";

// Loss and gradient of fp32 logits [layers, tokens, experts]; also what the softmax alone is timed and checked on (where it is wanted).
struct routing_problem {
  routing_shape shape;
  std::vector<float> logits = {};
  std::vector<float> anchors = {};          // [layers, sequences, experts]
  std::vector<std::int64_t> offsets = {};   // [sequences + 1], where the sequences are not of one length
  std::vector<float> token_weights = {};    // [tokens], or none
  std::vector<float> grad_probs = {};       // [layers, tokens, experts], for a softmax backward alone

  double loss = 0;   // of the oracle, and all that follows
  std::vector<double> gradient = {};
  std::vector<double> probs = {}, softmax_gradient = {};
};

// The k best of each row of fp32 scores [tokens, experts], best first.
struct top_k_problem {
  index_t tokens, experts, k;
  std::vector<float> scores = {};
  std::vector<double> want = {};   // [tokens, k], the chosen scores
};

// Each library's contestants. The problem outlives them. Those for the whole job come first.
std::vector<contestant> sara_contestants(const routing_problem& problem);      // every instruction set, one thread and two
contestant sara_contestant(const routing_problem& problem, int threads = 2);   // the best instruction set
std::vector<contestant> sara_softmax_contestants(const routing_problem& problem);
std::vector<contestant> sara_contestants(const top_k_problem& problem);
std::vector<contestant> libtorch_contestants(const routing_problem& problem);
std::vector<contestant> libtorch_softmax_contestants(const routing_problem& problem);
std::vector<contestant> libtorch_contestants(const top_k_problem& problem);
std::vector<contestant> onednn_softmax_contestants(const routing_problem& problem);
std::vector<contestant> xnnpack_softmax_contestants(const routing_problem& problem);

// What is compiled twice (race/plain.cpp).
namespace portable {   // -O2
contestant naive_contestant(const routing_problem& problem);
contestant eigen_contestant(const routing_problem& problem);
}   // namespace portable
namespace native {   // -O3 -march=native
contestant naive_contestant(const routing_problem& problem);
contestant eigen_contestant(const routing_problem& problem);
}   // namespace native

// How far sara's double loss and gradient are from libtorch's autograd in double, on the same logits.
errors sara_from_libtorch_in_double(const routing_problem& problem);

std::string libtorch_version();
std::string onednn_version();

// What every contestant for the whole job is checked by.
inline errors errors_of(float loss, const float* gradient, const routing_problem& p) {
  return {benchmarks::largest_error(&loss, {p.loss}), benchmarks::largest_error(gradient, p.gradient)};
}

}   // namespace race
