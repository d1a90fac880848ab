// The program as a user meets it: what it prints, and how it ends.
#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "catch.hpp"
#include "files.hpp"

namespace {

struct ended {
  int code;
  std::string said;   // on both streams
};

ended program(const std::string& arguments) {
  std::FILE* const pipe = popen((SARA_FINETUNE_PROGRAM " " + arguments + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  ended e{0, {}};
  char text[4096];
  for (std::size_t got; (got = std::fread(text, 1, sizeof text, pipe)) > 0;) e.said.append(text, got);
  const int status = pclose(pipe);
  e.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return e;
}

// It ends with an error, in one line that says all of this.
void complains(const std::string& arguments, std::initializer_list<const char*> words) {
  const ended e = program(arguments);
  INFO(arguments << "\n" << e.said);
  CHECK(e.code > 0);
  CHECK(e.code < 126);
  for (const char* word : words) CHECK(e.said.find(word) != std::string::npos);
}

}   // namespace

TEST_CASE("program: --help tells the stages and the flags with their defaults", "[program]") {
  const ended e = program("run --help");
  CHECK(e.code == 0);
  CHECK(program("--help").said == e.said);
  for (const char* word : {"pretrain", "anchors", "finetune", "evaluate", "report", "--lambda", "1.5", "--window", "2-4", "--rehearsal",
                           "0.3", "--resume", "--pretrain-tokens", "900000"}) {
    INFO(word);
    CHECK(e.said.find(word) != std::string::npos);
  }
}

TEST_CASE("program: what is wrong with the flags or the files is one sentence and an exit code", "[program]") {
  const files::temporary_folder folder;
  const std::string out = " --out " + (folder.path() / "run").string();
  const std::string text = " --parallel " + files::embedded().string();
  complains("", {"subcommand"});
  complains("run --colour red", {"--colour"});
  complains("run" + out, {"--parallel"});
  complains("run --width lots" + out + text, {"--width", "lots"});
  complains("run --seed -1" + out + text, {"--seed", "-1"});
  complains("run --window 3" + out + text, {"--window", "FIRST-LAST"});
  complains("run --window 3-9" + out + text, {"--window", "0-5", "3-9"});
  complains("run --rehearsal 2" + out + text, {"--rehearsal", "2"});
  complains("run --arms sara,salsa" + out + text, {"--arms", "salsa"});
  complains("evaluate" + out, {"holds no run", "pretrain"});
  complains("run --parallel " + (folder.path() / "absent.tmx").string() + out, {"absent.tmx"});
  complains("run --text sw" + out + text, {"--text", "LANG=FILE"});
  const std::string bad = folder.write("bad.tsv", "one\tmoja\ntwo\n").string();
  complains("run --parallel " + bad + out, {"bad.tsv:2", "tab"});
  // Nothing of all this has begun a run.
  CHECK_FALSE(std::filesystem::exists(folder.path() / "run"));
}

TEST_CASE("program: stage by stage in one folder, whose settings stay", "[program]") {
  const files::temporary_folder folder;
  const std::string out = " --out " + (folder.path() / "run").string();
  const ended begun = program(
      "pretrain --vocabulary 500 --layers 3 --width 16 --heads 2 --experts 4 --hidden 16 --window 1-2 --sequences 8 --pretrain-tokens 2000 "
      "--finetune-tokens 2000 --parallel " +
      files::embedded().string() + out);
  INFO(begun.said);
  REQUIRE(begun.code == 0);
  complains("pretrain" + out, {"--resume"});
  complains("pretrain --resume --lambda 3" + out, {"settings.json", "lambda 1.5", "3.0"});
  for (const char* stage : {"anchors", "finetune --arms plain,sara", "evaluate --arms plain,sara", "report"}) {
    const ended e = program(stage + out);
    INFO(stage << "\n" << e.said);
    REQUIRE(e.code == 0);
    CHECK(e.said.find("peak memory") != std::string::npos);
  }
  CHECK(std::filesystem::exists(folder.path() / "run" / "report.html"));
  const ended again = program("run --resume --arms plain,sara" + out);
  CHECK(again.code == 0);
  CHECK(again.said.find("done already") != std::string::npos);

  std::ofstream(folder.path() / "run" / "settings.json") << "{";
  complains("report" + out, {"settings.json"});
}
