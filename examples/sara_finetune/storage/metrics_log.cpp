#include "metrics_log.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "atomic_file.hpp"

namespace sara_finetune {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what) { throw std::runtime_error(file.string() + what); }

struct position {
  std::string stage, arm;
  std::int64_t step;
};

// nullptr, or what is missing.
const char* find_position(const nlohmann::json& line, position& found) {
  if (!line.is_object()) return "a JSON object";
  const auto text = [&](const char* name, std::string& to) {
    const auto field = line.find(name);
    if (field == line.end() || !field->is_string()) return false;
    to = field->get<std::string>();
    return true;
  };
  if (!text("stage", found.stage)) return "a text \"stage\"";
  if (!text("arm", found.arm)) return "a text \"arm\"";
  const auto step = line.find("step");
  if (step == line.end() || !step->is_number_integer()) return "a whole number \"step\"";
  found.step = step->get<std::int64_t>();
  return nullptr;
}

// What remains of `text` when this stage and arm go on after `steps_taken`.
std::string kept(const std::filesystem::path& file, std::string_view text, const std::string& stage, const std::string& arm,
                 std::int64_t steps_taken) {
  std::string kept;
  for (std::size_t number = 1, end; (end = text.find('\n')) != std::string_view::npos; ++number, text.remove_prefix(end + 1)) {
    const std::string_view line = text.substr(0, end);
    position found;
    const nlohmann::json parsed = nlohmann::json::parse(line, nullptr, false);
    if (const char* missing = find_position(parsed, found))
      refuse(file,
             ":" + std::to_string(number) + ": expected a line of metrics, with " + missing + ", found " + std::string(line.substr(0, 60)));
    if (found.stage != stage || found.arm != arm || found.step <= steps_taken) kept.append(line).append("\n");
  }
  return kept;
}

}   // namespace

metrics_log::metrics_log(std::filesystem::path file, const std::string& stage, const std::string& arm, std::int64_t steps_taken)
    : file_(std::move(file)), stage_(stage), arm_(arm) {
  if (std::filesystem::exists(file_)) {
    const std::string before = read_file(file_), after = kept(file_, before, stage, arm, steps_taken);
    if (after != before) write_file(file_, after);
  }
  descriptor_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) refuse(file_, std::string(": cannot be written: open: ") + std::strerror(errno));
}

metrics_log::~metrics_log() { ::close(descriptor_); }

void metrics_log::write(const nlohmann::json& line) {
  const std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  position found;
  const char* const missing = find_position(line, found);
  if (missing != nullptr || found.stage != stage_ || found.arm != arm_)
    refuse(file_, ": a line must have " + (missing != nullptr ? missing : "the stage \"" + stage_ + "\" and the arm \"" + arm_ + "\"") +
                      ", but is " + text.substr(0, text.size() - 1));
  const off_t before = ::lseek(descriptor_, 0, SEEK_END);
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written < 0 && errno != EINTR) {
      const int error = errno;
      const bool taken_back = before >= 0 && ::ftruncate(descriptor_, before) == 0;
      refuse(file_, std::string(": cannot be written: ") + std::strerror(error) + (taken_back ? "" : "; half a line is left"));
    }
    if (written > 0) rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

void metrics_log::sync() {
  if (::fdatasync(descriptor_) != 0) refuse(file_, std::string(": cannot be written: fdatasync: ") + std::strerror(errno));
}

}   // namespace sara_finetune
