// The race: this library against others, in one process, turn by turn (race/heat.hpp says how).
//
//   benchmark_race --json FILE [--rounds N] [--seconds N] [--quick] [--only KINDS]
//
// Heats come in kinds: `loss` (everyone, on two shapes), `model` (the shapes of published models), `size` (from inside the cache to several
// times the last level), `softmax` and `top_k` (the pieces), `odd` (experts that fill no whole vectors), `scaling` (this library alone)
// and `accuracy` (errors as anchor and histogram approach each other; nothing is timed). benchmarks/report.py makes tables and figures of
// the file.
#include <CLI/CLI.hpp>
#include <fstream>
#include <iterator>

#include "race/heat.hpp"
#include "race/problems.hpp"

namespace race {
namespace {

class race_day {
 public:
  race_day(const rules& limits, bool is_quick, std::vector<std::string> only)
      : limits_(limits), is_quick_(is_quick), only_(std::move(only)) {
    record_ = {{"program", "race"},
               {"heats", nlohmann::json::array()},
               {"not_here", nlohmann::json::array()},
               {"not_raced", nlohmann::json::array()}};
    record_["instruction_set"] = sara::name_of(sara::best_instruction_set());
    record_["versions"] = nlohmann::json::object();
#ifdef SARA_RACE_LIBTORCH
    record_["versions"]["libtorch"] = libtorch_version();
#else
    record_["not_here"].push_back({{"name", "libtorch"}, {"install", "apt-get install libtorch-dev"}});
#endif
#ifdef SARA_RACE_ONEDNN
    record_["versions"]["oneDNN"] = onednn_version();
#else
    record_["not_here"].push_back({{"name", "oneDNN"}, {"install", "apt-get install libdnnl-dev"}});
#endif
#ifndef SARA_RACE_XNNPACK
    record_["not_here"].push_back({{"name", "XNNPACK"}, {"install", "apt-get install libxnnpack-dev libpthreadpool-dev"}});
#endif
  }

  // True if every result was right.
  bool run() {
    if (wants("loss")) {
      loss({1, 8, 1024, 128});
      loss({1, 8, 4096, 256});
    }
    if (wants("model")) models();
    if (wants("size")) sizes();
    if (wants("softmax")) softmaxes({1, 8, 1024, 128});
    if (wants("softmax") && !is_quick_) softmaxes({1, 8, 4096, 256});
    if (wants("top_k"))
      for (const auto& [experts, k] : {std::pair<int, int>{128, 8}, {64, 6}, {256, 8}}) top_ks(8192, experts, k);
    if (wants("odd"))
      for (const auto& [experts, round_experts] : {std::pair<int, int>{60, 64}, {129, 128}, {257, 256}, {385, 384}})
        odd(experts, round_experts);
    if (wants("scaling")) scaling();
    if (wants("accuracy")) accuracy();
    return all_right_;
  }
  const nlohmann::json& record() const { return record_; }

 private:
  bool wants(const std::string& kind) const { return only_.empty() || std::find(only_.begin(), only_.end(), kind) != only_.end(); }

  static void append(std::vector<contestant>& all, std::vector<contestant> more) {
    std::move(more.begin(), more.end(), std::back_inserter(all));
  }

  void race(heat& h, const std::vector<contestant>& all) {
    all_right_ &= h.run(all, limits_);
    record_["heats"].push_back(h.record());
  }

  static heat loss_heat(const std::string& kind, const std::string& name, const std::string& title, const routing_shape& shape) {
    const auto elements = static_cast<double>(shape.elements());
    char megabytes[40];
    std::snprintf(megabytes, sizeof megabytes, "%.3g", elements * 4e-6);
    heat h(kind, name, title + ", " + megabytes + " MB of logits", elements, "Gelem/s");
    const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * 8;
    h.record()["bytes"] = bytes;
    h.record()["copy_seconds"] = static_cast<double>(bytes) / benchmarks::copy_bandwidth(bytes, 2);
    return h;
  }

