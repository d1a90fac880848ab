// The race of the fused loss's designs (laboratory.cuh): each is checked against the double oracle, run twice for the same bits, and timed
// turn by turn with the others and with a copy of as many bytes, cold, as a captured graph. A table for each storage and sequence length.
#include "laboratory.cuh"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <optional>

#include "../problem.hpp"

namespace benchmarks::laboratory {
namespace {

struct arguments {
  index_t layers = 48, tokens = 8192, rounds = 50;
  std::vector<index_t> lengths{512, 1024, 4096};
  std::vector<int> only;   // numbers of designs
  const char* json = nullptr;
};

constexpr const char* usage =
    "usage: laboratory [--layers N] [--tokens N] [--lengths N,N,...] [--rounds N] [--designs N,N,...] [--json FILE]\n"
    "  --tokens is a multiple of each length; --rounds 0 checks and does not time; designs are counted from 1, as the table shows them\n";

constexpr int design_count = 8, library_number = 3;
template <class T> design design_of(int number, const batch<T>& b) {
  switch (number) {
    case 1:
      return naive(b);
    case 2:
      return pieces(b);
    case library_number:
      return library(b);
    case 4:
      return two_sweeps(b, false);
    case 5:
      return two_sweeps(b, true);
    case 6:
      return clusters(b, 1);
    case 7:
      return clusters(b, 3);
    default:
      return persistent(b);
  }
}

struct quartiles {
  double first = 0, median = 0, third = 0;

