// The race: this library against others, in one process, turn by turn.
//
//   benchmark_race [--rounds=60] [--quick]
//
// A round gives each contestant one turn, in an order that rotates. A turn is: a pause in which the threads that other libraries
// leave spinning fall asleep, one run to warm up, then timed runs for 10 ms, the caller's thread on one processor and all others on
// the rest (placement.hpp). Before and after it a control loop of fixed work runs on two threads; where the control was slow a core
// was missing, and the turn is dropped. Figures are medians of the turns
// that are left; where those are fewer than a third of the rounds, up to twice as many rounds follow. Each contestant's result is
// held against the double oracle before anything is timed; one that is wrong is shown and not timed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "copy.hpp"
#include "placement.hpp"
#include "race/contestant.hpp"
#include "random_data.hpp"

namespace race {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
  if (values.empty()) return NAN;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// A fixed amount of arithmetic on each of two threads, in registers: how long it takes says whether both cores are there, and whole.
// The chains are independent and more than one can fill: whoever shares a core's units with us shows.
double control() {
  auto task = [](int worker) {
    constexpr int chains = 8;
    std::uint64_t x[chains];
    for (int c = 0; c < chains; ++c) x[c] = 88172645463325252u + static_cast<std::uint64_t>(worker * chains + c);
    for (int i = 0; i < 200000; ++i)
      for (int c = 0; c < chains; ++c) {
        x[c] ^= x[c] << 13;
        x[c] ^= x[c] >> 7;
        x[c] ^= x[c] << 17;
      }
    for (const std::uint64_t& each : x) asm volatile("" : : "r"(each));   // they are wanted
  };
  const double begin = now();
  benchmarks::two_threads()(2, sara::worker_task(task));
  return now() - begin;
}

// What the control takes when nothing is in its way: the better end of all that have run so far.
class control_record {
 public:
  double run() {
    seconds_.push_back(control());
    return seconds_.back();
  }
  double undisturbed() {
    std::sort(seconds_.begin(), seconds_.end());
    return seconds_[seconds_.size() / 10];
  }

 private:
  std::vector<double> seconds_;
} controls;

struct turn {
  double seconds, control;   // of one run; of the slower control beside it
};

turn take_turn(const contestant& c) {
  benchmarks::part_threads();
  std::this_thread::sleep_for(std::chrono::milliseconds(15));
  const double before = controls.run();
  if (c.spawns) benchmarks::let_caller_roam();
  c.run();
  int runs = 0;
  const double begin = now();
  do {
    c.run();
    ++runs;
  } while (now() - begin < 0.01);
  const double seconds = (now() - begin) / runs;
  benchmarks::part_threads();
  std::this_thread::sleep_for(std::chrono::milliseconds(15));
  return {seconds, std::max(before, controls.run())};
}

// A heat: contestants on one problem, the first of them being what the others are compared with. True if all were right.
bool run_heat(const std::string& title, double elements, const char* rate, double rate_unit, const std::vector<contestant>& all,
              int rounds) {
  std::printf("\n### %s\n\n", title.c_str());
  std::printf("| contestant | us | %s | quartiles, us | turns kept | error of value | error of gradient | times the first's |\n", rate);
  std::puts("| --- | --: | --: | --: | --: | --: | --: | --: |");
  std::vector<errors> found;
  std::vector<bool> right;
  benchmarks::let_caller_roam();   // so that a library's threads start as they would
  for (const contestant& c : all) {
    c.run();
    found.push_back(c.check());
    right.push_back(found.back().value <= 1e-4 && found.back().gradient <= 1e-4);
  }

  std::vector<std::vector<turn>> turns(all.size());
  std::vector<std::vector<double>> kept(all.size());
  const auto too_few = [&] {   // sorts the turns again: what counts as slow is known better with every turn
    bool few = false;
    const double limit = 1.15 * controls.undisturbed();
    for (std::size_t c = 0; c < all.size(); ++c) {
      kept[c].clear();
      for (const turn& t : turns[c])
        if (t.control <= limit) kept[c].push_back(t.seconds);
      few |= right[c] && kept[c].size() * 3 < static_cast<std::size_t>(rounds);
    }
    return few;
  };
  for (int r = 0; r < rounds || (r < 3 * rounds && too_few()); ++r)
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::size_t c = (i + static_cast<std::size_t>(r)) % all.size();
      if (right[c]) turns[c].push_back(take_turn(all[c]));
    }
  too_few();

  const double first = median(kept[0]);
  const auto error = [](double e) {
    char text[32] = "";
    if (e >= 0) std::snprintf(text, sizeof text, "%.1g", e);
    return std::string(text);
  };
  for (std::size_t c = 0; c < all.size(); ++c) {
    auto& times = kept[c];
    std::printf("| %s |", all[c].name.c_str());
    if (times.empty()) {
      std::printf(" %s | | | 0 of %zu |", right[c] ? "no quiet turn" : "WRONG", turns[c].size());
    } else {
      std::sort(times.begin(), times.end());
      const double seconds = median(times);
      std::printf(" %.1f | %.3f | %.1f - %.1f | %zu of %zu |", 1e6 * seconds, elements / seconds * rate_unit, 1e6 * times[times.size() / 4],
                  1e6 * times[times.size() * 3 / 4], times.size(), turns[c].size());
    }
    std::printf(" %s | %s |", error(found[c].value).c_str(), error(found[c].gradient).c_str());
    if (times.empty() || std::isnan(first))
      std::puts(" |");
    else
      std::printf(" %.2f |\n", median(times) / first);
  }
  std::fflush(stdout);
  return std::all_of(right.begin(), right.end(), [](bool b) { return b; });
}