  void loss(const routing_shape& shape) {
    const routing_problem p = make_problem(shape);
    heat h = loss_heat("loss", text(shape), "Loss and gradient, fp32, " + text(shape), shape);
    std::vector<contestant> all = sara_contestants(p);
    all.push_back(portable::eigen_contestant(p));
    all.push_back(native::eigen_contestant(p));
    all.push_back(portable::naive_contestant(p));
    all.push_back(native::naive_contestant(p));
#ifdef SARA_RACE_LIBTORCH
    append(all, libtorch_contestants(p));
    const errors apart = sara_from_libtorch_in_double(p);
    h.record()["from_autograd_in_double"] = {apart.value, apart.gradient};
    all_right_ &= apart.value <= 1e-13 && apart.gradient <= 1e-12;   // acceptance of the library, not of this race
#endif
    race(h, all);
  }

  // The best of each library, on a large problem.
  static std::vector<contestant> few_contestants(const routing_problem& p, bool also_slow) {
    std::vector<contestant> all{sara_contestant(p)};
    if (also_slow) all.push_back(native::naive_contestant(p));
#ifdef SARA_RACE_LIBTORCH
    const std::size_t count = also_slow ? 3 : 2;   // the last of them keep and make more copies of the logits
    std::vector<contestant> theirs = libtorch_contestants(p);
    theirs.resize(count);
    append(all, std::move(theirs));
#endif
    return all;
  }

  void models() {
    struct model {
      const char* name;
      index_t layers, experts;
    };
    for (const model& m : {model{"Qwen3-30B-A3B", 48, 128}, {"Phi-3.5-MoE", 32, 16}, {"DeepSeek-V3", 58, 256}, {"Kimi-K2", 60, 384}})
      for (const index_t tokens : {4096, 16384, 65536}) {
        if (is_quick_ && (tokens > 4096 || m.experts > 128)) continue;
        const routing_shape shape{m.layers, tokens / 512, 512, m.experts};
        const std::string name =
            std::string(m.name) + ", " + std::to_string(m.layers) + " x " + std::to_string(tokens) + " x " + std::to_string(m.experts);
        const bool is_large = shape.elements() > (index_t(1) << 27);
        const double needed = static_cast<double>(shape.elements()) * (is_large ? 60 : 100);   // bytes, with the oracle's
        if (needed > 0.8 * available_memory()) {
          char why[120];
          std::snprintf(why, sizeof why, "needs some %.0f GB of memory for all contestants and the oracle, of which %.0f are free",
                        needed * 1e-9, available_memory() * 1e-9);
          record_["not_raced"].push_back({{"name", name}, {"why", why}});
          continue;
        }
        const routing_problem p = make_problem(shape);
        heat h = loss_heat("model", name, "Loss and gradient, fp32, " + name + ", sequences of 512", shape);
        h.record()["model"] = m.name;
        h.record()["tokens"] = tokens;
        race(h, few_contestants(p, !is_large));
      }
  }

  void sizes() {
    for (index_t length = 4; length <= (is_quick_ ? 4096 : 65536); length *= 4) {
      const routing_shape shape{1, 8, length, 128};
      routing_problem p = make_problem(shape);
      heat h = loss_heat("size", text(shape), "Loss and gradient, fp32, " + text(shape), shape);
      race(h, few_contestants(p, true));
    }
  }

  void softmaxes(const routing_shape& shape) {
    routing_problem p = make_problem(shape);
    add_softmax(p);
    heat h = loss_heat("softmax", text(shape), "Softmax alone and its backward, fp32, " + text(shape), shape);
    std::vector<contestant> all = sara_softmax_contestants(p);
    all.push_back(sara_contestant(p));   // all of the loss and its gradient beside them
#ifdef SARA_RACE_LIBTORCH
    append(all, libtorch_softmax_contestants(p));
#endif
#ifdef SARA_RACE_ONEDNN
    append(all, onednn_softmax_contestants(p));
#endif
#ifdef SARA_RACE_XNNPACK
    append(all, xnnpack_softmax_contestants(p));
#endif
    race(h, all);
  }

