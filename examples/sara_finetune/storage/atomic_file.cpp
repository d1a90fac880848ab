#include "atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace sara_finetune {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what, int error) {
  throw std::runtime_error(file.string() + ": cannot be written: " + what + ": " + std::strerror(error));
}

class descriptor {
 public:
  explicit descriptor(int number) : number_(number) {}
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  ~descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int number() const { return number_; }
  int close() { return ::close(std::exchange(number_, -1)); }

 private:
  int number_;
};

std::filesystem::path folder_of(const std::filesystem::path& file) {
  return file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
}

// A name that no other process and no other thread of this one takes; a name left by a process that was killed is passed over.
int create_beside(const std::filesystem::path& file, std::filesystem::path& temporary) {
  static std::atomic<unsigned> last = 0;
  for (;;) {
    temporary = folder_of(file) / (".sara_finetune." + std::to_string(::getpid()) + "." + std::to_string(++last));
    const int number = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (number >= 0) return number;
    if (errno != EEXIST) {
      const int error = errno;
      temporary.clear();
      refuse(file, "creating a temporary file in " + folder_of(file).string(), error);
    }
  }
}

}   // namespace

staged_file::staged_file(std::filesystem::path file, std::span<const std::string_view> parts) : file_(std::move(file)) {
  descriptor to(create_beside(file_, temporary_));
  const auto give_up = [&](const char* what) {
    const int error = errno;
    ::unlink(temporary_.c_str());   // no destructor runs after a constructor that throws
    refuse(file_, what, error);
  };
  for (std::string_view part : parts) {
    while (!part.empty()) {
      constexpr std::size_t at_once = std::size_t{1} << 30;   // Linux takes no more than 2 GiB
      const ssize_t written = ::write(to.number(), part.data(), std::min(part.size(), at_once));
      if (written < 0 && errno != EINTR) give_up("writing");
      if (written > 0) part.remove_prefix(static_cast<std::size_t>(written));
    }
  }
  if (::fsync(to.number()) != 0) give_up("fsync");
  if (to.close() != 0) give_up("close");
}

staged_file::~staged_file() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void staged_file::commit() {
  if (temporary_.empty()) throw std::runtime_error(file_.string() + ": cannot be written: it was committed before");
  if (::rename(temporary_.c_str(), file_.c_str()) != 0) refuse(file_, "rename", errno);
  temporary_.clear();
  // Without this the rename itself may be lost with the power. Not every file system can do it, nor every folder be opened.
  const descriptor folder(::open(folder_of(file_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.number() < 0) {
    if (errno != EACCES) refuse(file_, "opening its folder", errno);
  } else if (::fsync(folder.number()) != 0 && errno != EINVAL && errno != ENOTSUP) {
    refuse(file_, "fsync of its folder", errno);
  }
}

void write_file(const std::filesystem::path& file, std::span<const std::string_view> parts) { staged_file(file, parts).commit(); }
void write_file(const std::filesystem::path& file, std::string_view bytes) { staged_file(file, bytes).commit(); }

std::string read_file(const std::filesystem::path& file) {
  const auto fail = [&](const std::string& why) { throw std::runtime_error(file.string() + ": cannot be read: " + why); };
  const descriptor from(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (from.number() < 0) fail(std::strerror(errno));
  struct stat status;
  if (::fstat(from.number(), &status) != 0) fail(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) fail("it is not a regular file");
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t count = ::read(from.number(), bytes.data() + at, bytes.size() - at);
    if (count == 0) bytes.resize(at);   // it became shorter since
    if (count < 0 && errno != EINTR) fail(std::strerror(errno));
    if (count > 0) at += static_cast<std::size_t>(count);
  }
  return bytes;
}

std::string_view bytes_of(std::span<const float> values) {
  static_assert(std::endian::native == std::endian::little && sizeof(float) == 4, "the files hold little-endian fp32");
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

}   // namespace sara_finetune
