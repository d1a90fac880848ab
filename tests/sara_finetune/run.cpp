// The whole loop in miniature, on the text that comes with the example.
#include "sara_finetune/run.hpp"

#include <signal.h>

#include <fstream>
#include <iostream>
#include <sstream>

#include "catch.hpp"
#include "files.hpp"
#include "sara_finetune/storage/atomic_file.hpp"

namespace {

using namespace sara_finetune;
namespace fs = std::filesystem;

settings miniature() {
  settings s;
  s.parallel = {files::embedded().string()};
  s.illustrative = true;
  s.shape = {.vocabulary = 500, .layers = 4, .width = 32, .heads = 2, .experts = 6, .chosen = 2, .hidden = 24, .context = 64};
  s.sequences = 16;
  s.pretrain_tokens = 60'000;
  s.finetune_tokens = 30'000;
  s.window_first = 1;
  s.window_last = 2;
  s.validations = 4;
  s.arms = {"plain", "sara"};
  return s;
}

settings tiny() {
  settings s = miniature();
  s.pretrain_tokens = 6'000;
  s.finetune_tokens = 4'000;
  return s;
}

// What the program prints is not what these tests are about.
class quiet {
 public:
  quiet() : out_(std::cout.rdbuf(text_.rdbuf())), err_(std::cerr.rdbuf(text_.rdbuf())) {}
  ~quiet() {
    std::cout.rdbuf(out_);
    std::cerr.rdbuf(err_);
  }
  std::string said() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::streambuf *out_, *err_;
};

void all_stages(run& r) {
  r.pretrain();
  r.make_anchors();
  r.finetune();
  r.evaluate();
  r.report();
}

// metrics.jsonl without what a clock tells.
std::vector<nlohmann::json> metrics(const fs::path& out) {
  std::vector<nlohmann::json> lines;
  std::ifstream file(out / "seed-1" / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    lines.push_back(nlohmann::json::parse(line));
    lines.back().erase("tokens_per_second");
  }
  return lines;
}

double last_divergences(const std::vector<nlohmann::json>& lines, const std::string& arm) {
  std::vector<double> seen;
  for (const nlohmann::json& line : lines)
    if (line.at("arm") == arm && line.contains("divergence")) seen.push_back(line["divergence"].get<double>());
  double sum = 0;
  constexpr std::size_t last = 10;
  REQUIRE(seen.size() >= 2 * last);
  for (std::size_t i = seen.size() - last; i < seen.size(); ++i) sum += seen[i] / last;
  return sum;
}

}   // namespace

TEST_CASE("a run in miniature: SARA brings the window's divergence from the anchors down, and the report is there", "[run]") {
  const files::temporary_folder folder;
  const fs::path out = folder.path() / "run";
  const quiet silence;
  {
    run r(miniature(), out, false);
    all_stages(r);
  }

  const auto lines = metrics(out);
  const double plain = last_divergences(lines, "plain"), sara = last_divergences(lines, "sara");
  CAPTURE(plain, sara);
  CHECK(plain > 1e-5);
  CHECK(sara <= 0.7 * plain);

  const nlohmann::json evaluation = nlohmann::json::parse(read_file(out / "seed-1" / "evaluation.json"));
  for (const char* model : {"pretrained", "plain", "sara"}) CHECK(evaluation.at("models").contains(model));
  CHECK(read_file(out / "report.html").find("<svg") != std::string::npos);
  CHECK(silence.said().find("% of the threads' time") != std::string::npos);
  CHECK(silence.said().find("too few to train this model") != std::string::npos);

  // A second call finds everything done.
  const auto before = fs::last_write_time(out / "seed-1" / "sara.checkpoint");
  run r(miniature(), out, true);
  all_stages(r);
  CHECK(fs::last_write_time(out / "seed-1" / "sara.checkpoint") == before);
  CHECK(metrics(out) == lines);
}

TEST_CASE("a run that was stopped and resumed, and one with other threads, end in the same bits", "[run]") {
  const files::temporary_folder folder;
  const quiet silence;
  const fs::path whole = folder.path() / "whole", stopped = folder.path() / "stopped", threads = folder.path() / "threads";
  settings how = tiny();
  {
    how.threads = 1;
    run r(how, whole, false);
    r.pretrain();
    r.make_anchors();
    r.finetune();
  }
  {
    how.threads = 3;
    run r(how, threads, false);
    r.pretrain();
    r.make_anchors();
    r.finetune();
  }
  how.threads = 2;
  int stops = 0;
  for (bool done = false; !done;) {
    run r(how, stopped, stops > 0);
    try {
      // Each time it takes a step, saves itself and stops, until three of them have.
      if (stops < 3) raise(SIGINT);
      r.pretrain();
      r.make_anchors();
      if (stops < 5) raise(SIGINT);
      r.finetune();
      done = true;
    } catch (const interrupted& e) {
      ++stops;
      CHECK(e.signal == SIGINT);
      CHECK(std::string(e.what()).find("--resume") != std::string::npos);
    }
  }
  CHECK(stops == 5);
  for (const char* file : {"pretrained.checkpoint", "anchors.npy", "anchors.json", "plain.checkpoint", "sara.checkpoint"}) {
    INFO(file);
    const std::string want = read_file(whole / "seed-1" / file);
    CHECK((read_file(stopped / "seed-1" / file) == want));
    CHECK((read_file(threads / "seed-1" / file) == want));
  }
  CHECK((metrics(stopped) == metrics(whole)));
  CHECK((metrics(threads) == metrics(whole)));
}

