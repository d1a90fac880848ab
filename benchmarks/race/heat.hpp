// A heat of the race: contestants on one problem, in one process, turn by turn.
//
// A round gives each contestant one turn, in an order that rotates. A turn is: a pause in which the threads that other libraries
// leave spinning fall asleep, one run to warm up, then timed runs for 10 ms, the caller's thread on one processor and all others on
// the rest (placement.hpp). Before and after it a control loop of fixed work runs on two threads; where the control was slow a core
// was missing, and the turn is dropped. Figures are medians of the turns that are left; where those are fewer than a third of the
// rounds, up to twice as many rounds follow, and if that does not help the third with the best controls is taken. Each contestant's
// result is held against the double oracle before anything is timed; one that is wrong is shown and not timed.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sara/core/written_out.hpp>
#include <thread>

#include "../copy.hpp"
#include "../placement.hpp"
#include "contestant.hpp"

namespace race {

inline double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Of sorted values.
inline double quantile(const std::vector<double>& sorted, double part) {
  return sorted[static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1) + 0.5)];
}

// A fixed amount of arithmetic on each of two threads, in registers: how long it takes says whether both cores are there, and whole.
// The chains are independent and more than one can fill: whoever shares a core's units with us shows. They stay in general registers: on
// Zen 5 under KVM, code of 128-bit vectors took 1.3 times as long after some sleeps, until a vzeroupper, which looked like a missing core
// where a library lets its threads sleep.
inline double control() {
  auto task = [](int worker) {
    constexpr int chains = 8;
    std::uint64_t x[chains];
    for (int c = 0; c < chains; ++c) x[c] = 88172645463325252u + static_cast<std::uint64_t>(worker * chains + c);
    for (int i = 0; i < 200000; ++i)
      sara::written_out<chains>([&](auto c) __attribute__((always_inline)) {
        x[c] ^= x[c] << 13;
        x[c] ^= x[c] >> 7;
        x[c] ^= x[c] << 17;
        asm volatile("" : "+r"(x[c]));   // wanted, and in a register
      });
  };
  const double begin = now();
  benchmarks::two_threads()(2, sara::worker_task(task));
  return now() - begin;
}

struct turn {
  double seconds, control;   // of one run; of the slower control beside it
};

struct rules {
  int rounds;       // of a heat
  double seconds;   // that a heat may take, roughly; five rounds are run in any case
};

class heat {
 public:
  heat(const std::string& kind, const std::string& name, const std::string& title, double elements, const std::string& unit)
      : elements_(elements), record_{{"kind", kind}, {"name", name}, {"title", title}, {"elements", elements}, {"unit", unit}} {}

  nlohmann::json& record() { return record_; }

  // Checks, then times. True if all were right. `all` are run where `is_timed`; else only their errors are found.
  bool run(const std::vector<contestant>& all, const rules& limits, bool is_timed = true) {
    const double begin = now();
    std::fprintf(stderr, "%s\n", record_["title"].get<std::string>().c_str());
    std::vector<errors> found;
    std::vector<bool> right;
    double of_round = 0;             // seconds
    benchmarks::let_caller_roam();   // so that a library's threads start as they would
    for (const contestant& c : all) {
      const double before = now();
      c.run();
      of_round += std::max(0.01, now() - before) * 2 + 0.05;
      found.push_back(c.check());
      right.push_back(!is_timed || (found.back().value <= 1e-4 && found.back().gradient <= 1e-4));
    }
    std::vector<std::vector<turn>> turns(all.size());
    std::vector<std::vector<double>> kept(all.size());
    const int rounds = is_timed ? std::clamp(static_cast<int>(limits.seconds / of_round), std::min(5, limits.rounds), limits.rounds) : 0;
    for (int r = 0; r < rounds || (r < 3 * rounds && now() - begin < 2 * limits.seconds && keep_quiet_turns(turns, kept, right, rounds));
         ++r)
      for (std::size_t i = 0; i < all.size(); ++i) {
        const std::size_t c = (i + static_cast<std::size_t>(r)) % all.size();
        if (right[c]) turns[c].push_back(take_turn(all[c]));
      }
    keep_quiet_turns(turns, kept, right, rounds);

    record_["rounds"] = rounds;
    for (std::size_t c = 0; c < all.size(); ++c) {
      std::sort(kept[c].begin(), kept[c].end());
      nlohmann::json one{
          {"library", all[c].library}, {"job", all[c].job}, {"how", all[c].how}, {"threads", all[c].threads}, {"at", all[c].at}};
      one["status"] = !right[c] ? "wrong" : kept[c].empty() && is_timed ? "no quiet turn" : "ok";
      one["turns"] = turns[c].size();
      one["kept"] = kept[c].size();
      if (!kept[c].empty()) {
        one["seconds"] = quantile(kept[c], 0.5);
        one["quartiles"] = {quantile(kept[c], 0.25), quantile(kept[c], 0.75)};
      }
      // JSON has no infinity
      if (found[c].value >= 0) one["error_value"] = std::min(found[c].value, 1e300);
      if (found[c].gradient >= 0) one["error_gradient"] = std::min(found[c].gradient, 1e300);
      record_["contestants"].push_back(one);
    }
    return std::all_of(right.begin(), right.end(), [](bool b) { return b; });
  }

 private:
  static double run_control() {
    controls().push_back(control());
    return controls().back();
  }
  static std::vector<double>& controls() {   // all that have run so far
    static std::vector<double> seconds;
    return seconds;
  }

  static turn take_turn(const contestant& c) {
    benchmarks::part_threads();
    std::this_thread::sleep_for(std::chrono::milliseconds(15));
    const double before = run_control();
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
    return {seconds, std::max(before, run_control())};
  }

  // What counts as slow is known better with every turn, so the turns are sorted anew. True if a contestant has too few: then the better
  // third of its turns, by their controls, is what there is.
  static bool keep_quiet_turns(const std::vector<std::vector<turn>>& turns, std::vector<std::vector<double>>& kept,
                               const std::vector<bool>& right, int rounds) {
    std::vector<double> sorted = controls();
    if (sorted.empty()) return false;
    std::sort(sorted.begin(), sorted.end());
    const double limit = 1.15 * quantile(sorted, 0.1);   // the better end: nothing was in its way
    bool few = false;
    for (std::size_t c = 0; c < turns.size(); ++c) {
      kept[c].clear();
      for (const turn& t : turns[c])
        if (t.control <= limit) kept[c].push_back(t.seconds);
      few |= right[c] && kept[c].size() * 3 < static_cast<std::size_t>(rounds);
      if (kept[c].size() * 3 >= turns[c].size()) continue;
      std::vector<turn> best = turns[c];
      std::sort(best.begin(), best.end(), [](const turn& a, const turn& b) { return a.control < b.control; });
      best.resize((best.size() + 2) / 3);
      kept[c].clear();
      for (const turn& t : best) kept[c].push_back(t.seconds);
    }
    return few;
  }

  double elements_;
  nlohmann::json record_;
};

}   // namespace race
