// metrics.jsonl: a line a step, which survives interruption.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace sara_finetune {

// Opened for each stage and arm; a line's "step" is the number of steps taken, from 1. On opening, a half-written last line and the lines of
// this stage and arm beyond `steps_taken` go (0: all of them, the stage begins anew), so a resumed run's log is that of an uninterrupted one.
class metrics_log {
 public:
  // Throws if the file cannot be opened, or if a whole line of it is not a metrics line: the sentence names it.
  metrics_log(std::filesystem::path file, const std::string& stage, const std::string& arm, std::int64_t steps_taken);
  metrics_log(const metrics_log&) = delete;
  metrics_log& operator=(const metrics_log&) = delete;
  ~metrics_log();

  // Must hold the "stage" and "arm" of the constructor and a "step"; what is not finite becomes null. The line is with the system when this
  // returns. Throws if that fails, and takes back what was written of it.
  void write(const nlohmann::json& line);

  // To the disk. Before a checkpoint is written, so that the log is never behind it.
  void sync();

 private:
  std::filesystem::path file_;
  std::string stage_, arm_;
  int descriptor_ = -1;
};

}   // namespace sara_finetune
