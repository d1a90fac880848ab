// What the tests of the emulated device share: memory on it, launches, every schedule, and the last words of a program that it stops.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include "catch.hpp"
#include "emulated_cuda.h"

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool under_asan = true;
#elif defined(__has_feature)
inline constexpr bool under_asan = __has_feature(address_sanitizer);
#else
inline constexpr bool under_asan = false;
#endif
#if defined(__SANITIZE_THREAD__)
inline constexpr bool under_tsan = true;
#elif defined(__has_feature)
inline constexpr bool under_tsan = __has_feature(thread_sanitizer);
#else
inline constexpr bool under_tsan = false;
#endif

template <class T> class device_array {
 public:
  explicit device_array(std::size_t n) : size_(n) { REQUIRE(cudaMalloc(&data_, n * sizeof(T)) == cudaSuccess); }
  explicit device_array(const std::vector<T>& v) : device_array(v.size()) {
    REQUIRE(cudaMemcpy(data_, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  ~device_array() { cudaFree(data_); }
  device_array(const device_array&) = delete;
  device_array& operator=(const device_array&) = delete;

  T* data() const { return data_; }
  std::vector<T> read() const {
    std::vector<T> v(size_);
    REQUIRE(cudaMemcpy(v.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return v;
  }

 private:
  std::size_t size_;
  T* data_ = nullptr;
};

struct shape {
  dim3 grid, block;
  std::size_t dynamic_bytes = 0;
  cudaStream_t stream = nullptr;
};

template <class... Parameters, class... Arguments>
cudaError_t try_launch(const shape& s, void (*kernel)(Parameters...), const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = s.grid;
  config.blockDim = s.block;
  config.dynamicSmemBytes = s.dynamic_bytes;
  config.stream = s.stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}
template <class... Parameters, class... Arguments>
void launch(const shape& s, void (*kernel)(Parameters...), const Arguments&... arguments) {
  REQUIRE(try_launch(s, kernel, arguments...) == cudaSuccess);
}

template <class Body> void for_each_schedule(Body body) {
  for (const char* schedule : {"forward", "backward", "1", "2", "3"}) {
    INFO("schedule " << schedule);
    emulated_cuda::set_schedule(schedule);
    body();
  }
  emulated_cuda::set_schedule("forward");
}

// What a child process writes to its standard error while it runs `body`.
template <class Body> std::string last_words(Body body) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);   // not Catch's
    dup2(ends[1], STDERR_FILENO);
    body();
    _exit(0);
  }
  close(ends[1]);
  std::string words;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) words.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return words;
}

// Does the emulated device stop a launch of the kernel, with these words?
template <class... Parameters, class... Arguments>
void check_stops(const std::string& words, const shape& s, void (*kernel)(Parameters...), const Arguments&... arguments) {
  const std::string said = last_words([&] { static_cast<void>(try_launch(s, kernel, arguments...)); });
  INFO("it said: " << said);
  CHECK(said.find("emulated CUDA device: ") == 0);
  CHECK(said.find(words) != std::string::npos);
}
