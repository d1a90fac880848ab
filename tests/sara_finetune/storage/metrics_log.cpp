// metrics.jsonl through interruption and resumption.
#include "sara_finetune/storage/metrics_log.hpp"

#include <algorithm>
#include <limits>

#include "../files.hpp"
#include "catch.hpp"
#include "limits.hpp"
#include "sara_finetune/storage/atomic_file.hpp"

namespace {

using files::complaint, files::temporary_folder;
using nlohmann::json;
using sara_finetune::metrics_log, sara_finetune::read_file;

json line(const std::string& stage, const std::string& arm, int step) {
  return {{"stage", stage}, {"arm", arm}, {"step", step}, {"loss", 7.0 / step}};
}

void write(const std::filesystem::path& file, const std::string& stage, const std::string& arm, int from, int to) {
  metrics_log log(file, stage, arm, from);
  for (int step = from + 1; step <= to; ++step) log.write(line(stage, arm, step));
}

void append(const std::filesystem::path& file, const std::string& bytes) { std::ofstream(file, std::ios::binary | std::ios::app) << bytes; }

}   // namespace

TEST_CASE("metrics_log: a line a step, as JSON, there as soon as it is written", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "metrics.jsonl";
  metrics_log log(file, "pretrain", "", 0);
  log.write(line("pretrain", "", 1));
  const std::string first = read_file(file);
  REQUIRE(first.back() == '\n');
  REQUIRE(json::parse(first) == line("pretrain", "", 1));
  json second = line("pretrain", "", 2);
  second["loss"] = std::numeric_limits<double>::quiet_NaN();
  log.write(second);
  log.sync();
  const json read = json::parse(read_file(file).substr(first.size()));
  REQUIRE(read["loss"].is_null());
  REQUIRE(read["step"] == 2);
}

TEST_CASE("metrics_log: a resumed run's log is an uninterrupted one's, wherever it stopped", "[sara_finetune]") {
  const temporary_folder folder;
  const auto whole = folder.path() / "whole.jsonl", resumed = folder.path() / "resumed.jsonl";
  for (const auto& file : {whole, resumed}) {
    write(file, "pretrain", "", 0, 9);
    write(file, "finetune", "plain", 0, 9);
  }
  write(whole, "finetune", "sara", 0, 5);
  const std::string expected = read_file(whole), before = read_file(resumed);
  // Every byte of the arm's lines at which the process may have died, with a checkpoint at the last even step.
  for (std::size_t size = before.size(); size <= expected.size(); ++size) {
    std::filesystem::remove(resumed);
    append(resumed, expected.substr(0, size));
    const std::string arm_lines = expected.substr(before.size(), size - before.size());
    const auto done = std::count(arm_lines.begin(), arm_lines.end(), '\n');
    write(resumed, "finetune", "sara", static_cast<int>(done / 2 * 2), 5);
    if (read_file(resumed) != expected) {
      INFO("died after " << size << " of " << expected.size() << " bytes");
      REQUIRE(read_file(resumed) == expected);
    }
  }
}

TEST_CASE("metrics_log: an arm that begins anew takes only its own lines away", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "metrics.jsonl";
  write(file, "finetune", "sara", 0, 3);
  write(file, "pretrain", "sara", 0, 1);
  write(file, "finetune", "plain", 0, 2);
  write(file, "finetune", "sara", 0, 1);
  std::string expected;
  for (const json& each :
       {line("pretrain", "sara", 1), line("finetune", "plain", 1), line("finetune", "plain", 2), line("finetune", "sara", 1)})
    expected += each.dump() + "\n";
  REQUIRE(read_file(file) == expected);
}

TEST_CASE("metrics_log: lines that are no metrics are refused, and the file stays", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "metrics.jsonl";
  const auto open = [&] { metrics_log log(file, "finetune", "sara", 0); };
  const std::pair<std::string, std::string> bad[] = {
      {"not JSON", "a JSON object"},
      {"[1]", "a JSON object"},
      {"", "a JSON object"},
      {R"({"arm":"","step":1})", "a text \"stage\""},
      {R"({"stage":"pretrain","arm":1,"step":1})", "a text \"arm\""},
      {R"({"stage":"pretrain","arm":"","step":1.5})", "a whole number \"step\""},
  };
  for (const auto& [text, wanted] : bad) {
    std::filesystem::remove(file);
    write(file, "finetune", "sara", 0, 2);
    append(file, text + "\n");
    const std::string before = read_file(file);
    REQUIRE(complaint(open) == file.string() + ":3: expected a line of metrics, with " + wanted + ", found " + text);
    REQUIRE(read_file(file) == before);
  }
  REQUIRE(complaint([&] { metrics_log log(folder.path() / "no" / "file", "a", "", 0); }) ==
          (folder.path() / "no" / "file").string() + ": cannot be written: open: No such file or directory");
}

TEST_CASE("metrics_log: a line of another stage or without its step is refused", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "metrics.jsonl";
  metrics_log log(file, "finetune", "sara", 0);
  const auto said = [&](const json& bad) { return complaint([&] { log.write(bad); }); };
  REQUIRE(said(line("finetune", "plain", 1)) ==
          file.string() + ": a line must have the stage \"finetune\" and the arm \"sara\", but is " + line("finetune", "plain", 1).dump());
  REQUIRE(said(json{{"stage", "finetune"}, {"arm", "sara"}}) ==
          file.string() + ": a line must have a whole number \"step\", but is {\"arm\":\"sara\",\"stage\":\"finetune\"}");
  REQUIRE(read_file(file).empty());
}

TEST_CASE("metrics_log: a failed write throws and leaves whole lines", "[sara_finetune]") {
  const temporary_folder folder;
  const auto file = folder.path() / "metrics.jsonl";
  metrics_log log(file, "pretrain", "", 0);
  log.write(line("pretrain", "", 1));
  const std::string before = read_file(file);
  {
    const limits::file_size limit(before.size() + 5);
    REQUIRE(complaint([&] { log.write(line("pretrain", "", 2)); }) == file.string() + ": cannot be written: File too large");
  }
  REQUIRE(read_file(file) == before);
  log.write(line("pretrain", "", 2));
  REQUIRE(read_file(file) == before + line("pretrain", "", 2).dump() + "\n");
}
