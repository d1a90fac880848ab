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
class invalid_argument : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

inline namespace SARA_ABI {

// What is said about an argument, put together from text and numbers. No std::string: what an object with other flags makes of its
// inline helpers the linker might choose for all.
class sentence {
 public:
  sentence(const char* text = "") { *this << text; }
  [[gnu::cold]] sentence& operator<<(const char* text) { return put("%s", text); }
  [[gnu::cold]] sentence& operator<<(const sentence& s) { return put("%s", s.text_); }
  [[gnu::cold]] sentence& operator<<(double x) { return put("%.9g", x); }
  template <std::integral N> [[gnu::cold]] sentence& operator<<(N n) { return put("%lld", static_cast<long long>(n)); }
  // "[2, 5, 4]"
  [[gnu::cold]] sentence& shape(const index_t* extents, int rank) {
    *this << "[";
    for (int i = 0; i < rank; ++i) *this << (i ? ", " : "") << extents[i];
    return *this << "]";
  }
  const char* text() const { return text_; }

 private:
  template <class X> sentence& put(const char* format, X x) {
    const int room = static_cast<int>(sizeof text_) - size_;
    const int written = std::snprintf(text_ + size_, static_cast<std::size_t>(room), format, x);
    size_ += written < room ? written : room - 1;
    return *this;
  }

  char text_[640];
  int size_ = 0;
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
