// Limits of the process that tests impose for a while.
#pragma once

#include <sys/resource.h>

#include <csignal>
#include <stdexcept>

namespace limits {

// No file grows beyond so many bytes: a write that would is cut short, the next one fails.
class file_size {
 public:
  explicit file_size(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limited = old_;
    limited.rlim_cur = bytes;
    if (::setrlimit(RLIMIT_FSIZE, &limited) != 0) throw std::runtime_error("no limit of a file's size");
  }
  file_size(const file_size&) = delete;
  file_size& operator=(const file_size&) = delete;
  ~file_size() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  void (*old_handler_)(int);
  rlimit old_{};
};

}   // namespace limits