routing_problem make_problem(const routing_shape& s) {
  routing_problem p{.shape = s,
                    .logits = benchmarks::random_logits<float>(s.elements(), 1),
                    .anchors = benchmarks::random_distributions(s.layers * s.sequences, s.experts, 2),
                    .grad_probs = benchmarks::random_logits<float>(s.elements(), 3)};
  p.want = benchmarks::expect_routing(s, p.logits, p.anchors);
  p.want_probs = benchmarks::expect_softmax(p.logits, s.experts);
  p.want_softmax_gradient = benchmarks::expect_softmax_backward(p.want_probs, p.grad_probs, s.experts);
  return p;
}

top_k_problem make_problem(index_t tokens, index_t experts, index_t k) {
  top_k_problem p{.tokens = tokens, .experts = experts, .k = k, .scores = benchmarks::random_logits<float>(tokens * experts, 1)};
  const auto z = benchmarks::as_double(p.scores);
  for (std::size_t at = 0; at < z.size(); at += static_cast<std::size_t>(experts))
    for (const auto e : oracle::top_k(&z[at], static_cast<std::size_t>(experts), static_cast<std::size_t>(k)))
      p.want.push_back(z[at + static_cast<std::size_t>(e)]);
  return p;
}

void append(std::vector<contestant>& all, std::vector<contestant> more) { std::move(more.begin(), more.end(), std::back_inserter(all)); }

bool loss_heat(const routing_shape& shape, int rounds) {
  const routing_problem p = make_problem(shape);
  std::vector<contestant> all = sara_contestants(p);
#ifdef SARA_RACE_LIBTORCH
  append(all, libtorch_contestants(p));
#endif
#ifdef SARA_RACE_ONEDNN
  append(all, onednn_contestants(p));
#endif
  const auto bytes = static_cast<std::size_t>(shape.elements()) * 8;
  char copied[120];
  std::snprintf(copied, sizeof copied, ", %.1f MB of logits; a copy of as many bytes: %.1f us", static_cast<double>(bytes) / 2e6,
                1e6 * static_cast<double>(bytes) / benchmarks::copy_bandwidth(bytes, 2));
  bool agrees = true;
#ifdef SARA_RACE_LIBTORCH
  const errors apart = sara_from_libtorch_in_double(p);
  agrees = apart.value <= 1e-13 && apart.gradient <= 1e-12;
  std::printf("\nIn double, against libtorch's autograd: loss %.1e apart, gradient %.1e of its largest entry%s\n", apart.value,
              apart.gradient, agrees ? "." : ": MORE than the 1e-13 and 1e-12 allowed.");
#endif
  return agrees &
         run_heat("Loss and gradient, fp32, " + text(shape) + copied, static_cast<double>(shape.elements()), "Gelem/s", 1e-9, all, rounds);
}

// One more expert than fills vectors: what it costs an element.
bool odd_heat(index_t experts, index_t round_experts, int rounds) {
  std::vector<contestant> all;
  const routing_problem round = make_problem({1, 8, 1024, round_experts}), odd = make_problem({1, 8, 1024, experts});
  for (const routing_problem* p : {&round, &odd}) {
    all.push_back(sara_contestants(*p).front());
    all.back().name += ", " + text(p->shape);
  }
  return run_heat("Experts that fill no whole vectors: " + std::to_string(experts) + " and " + std::to_string(round_experts), 8.0 * 1024,
                  "Mtoken/s", 1e-6, all, rounds);
}

bool top_k_heat(index_t tokens, index_t experts, index_t k, int rounds) {
  const top_k_problem p = make_problem(tokens, experts, k);
  std::vector<contestant> all = sara_contestants(p);
#ifdef SARA_RACE_LIBTORCH
  append(all, libtorch_contestants(p));
#endif
  return run_heat("Top-k, " + std::to_string(k) + " of " + std::to_string(experts) + ", " + std::to_string(tokens) + " tokens",
                  static_cast<double>(tokens), "Mtoken/s", 1e-6, all, rounds);
}

}   // namespace
}   // namespace race

int main(int argc, char** argv) {
  int rounds = 60;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0)
      rounds = 12;
    else if (std::strncmp(argv[i], "--rounds=", 9) == 0)
      rounds = std::max(1, std::atoi(argv[i] + 9));
    else
      return std::fprintf(stderr, "usage: %s [--rounds=N] [--quick]\n", argv[0]), 2;
  }
  using benchmarks::routing_shape;
  bool right = race::loss_heat({1, 8, 1024, 128}, rounds);
  right &= race::loss_heat({1, 8, 4096, 256}, rounds);
  right &= race::top_k_heat(8192, 128, 8, rounds);
  right &= race::top_k_heat(8192, 64, 6, rounds);
  right &= race::top_k_heat(8192, 256, 8, rounds);
  for (const auto& [experts, round_experts] : {std::pair<int, int>{60, 64}, {129, 128}, {257, 256}, {385, 384}})
    right &= race::odd_heat(experts, round_experts, rounds);
  std::string others = "no other library was found";
#ifdef SARA_RACE_LIBTORCH
  others = race::libtorch_version();
#endif
#ifdef SARA_RACE_ONEDNN
  others = (others[0] == 'n' ? "" : others + ", ") + race::onednn_version();
#endif
  std::printf("\nIn the race: sara on %s, two threads; %s. %d rounds.\n", sara::name_of(sara::best_instruction_set()), others.c_str(),
              rounds);
  return right ? 0 : 1;
}