  void top_ks(index_t tokens, index_t experts, index_t k) {
    const top_k_problem p = make_top_k_problem(tokens, experts, k);
    const std::string name = std::to_string(k) + " of " + std::to_string(experts);
    heat h("top_k", name, "Top-k, " + name + ", " + std::to_string(tokens) + " tokens, fp32", static_cast<double>(tokens), "Mtoken/s");
    std::vector<contestant> all = sara_contestants(p);
#ifdef SARA_RACE_LIBTORCH
    append(all, libtorch_contestants(p));
#endif
    race(h, all);
  }

  // One more expert than fills vectors: what it costs an element.
  void odd(index_t experts, index_t round_experts) {
    std::vector<contestant> all;
    const routing_problem round = make_problem({1, 8, 1024, round_experts}), other = make_problem({1, 8, 1024, experts});
    for (const routing_problem* p : {&round, &other}) {
      all.push_back(sara_contestant(*p));
      all.back().how = text(p->shape);
      all.back().at = static_cast<double>(p->shape.experts);
    }
    const std::string name = std::to_string(experts) + "/" + std::to_string(round_experts);
    heat h("odd", name, "Experts that fill no whole vectors, " + name, 8.0 * 1024, "Mtoken/s");
    race(h, all);
  }

  // One heat a question: the points of a curve are its contestants.
  void scale(const std::string& axis, const std::string& expected, const std::string& title, const std::vector<routing_problem>& problems,
             const std::function<contestant(const routing_problem&)>& point) {
    heat h("scaling", axis, title, 1, "calls/s");
    h.record()["axis"] = axis;
    h.record()["expected"] = expected;
    std::vector<contestant> all;
    for (const routing_problem& p : problems) all.push_back(point(p));
    race(h, all);
  }
  static contestant at(double x, contestant c, const std::string& series = "") {
    c.at = x;
    c.how = series;
    return c;
  }

  void scaling() {
    const index_t step = is_quick_ ? 4 : 2;
    std::vector<routing_problem> problems;
    const auto of_shape = [](auto what) {
      return [what](const routing_problem& p) { return at(static_cast<double>(what(p.shape)), sara_contestant(p)); };
    };
    for (index_t length = 64; length <= 16384; length *= step) problems.push_back(make_problem({1, 8, length, 128}));
    scale("tokens", "proportional", "Tokens: 8 sequences, 128 experts", problems,
          of_shape([](const routing_shape& s) { return s.tokens(); }));

    problems.clear();
    for (const index_t experts : {8, 16, 32, 60, 64, 96, 128, 129, 160, 256, 257, 384, 512, 896, 1024, 2048})
      if (!is_quick_ || experts % 128 == 0) problems.push_back(make_problem({1, 8, 512, experts}));
    scale("experts", "proportional", "Experts: 8 x 512 tokens", problems, of_shape([](const routing_shape& s) { return s.experts; }));

    problems.clear();
    for (index_t layers = 1; layers <= 64; layers *= step) problems.push_back(make_problem({layers, 4, 256, 128}));
    scale("layers", "proportional", "Layers: 4 x 256 tokens, 128 experts, one call", problems,
          of_shape([](const routing_shape& s) { return s.layers; }));

    problems.clear();
    for (index_t sequences = 1; sequences <= 8192; sequences *= 2 * step)
      problems.push_back(make_problem({1, sequences, 8192 / sequences, 128}));
    scale("sequences", "constant", "Sequences: 8,192 tokens cut into so many, 128 experts", problems,
          of_shape([](const routing_shape& s) { return s.sequences; }));

    problems.clear();
    const int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    if (processors >= 2) {
      for (int threads = 1; threads <= 2; ++threads) problems.push_back(make_problem({1, 8, 2048, 128}));
      int threads = 0;
      scale("threads", "inverse", "Threads: 8 x 2048 tokens, 128 experts", problems, [&](const routing_problem& p) {
        ++threads;
        return at(threads, sara_contestant(p, threads));
      });
    }

    problems.clear();
    for (const index_t sequences : {8, 64, 512}) {
      problems.push_back(make_problem({1, sequences, 8192 / sequences, 128}));
      problems.push_back(make_ragged_problem({1, sequences, 8192 / sequences, 128}));
    }
    scale("lengths", "constant", "Lengths: uniform against ragged (log-normal, sigma 0.7), 8,192 tokens, 128 experts", problems,
          [](const routing_problem& p) {
            return at(static_cast<double>(p.shape.sequences), sara_contestant(p), p.offsets.empty() ? "uniform" : "ragged");
          });

    problems.clear();
    std::vector<double> parts{0, 0.25, 0.5, 0.75, 0.9};
    for (const double part : parts) problems.push_back(make_masked_problem({1, 8, 1024, 128}, part));
    std::size_t next = 0;
    scale("masked", "what is left", "Tokens masked at the end of their sequences: 8 x 1024 tokens, 128 experts", problems,
          [&](const routing_problem& p) { return at(parts[next++], sara_contestant(p)); });
  }

