// How a benchmark is registered, checked and timed. Every program takes Google Benchmark's own flags.
#pragma once

#include <benchmark/benchmark.h>
#include <sara/cpu/executor.hpp>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "copy.hpp"
#include "placement.hpp"

namespace benchmarks {

enum class threading { one, pool, spawned };   // one thread, or two

struct cpu_case {
  sara::instruction_set isa = sara::best_instruction_set();
  threading threads = threading::pool;

  int count() const { return threads == threading::one ? 1 : 2; }
  // Also places the threads.
  sara::cpu_executor executor() const {
    sara::cpu_executor exec{.threads = count(), .isa = isa};
    if (threads == threading::pool) exec.pool = sara::parallel_for(two_threads());
    if (threads == threading::spawned)
      let_caller_roam();
    else
      part_threads();
    return exec;
  }
};

inline std::string text(const cpu_case& c) {
  constexpr const char* names[] = {"threads:1", "threads:2", "threads:2/spawned"};
  return std::string(sara::name_of(c.isa)) + "/" + names[static_cast<int>(c.threads)];
}

// Every instruction set that this machine has, on one thread and two, pooled and spawned.
inline std::vector<cpu_case> every_cpu_case() {
  std::vector<cpu_case> cases;
  for (const auto isa : {sara::instruction_set::vector128, sara::instruction_set::avx2, sara::instruction_set::avx512})
    if (sara::is_supported(isa))
      for (const auto threads : {threading::one, threading::pool, threading::spawned}) cases.push_back({isa, threads});
  return cases;
}

// What one call does.
struct work {
  double elements = 0;    // of the largest array
  double bytes = 0;       // that it must move: each input read once, each output written once (accumulate: read as well)
  double tolerance = 0;   // of the error
  int threads = 1;
};

inline bool all_right = true;   // no benchmark of this run was found to compute something wrong

// Calls once, checks `error()` against the oracle, then times. A result that is wrong is reported and not timed.
template <class Call, class Error> void measure(benchmark::State& state, const work& w, Call&& call, Error&& error) {
  call();
  const double found = error();
  if (!(found <= w.tolerance)) {
    char text[80];
    std::snprintf(text, sizeof text, "wrong result: error %.2g, tolerance %.2g", found, w.tolerance);
    state.SkipWithError(text);
    all_right = false;
    return;
  }
  const double copied = copy_bandwidth(static_cast<std::size_t>(w.bytes), w.threads);
  for (auto _ : state) {
    call();
    benchmark::ClobberMemory();
  }
  using benchmark::Counter;
  state.counters["elements/s"] = Counter(w.elements, Counter::kIsIterationInvariantRate);
  state.counters["bytes/s"] = Counter(w.bytes, Counter::kIsIterationInvariantRate);
  state.counters["of copy"] = Counter(w.bytes / copied, Counter::kIsIterationInvariantRate);
  state.counters["error"] = found;
}

// `name`: operation/storage/shape/what/executor
inline void add(const std::string& name, std::function<void(benchmark::State&)> body) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(body))->UseRealTime()->Unit(benchmark::kMicrosecond);
}

// The copies themselves, for the footprints (bytes moved) that a program's benchmarks have.
inline void add_copies(const std::vector<std::size_t>& footprints) {
  for (const std::size_t bytes : footprints)
    for (const auto kind : {copy_kind::ordinary, copy_kind::streaming})
      for (const int threads : {1, 2}) {
        char name[80];
        std::snprintf(name, sizeof name, "copy/%s/%.1fMB/threads:%d", kind == copy_kind::ordinary ? "ordinary" : "streaming",
                      static_cast<double>(bytes) * 1e-6, threads);
        add(name, [=](benchmark::State& state) {
          const copy_buffers buffers(bytes);
          buffers.run(kind, threads);
          part_threads();
          for (auto _ : state) buffers.run(kind, threads);
          state.counters["bytes/s"] =
              benchmark::Counter(static_cast<double>(buffers.bytes()), benchmark::Counter::kIsIterationInvariantRate);
        });
      }
}

// What main does once the benchmarks are added: 0 if every result was right.
inline int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  return benchmark::RunSpecifiedBenchmarks() > 0 && all_right ? 0 : 1;
}

}   // namespace benchmarks
