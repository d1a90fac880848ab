// How a benchmark on the GPU is registered, checked and timed, and how its figures are printed.
//
// Times are the device's, between two events. A round times a copy of 128 MiB, device to device and as cudaMemcpyAsync makes it, and then the
// calls; figures are medians over the rounds. (The copy is a graph of its own: where a graph had several, they
// ran at two thirds of the rate.) What is timed is cold: each call has memory of
// its own, together four times the L2 cache, and the cache is filled with something else before the clock starts. The calls of a round
// stand in one graph, so that the host's time does not count. (`timing` names the exceptions.)
//
// Every program takes Google Benchmark's own flags, `--markdown` for a table instead of its console output, and `--layers N` and
// `--tokens N` for batches of another size than 48 x 8192.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <optional>

#include "device.cuh"

namespace benchmarks {

enum class timing {
  cold,        // as above
  replayed,    // a graph of one call, launched again and again on the same memory: its launch counts, and the cache is warm
  one_by_one   // the same without a graph
};

// A call, with memory for `sets` of it to run side by side.
struct timed_call {
  double bytes = 0;         // that it must move: each input read once, each output written once (accumulate: read as well)
  double bytes_twice = 0;   // the same with the logits read twice, as two sweeps do; 0: it makes no two sweeps
  double tolerance = 0;     // of the error
  timing how = timing::cold;
  index_t sets = 1;
  std::function<void(index_t set, cudaStream_t)> run = {};
  std::function<double(index_t set)> error = {};           // once it has run, by the oracle
  std::vector<std::pair<std::string, double>> also = {};   // further figures
};

// Sets of so many bytes that are together out of the caches' reach.
inline index_t sets_for(double bytes) {
  return std::clamp<index_t>(static_cast<index_t>(static_cast<double>(gpu::cold_bytes()) / bytes) + 1, 1, 64);
}

inline bool all_right = true;   // no benchmark of this run was found to compute something wrong, or failed

// Checks a call, times it.
class contest {
 public:
  contest(const gpu& device, timed_call call)
      : device_(device),
        call_(std::move(call)),
        at_once_(call_.how == timing::cold ? call_.sets : 20),
        from_(copied_bytes),
        to_(copied_bytes),
        clock_(device.stream()) {
    require(cudaMemset(from_.data(), 0x5a, from_.bytes()), "cudaMemset");
    for (index_t i = 0; i < call_.sets; ++i) call_.run(i, device.stream());
    device.wait();
    for (const index_t i : {index_t(0), call_.sets - 1}) {
      const double error = call_.error(i);
      error_ = error <= error_ ? error_ : error;   // NaN stays
    }
    if (!is_right()) return;
    const bool cold = call_.how == timing::cold;
    copy_.emplace(device.stream(), [&] {
      require(cudaMemcpyAsync(to_.data(), from_.data(), copied_bytes, cudaMemcpyDeviceToDevice, device.stream()), "cudaMemcpyAsync");
    });
    calls_.emplace(device.stream(), [&] {
      for (index_t i = 0; i < (cold ? call_.sets : 1); ++i) call_.run(i, device.stream());
    });
    for (int i = 0; i < 3; ++i) round();
  }

  bool is_right() const { return error_ <= call_.tolerance; }
  double error() const { return error_; }
  const timed_call& call() const { return call_; }
  index_t nodes() const { return calls_->nodes() / (call_.how == timing::cold ? call_.sets : 1); }

  struct seconds {
    double copy;   // of a byte read and written
    double call;
  };
  seconds round() const {
    device_.cool();
    clock_.start();
    (*copy_)();
    clock_.stop();
    const double copy = clock_.seconds() / (2.0 * copied_bytes);
    if (call_.how == timing::one_by_one) return {copy, time([this] { call_.run(0, device_.stream()); })};
    return {copy, time(*calls_)};
  }

 private:
  static constexpr index_t copied_bytes = index_t(1) << 27;

  template <class Enqueue> double time(const Enqueue& enqueue) const {
    device_.cool();
    if (call_.how != timing::cold) {   // the host is to be ahead of the device, and the memory in the cache
      device_.cool();
      device_.cool();
      enqueue();
    }
    clock_.start();
    for (index_t i = 0; i < (call_.how == timing::cold ? 1 : at_once_); ++i) enqueue();
    clock_.stop();
    return clock_.seconds() / static_cast<double>(at_once_);
  }

