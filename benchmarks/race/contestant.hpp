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
  std::string name;
  std::function<void()> run;
  std::function<errors()> check;
  bool spawns = false;   // its threads, anew in every run
};

// Loss and gradient of fp32 logits [sequences, length, experts]; also what the softmax alone is timed and checked on.
struct routing_problem {
  routing_shape shape;
  std::vector<float> logits = {};
  std::vector<float> anchors = {};      // [sequences, experts]
  std::vector<float> grad_probs = {};   // [tokens, experts], for a softmax backward alone
  oracle::result<double> want = {};
  std::vector<double> want_probs = {}, want_softmax_gradient = {};   // of the softmax alone
};

// The k best of each row of fp32 scores [tokens, experts], best first.
struct top_k_problem {
  index_t tokens, experts, k;
  std::vector<float> scores = {};
  std::vector<double> want = {};   // [tokens, k], the chosen scores
};

// Each library's contestants. The problem outlives them. Both threads of the race are theirs.
std::vector<contestant> sara_contestants(const routing_problem& problem);
std::vector<contestant> sara_contestants(const top_k_problem& problem);
std::vector<contestant> libtorch_contestants(const routing_problem& problem);
std::vector<contestant> libtorch_contestants(const top_k_problem& problem);
// How far sara's double loss and gradient are from libtorch's autograd in double, on the same logits.
errors sara_from_libtorch_in_double(const routing_problem& problem);
std::vector<contestant> onednn_contestants(const routing_problem& problem);

// "libtorch 1.13.1", with what it says about its threads.
std::string libtorch_version();
std::string onednn_version();

}   // namespace race