  explicit quartiles(std::vector<double> seconds) {
    if (seconds.empty()) return;
    std::sort(seconds.begin(), seconds.end());
    first = seconds[seconds.size() / 4];
    median = seconds[seconds.size() / 2];
    third = seconds[seconds.size() * 3 / 4];
  }
};

// A design in the race, and what was found.
struct contestant {
  int number = 0;
  design candidate;
  std::string trouble;   // why it is not timed
  device_array<char> scratch;
  std::optional<captured> graph;
  double error_of_loss = NAN, error_of_gradient = NAN;
  bool same_bits = false;
  std::vector<double> seconds;
};

template <class T> class race {
 public:
  race(const gpu& device, const arguments& with, index_t length)
      : device_(device),
        problem_(batch_shape{with.layers, with.tokens, experts, length}),
        logits_(problem_.logits),
        anchors_(problem_.anchors),
        loss_(1),
        gradient_(problem_.shape.elements()),
        batch_{with.layers, problem_.sequences, length, logits_.data(), anchors_.data(), loss_.data(), gradient_.data()} {
    for (int number = 1; number <= design_count; ++number) {
      if (!with.only.empty() && std::find(with.only.begin(), with.only.end(), number) == with.only.end()) continue;
      contestant& c = contestants_.emplace_back();
      c.number = number;
      try {
        c.candidate = design_of(number, batch_);
        c.trouble = c.candidate.unfit;
        if (c.trouble.empty()) check(c);
      } catch (const std::exception& e) {
        c.trouble = e.what();
        all_right_ = false;
      }
    }
    time(with.rounds);
  }

  bool all_right() const { return all_right_; }

  void print_table() const {
    const double copy = quartiles(copies_).median, floor = 2 * sizeof(T), twice = 3 * sizeof(T);
    std::printf("\n### %s, %lld x %lld x %d, sequences of %lld; a copy of the same %.0f MB: %.1f us (%.0f GB/s)\n\n",
                sizeof(T) == 2 ? "bf16" : "fp32", static_cast<long long>(batch_.layers), static_cast<long long>(problem_.shape.tokens),
                experts, static_cast<long long>(batch_.length), bytes() * 1e-6, copy * 1e6, bytes() / copy * 1e-9);
    std::printf(
        "| | design | us | quartiles, us | of copy at %.0f B | of copy at %.0f B | launches | scratch | error of loss | error of gradient "
        "| same bits |\n"
        "| --: | --- | --: | --: | --: | --: | --: | --: | --: | --: | --- |\n",
        twice, floor);
    for (const contestant& c : contestants_) {
      std::printf("| %d | %s ", c.number, c.candidate.name.c_str());
      if (!c.trouble.empty()) {
        std::printf("| %s | | | | | | | | |\n", c.trouble.c_str());
        continue;
      }
      const quartiles q(c.seconds);
      if (c.seconds.empty())
        std::printf("| not timed | | | ");
      else
        std::printf("| %.1f | %.1f - %.1f | %.0f %% | %.0f %% ", q.median * 1e6, q.first * 1e6, q.third * 1e6,
                    100 * copy / q.median * twice / floor, 100 * copy / q.median);
      std::printf("| %lld | %.2f %% | %.1g | %.1g | %s |\n", static_cast<long long>(c.graph->nodes()), 100 * scratch_share(c),
                  c.error_of_loss, c.error_of_gradient, c.same_bits ? "yes" : "**no**");
    }
    print_who_is_ahead();
  }

  void print_json(std::FILE* to, const char* separator) const {
    for (const contestant& c : contestants_) {
      std::fprintf(to,
                   "%s\n  {\"storage\": \"%s\", \"layers\": %lld, \"tokens\": %lld, \"experts\": %d, \"length\": %lld, \"number\": %d, "
                   "\"design\": \"%s\"",
                   separator, sizeof(T) == 2 ? "bf16" : "fp32", static_cast<long long>(batch_.layers),
                   static_cast<long long>(problem_.shape.tokens), experts, static_cast<long long>(batch_.length), c.number,
                   c.candidate.name.c_str());
      separator = ",";
      if (!c.trouble.empty()) {
        std::fprintf(to, ", \"trouble\": \"%s\"}", c.trouble.c_str());
        continue;
      }
      const quartiles q(c.seconds);
      std::fprintf(to,
                   ", \"us\": %.3f, \"first_quartile_us\": %.3f, \"third_quartile_us\": %.3f, \"copy_us\": %.3f, \"bytes\": %.0f, "
                   "\"launches\": %lld, "
                   "\"scratch_bytes\": %zu, \"error_of_loss\": %.3g, \"error_of_gradient\": %.3g, \"same_bits\": %s}",
                   q.median * 1e6, q.first * 1e6, q.third * 1e6, quartiles(copies_).median * 1e6, bytes(),
                   static_cast<long long>(c.graph->nodes()), c.candidate.scratch_bytes, c.error_of_loss, c.error_of_gradient,
                   c.same_bits ? "true" : "false");
    }
  }

 private:
  double bytes() const {
    return static_cast<double>(problem_.shape.elements()) * 2 * sizeof(T);
  }   // each logit read once, each gradient written
  // Of the library, where that raced.
  void print_who_is_ahead() const {
    const auto median = [](const contestant& c) { return quartiles(c.seconds).median; };
    const auto raced = [](const contestant& c) { return c.trouble.empty() && !c.seconds.empty(); };
    const auto library =
        std::find_if(contestants_.begin(), contestants_.end(), [&](const contestant& c) { return c.number == library_number && raced(c); });
    if (library == contestants_.end()) return;
    bool nobody = true;
    for (const contestant& c : contestants_) {
      if (!raced(c) || median(c) >= median(*library)) continue;
      std::printf("%s design %d, by %.0f %%", nobody ? "\n**Ahead of the library:" : ",", c.number,
                  100 * (median(*library) / median(c) - 1));
      nobody = false;
    }
    std::printf(nobody ? "\nNobody is ahead of the library.\n" : ".**\n");
  }
  double scratch_share(const contestant& c) const { return static_cast<double>(c.candidate.scratch_bytes) / (bytes() / 2); }

  void check(contestant& c) {
    c.scratch = device_array<char>(static_cast<index_t>(c.candidate.scratch_bytes));
    const auto run = [&] {
      require(cudaMemset(gradient_.data(), 0xff, gradient_.bytes()), "cudaMemset");
      require(cudaMemset(loss_.data(), 0xff, loss_.bytes()), "cudaMemset");
      c.candidate.run(device_.stream(), c.scratch.data());
      device_.wait();
      return std::pair(loss_.read()[0], gradient_.read());
    };
    const auto [loss, gradient] = run();
    const auto [again, gradient_again] = run();
    c.same_bits = std::memcmp(&loss, &again, sizeof loss) == 0 &&
                  std::memcmp(static_cast<const void*>(gradient.data()), gradient_again.data(), gradient_.bytes()) == 0;
    c.error_of_loss = problem_.error_of_loss(loss);
    c.error_of_gradient = largest_error(gradient, problem_.gradient);
    const bool right = c.error_of_loss <= tolerance && c.error_of_gradient <= tolerance_of<T> + tolerance;
    if (!right) {
      char text[100];
      std::snprintf(text, sizeof text, "wrong: error of the loss %.2g, of the gradient %.2g", c.error_of_loss, c.error_of_gradient);
      c.trouble = text;
    }
    all_right_ = all_right_ && right && c.same_bits;
    if (right) c.graph.emplace(device_.stream(), [&] { c.candidate.run(device_.stream(), c.scratch.data()); });
  }

  void time(index_t rounds) {
    const auto half = static_cast<index_t>(bytes() / 2);
    const device_array<char> from(half), to(half);
    const captured copy(device_.stream(), [&] {
      require(cudaMemcpyAsync(to.data(), from.data(), static_cast<std::size_t>(half), cudaMemcpyDeviceToDevice, device_.stream()),
              "cudaMemcpyAsync");
    });
    const stopwatch clock(device_.stream());
    const auto seconds_of = [&](const captured& graph) {
      device_.cool();
      clock.start();
      graph();
      clock.stop();
      return clock.seconds();
    };
    for (index_t round = -3; round < rounds; ++round) {   // the first warm up
      const double of_copy = seconds_of(copy);
      if (round >= 0) copies_.push_back(of_copy);
      for (std::size_t i = 0; i < contestants_.size(); ++i) {
        contestant& c = contestants_[(i + static_cast<std::size_t>(round + 3)) % contestants_.size()];
        if (!c.graph) continue;
        try {
          const double seconds = seconds_of(*c.graph);
          if (round >= 0) c.seconds.push_back(seconds);
        } catch (const std::exception& e) {
          c.trouble = e.what();
          c.graph.reset();
          all_right_ = false;
        }
      }
      if (rounds == 0) return;
    }
  }

  static constexpr double tolerance = 1e-5;   // of fp32, where a design may be less exact than the library, and says so in its column

  const gpu& device_;
  routing_problem<T> problem_;
  device_array<T> logits_;
  device_array<float> anchors_, loss_;
  device_array<T> gradient_;
  batch<T> batch_;
  std::deque<contestant> contestants_;   // which stay where they are
  std::vector<double> copies_;
  bool all_right_ = true;
};

template <class Number> std::vector<Number> numbers(const char* text) {
  std::vector<Number> out;
  for (char* end = nullptr; *text; text = *end ? end + 1 : end) {
    const long value = std::strtol(text, &end, 10);
    if (end == text) return {};
    out.push_back(static_cast<Number>(value));
  }
  return out;
}

bool read(int argc, char** argv, arguments& to) {
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) return false;
    const char* const value = argv[i + 1];
    if (name == "--layers")
      to.layers = std::atoi(value);
    else if (name == "--tokens")
      to.tokens = std::atoi(value);
    else if (name == "--rounds")
      to.rounds = std::atoi(value);
    else if (name == "--lengths")
      to.lengths = numbers<index_t>(value);
    else if (name == "--designs")
      to.only = numbers<int>(value);
    else if (name == "--json")
      to.json = value;
    else
      return false;
  }
  for (const index_t length : to.lengths)
    if (length < 1 || to.tokens % length != 0) return false;
  return to.layers > 0 && to.tokens > 0 && to.rounds >= 0 && !to.lengths.empty();
}

int main(int argc, char** argv) {
  arguments with;
  if (!read(argc, argv, with)) {
    std::fputs(usage, stderr);
    return 2;
  }
  if (!device_is_there()) {
    std::puts(no_device);
    return exit_code_without_device;
  }
  std::FILE* const json = with.json ? std::fopen(with.json, "w") : nullptr;
  if (json) std::fputs("[", json);
  bool all_right = true;
  const char* separator = "";
  try {
    const gpu device;
    const auto run = [&](const auto& r) {
      r.print_table();
      std::fflush(stdout);
      if (json) r.print_json(json, separator);
      separator = ",";
      all_right = all_right && r.all_right();
    };
    for (const index_t length : with.lengths) run(race<bf16>(device, with, length));
    for (const index_t length : with.lengths) run(race<float>(device, with, length));
  } catch (const std::exception& e) {
    std::printf("\n**The laboratory failed: %s.**\n", e.what());
    all_right = false;
  }
  if (json) {
    std::fputs("\n]\n", json);
    std::fclose(json);
  }
  return all_right ? 0 : 1;
}

}   // namespace
}   // namespace benchmarks::laboratory

int main(int argc, char** argv) { return benchmarks::laboratory::main(argc, argv); }