  // Errors relative to the oracle's loss and to the gradient's largest entry.
  void accuracy() {
    for (double distance = 1e-1; distance > 0.5e-6; distance /= 10) {
      const routing_problem p = make_near_problem({1, 8, 256, 128}, distance);
      char title[60];
      std::snprintf(title, sizeof title, "Accuracy, anchors %.0e from the histograms", distance);
      heat h("accuracy", title + sizeof "Accuracy,", title, 1, "");
      h.record()["distance"] = distance;
      std::vector<contestant> all{sara_contestant(p), portable::eigen_contestant(p), portable::naive_contestant(p)};
#ifdef SARA_RACE_LIBTORCH
      append(all, libtorch_contestants(p));
#endif
      h.run(all, limits_, false);
      record_["heats"].push_back(h.record());
    }
  }

  static double available_memory() {   // bytes
    std::ifstream in("/proc/meminfo");
    for (std::string word; in >> word;)
      if (word == "MemAvailable:") {
        double kib = 0;
        in >> kib;
        return kib * 1024;
      }
    return 8e9;
  }

  rules limits_;
  bool is_quick_, all_right_ = true;
  std::vector<std::string> only_;
  nlohmann::json record_;
};

}   // namespace
}   // namespace race

int main(int argc, char** argv) {
  CLI::App app("Races this library against the others that were found when it was built.");
  int rounds = 60;
  double seconds = 20;
  bool is_quick = false;
  std::string json;
  std::vector<std::string> only;
  app.add_option("--json", json, "where to write the results")->required();
  auto* const given_rounds = app.add_option("--rounds", rounds, "turns of each contestant in a heat, at most")->check(CLI::PositiveNumber);
  auto* const given_seconds = app.add_option("--seconds", seconds, "that a heat may take, roughly")->check(CLI::PositiveNumber);
  app.add_flag("--quick", is_quick, "fewer heats and rounds");
  app.add_option("--only", only, "only these kinds of heats")
      ->delimiter(',')
      ->check(CLI::IsMember({"loss", "model", "size", "softmax", "top_k", "odd", "scaling", "accuracy"}));
  CLI11_PARSE(app, argc, argv);
  if (is_quick && !*given_rounds) rounds = 9;
  if (is_quick && !*given_seconds) seconds = 1;

  race::race_day day({rounds, seconds}, is_quick, only);
  const bool right = day.run();
  std::ofstream out(json);
  out << day.record().dump(1) << '\n';
  if (!out.flush()) return std::fprintf(stderr, "benchmark_race: cannot write '%s'\n", json.c_str()), 2;
  return right ? 0 : 1;
}