  const gpu& device_;
  timed_call call_;
  index_t at_once_;
  device_array<char> from_, to_;
  stopwatch clock_;
  double error_ = 0;
  std::optional<captured> copy_, calls_;
};

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// `name`: operation/storage/shape/what. A call that fails or is wrong is reported, and not timed.
inline void add(const std::string& name, std::function<timed_call()> make) {
  const auto body = [name, make = std::move(make)](benchmark::State& state) {
    static const gpu device;
    static std::string current;   // the contest that is kept for the next repetition: memory for one is much
    static std::unique_ptr<contest> kept;
    static std::string broken;   // why there is none
    const auto give_up = [&](const std::string& why) {
      state.SkipWithError(why.c_str());
      all_right = false;
    };
    try {
      if (current != name) {
        kept.reset();
        current = name;
        broken = "failed";
        kept = std::make_unique<contest>(device, make());
      }
      if (!kept) return give_up(broken);
      if (!kept->is_right()) {
        char text[80];
        std::snprintf(text, sizeof text, "wrong result: error %.2g, tolerance %.2g", kept->error(), kept->call().tolerance);
        return give_up(text);
      }
      std::vector<double> copies, calls;
      for (auto _ : state) {
        const auto seconds = kept->round();
        state.SetIterationTime(seconds.call);
        copies.push_back(seconds.copy);
        calls.push_back(seconds.call);
      }
      const double copy = median(copies), call = median(calls), bytes = kept->call().bytes, twice = kept->call().bytes_twice;
      state.counters["us"] = call * 1e6;
      state.counters["GB/s"] = bytes / call * 1e-9;
      state.counters["of copy"] = bytes * copy / call;
      if (twice > 0) state.counters["of copy, logits twice"] = twice * copy / call;
      state.counters["copy GB/s"] = 1e-9 / copy;
      state.counters["error"] = kept->error();
      state.counters["launches"] = static_cast<double>(kept->nodes());
      for (const auto& [key, value] : kept->call().also) state.counters[key] = value;
    } catch (const std::exception& e) {
      broken = e.what();
      give_up(broken);
    }
  };
  benchmark::RegisterBenchmark(name.c_str(), body)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(50);
}

// One row a benchmark, in the order in which they were added: the median where there are repetitions.
class markdown_reporter : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }

  void ReportRuns(const std::vector<Run>& runs) override {
    double spread = -1;   // of the repetitions, standard deviation by mean
    for (const Run& run : runs)
      if (run.run_type == Run::RT_Aggregate && run.aggregate_name == "cv" && run.counters.count("us"))
        spread = run.counters.find("us")->second.value;
    for (const Run& run : runs)
      if (!failure(run).empty() || (run.run_type == Run::RT_Aggregate ? run.aggregate_name == "median" : run.repetitions <= 1))
        rows_[run.family_index] = row(run, spread);
  }

  void Finalize() override {
    std::puts(
        "| benchmark | us | GB/s | of copy | of copy, logits twice | copy GB/s | launches | error | spread | also |\n"
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --- |");
    for (const auto& [index, text] : rows_) std::puts(text.c_str());
  }

 private:
  // Why a run was given up: "" if it was not. Google Benchmark 1.8 calls this otherwise.
  template <class R> static std::string failure(const R& run) {
    if constexpr (requires { run.error_occurred; })
      return run.error_occurred ? run.error_message : "";
    else
      return run.skipped ? run.skip_message : "";
  }
  static std::string row(const Run& run, double spread) {
    const std::string name = run.run_name.function_name;
    if (const std::string why = failure(run); !why.empty()) return "| " + name + " | **" + why + "** | | | | | | | | |";
    constexpr const char* own[] = {"us", "GB/s", "of copy", "of copy, logits twice", "copy GB/s", "launches", "error"};
    const auto cell = [&](const char* key, double factor, const char* format) {
      const auto found = run.counters.find(key);
      return (found == run.counters.end() ? std::string() : number(format, factor * found->second.value)) + " |";
    };
    std::string text = "| " + name + " |" + cell("us", 1, "%.2f") + cell("GB/s", 1, "%.0f") + cell("of copy", 100, "%.0f %%") +
                       cell("of copy, logits twice", 100, "%.0f %%") + cell("copy GB/s", 1, "%.0f") + cell("launches", 1, "%.0f") +
                       cell("error", 1, "%.1g") + (spread < 0 ? std::string() : number("%.1f %%", 100 * spread)) + " |";
    std::string also;
    for (const auto& [key, counter] : run.counters)
      if (std::find(std::begin(own), std::end(own), key) == std::end(own))
        also += (also.empty() ? " " : ", ") + key + number("%.3g", counter.value);
    return text + also + " |";
  }
  static std::string number(const char* format, double value) {
    char text[40] = " ";
    std::snprintf(text + 1, sizeof text - 1, format, value);
    return text;
  }

  std::map<std::int64_t, std::string> rows_;
};

// The batch that programs measure unless told otherwise.
struct batch_size {
  index_t layers = 48, tokens = 8192;
};

// What main does: `add_all(batch_size)` registers the benchmarks. 0 if every result was right, 77 without a GPU.
template <class AddAll> int run(int argc, char** argv, const AddAll& add_all) {
  if (!device_is_there()) {
    std::puts(no_device);
    return exit_code_without_device;
  }
  bool markdown = false;
  batch_size size;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    index_t* const number = std::strcmp(argv[i], "--layers") == 0   ? &size.layers
                            : std::strcmp(argv[i], "--tokens") == 0 ? &size.tokens
                                                                    : nullptr;
    if (number && i + 1 < argc)
      *number = std::max(1, std::atoi(argv[++i]));
    else if (std::strcmp(argv[i], "--markdown") == 0)
      markdown = true;
    else
      argv[kept++] = argv[i];
  }
  benchmark::Initialize(&kept, argv);
  if (benchmark::ReportUnrecognizedArguments(kept, argv)) return 1;
  add_all(size);
  markdown_reporter table;
  const std::size_t count = markdown ? benchmark::RunSpecifiedBenchmarks(&table) : benchmark::RunSpecifiedBenchmarks();
  return count > 0 && all_right ? 0 : 1;
}

}   // namespace benchmarks