TEST_CASE("a loss that is not finite stops the run, names the step, and keeps the last good checkpoint", "[run]") {
  const files::temporary_folder folder;
  const quiet silence;
  settings how = tiny();
  how.pretrain_rate = 1e30;
  how.warmup = 0;
  how.save_every = 1;
  run r(how, folder.path() / "run", false);
  const std::string said = files::complaint([&] { r.pretrain(); });
  CAPTURE(said);
  const fs::path file = folder.path() / "run" / "seed-1" / "pretrained.checkpoint";
  CHECK(said.find("is not finite") != std::string::npos);
  CHECK(said.find(file.string() + " keeps the last good step") != std::string::npos);
  const checkpoint kept = read_checkpoint(file);
  const auto step = kept.about.at("step").get<std::int64_t>();
  CHECK(said.find("step " + std::to_string(step + 1) + ":") != std::string::npos);
  for (const float x : kept.arrays.at("parameters")) REQUIRE(std::isfinite(x));
}

TEST_CASE("a folder that holds something else is refused, and left as it is", "[run]") {
  const files::temporary_folder folder;
  const quiet silence;
  const fs::path out = folder.path() / "run", seed = out / "seed-1";
  const std::string text = read_file(files::embedded());
  settings how = tiny();
  how.parallel = {folder.write("en-sw.tsv", text).string()};
  how.seeds = 2;
  {
    run r(how, out, false);
    CHECK(files::complaint([&] { r.make_anchors(); }).find("`sara_finetune pretrain` makes it") != std::string::npos);
    r.pretrain();
    CHECK(files::complaint([&] { r.finetune(); }).find("`sara_finetune anchors` makes it") != std::string::npos);
    r.make_anchors();
    CHECK(files::complaint([&] { r.evaluate(); }).find("`sara_finetune finetune` makes it") != std::string::npos);
    r.finetune();
    r.evaluate();
  }
  const auto after = [&](const settings& asked, const auto& act) {
    return files::complaint([&] {
      run r(asked, out, true);
      act(r);
    });
  };
  const std::string echo = read_file(out / "settings.json"), evaluation = read_file(seed / "evaluation.json");
  CHECK(files::complaint([&] { run(how, out, false); }).find("--resume") != std::string::npos);

  settings other = how;
  other.shape.width = 48;
  CHECK(after(other, [](run& r) { r.finetune(); }).find("width 32, but 48") != std::string::npos);
  other = how;
  other.pretrain_tokens *= 2;
  CHECK(after(other, [](run& r) { r.pretrain(); }).find("pretrain_tokens") != std::string::npos);

  // Another text in the same place.
  folder.write("en-sw.tsv", text.substr(0, text.rfind('\n', text.size() / 2) + 1));
  CHECK(after(how, [](run& r) { r.finetune(); }).find("expected the text that this run began with") != std::string::npos);
  folder.write("en-sw.tsv", text);
  CHECK(read_file(out / "settings.json") == echo);

  // Checkpoints of another arm, of another seed and of another stage.
  const std::string sara = read_file(seed / "sara.checkpoint"), pretrained = read_file(seed / "pretrained.checkpoint");
  const auto with = [&](const char* file, const fs::path& from, const char* complaint) {
    INFO(file << " from " << from);
    const std::string good = read_file(seed / file);
    write_file(seed / file, read_file(from));
    CHECK(after(how, [](run& r) { r.evaluate(); }).find(complaint) != std::string::npos);
    CHECK(after(how, [](run& r) { r.finetune(); }).find(complaint) != std::string::npos);
    CHECK(read_file(seed / "evaluation.json") == evaluation);
    write_file(seed / file, good);
  };
  with("sara.checkpoint", seed / "plain.checkpoint", "expected a checkpoint of arm \"sara\"");
  with("sara.checkpoint", out / "seed-2" / "sara.checkpoint", "expected a checkpoint of seed 1");
  with("pretrained.checkpoint", seed / "sara.checkpoint", "expected a checkpoint of stage \"pretrain\"");

  // A checkpoint that is cut off.
  write_file(seed / "pretrained.checkpoint", std::string_view(pretrained).substr(0, pretrained.size() / 2));
  CHECK(after(how, [](run& r) { r.finetune(); }).find("pretrained.checkpoint") != std::string::npos);
  CHECK(read_file(seed / "pretrained.checkpoint").size() == pretrained.size() / 2);
  write_file(seed / "pretrained.checkpoint", pretrained);

  // Anchors of another model: those of the other seed. One file without the other is made again.
  const std::string anchors = read_file(seed / "anchors.npy");
  for (const char* file : {"anchors.npy", "anchors.json"})
    fs::copy_file(out / "seed-2" / file, seed / file, fs::copy_options::overwrite_existing);
  CHECK(after(how, [](run& r) { r.finetune(); }).find("model") != std::string::npos);
  fs::remove(seed / "anchors.json");
  CHECK(after(how, [](run& r) { r.make_anchors(); }).empty());
  CHECK((read_file(seed / "anchors.npy") == anchors));

  // Settings that do not say of what text: its tokenizer stays.
  const std::string words = read_file(out / "tokenizer.model");
  nlohmann::json cut = nlohmann::json::parse(echo);
  cut.erase("corpus");
  write_file(out / "settings.json", cut.dump());
  CHECK(after(how, [](run& r) { r.finetune(); }).find("expected the corpus of this run, found none") != std::string::npos);
  CHECK((read_file(out / "tokenizer.model") == words));
  write_file(out / "settings.json", echo);

  // The report needs no text; parts of a run are none.
  fs::remove(folder.path() / "en-sw.tsv");
  CHECK(after(how, [](run& r) { r.report(); }).empty());
  fs::remove(out / "settings.json");
  CHECK(after(how, [](run&) {}).find("no settings.json") != std::string::npos);
}
