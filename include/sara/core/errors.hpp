// What a broken contract looks like: one exception type, one sentence that names the call and the argument.
#pragma once

#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "types.hpp"

namespace sara {

// A broken contract: `what()` names the function and the argument, what was expected and what was found. Nothing has been
// written when it is thrown. Builds without exceptions print the same sentence to stderr and abort.
struct invalid_argument : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

inline namespace SARA_ABI {

// What is said about an argument, put together from text and numbers. No std::string: what an object with other flags makes of its
// inline helpers the linker might choose for all.
class sentence {
 public:
  sentence(const char* text = "") { *this << text; }
  [[gnu::cold]] sentence& operator<<(const char* text) { return advance(std::snprintf(end(), room(), "%s", text)); }
  [[gnu::cold]] sentence& operator<<(const sentence& s) { return *this << s.text_; }
  [[gnu::cold]] sentence& operator<<(double x) { return advance(std::snprintf(end(), room(), "%.9g", x)); }
  template <std::integral N> [[gnu::cold]] sentence& operator<<(N n) {
    return advance(std::snprintf(end(), room(), "%lld", static_cast<long long>(n)));
  }
  // "[2, 5, 4]"
  [[gnu::cold]] sentence& shape(const index_t* extents, int rank) {
    *this << "[";
    for (int i = 0; i < rank; ++i) *this << (i ? ", " : "") << extents[i];
    return *this << "]";
  }
  const char* text() const { return text_; }

 private:
  char* end() { return text_ + size_; }
  std::size_t room() const { return sizeof text_ - size_; }
  sentence& advance(int written) {
    size_ += static_cast<std::size_t>(written) < room() ? static_cast<std::size_t>(written) : room() - 1;
    return *this;
  }

  char text_[640];
  std::size_t size_ = 0;
};

[[noreturn, gnu::cold, gnu::noinline]] inline void fail(const char* function, const sentence& about) {
  sentence message;
  message << "sara::" << function << ": " << about;
#if defined(__cpp_exceptions)
  throw invalid_argument(message.text());
#else
  std::fprintf(stderr, "%s\n", message.text());
  std::abort();
#endif
}

}   // namespace SARA_ABI
}   // namespace sara
