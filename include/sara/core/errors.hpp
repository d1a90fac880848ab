// What a broken contract looks like: one exception type, one sentence that names the call and the argument.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "types.hpp"

namespace sara {

// A broken contract: `what()` names the function and the argument, what was expected and what was found. Nothing has been
// written when it is thrown. Builds without exceptions print the same sentence to stderr and abort.
class invalid_argument : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

inline namespace SARA_ABI {

[[noreturn, gnu::cold, gnu::noinline]] inline void fail(const char* function, const std::string& sentence) {
  const std::string message = std::string("sara::") + function + ": " + sentence;
#if defined(__cpp_exceptions)
  throw invalid_argument(message);
#else
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
#endif
}

// "[2, 5, 4]"
[[gnu::cold, gnu::noinline]] inline std::string shape_text(const index_t* extents, int rank) {
  std::string text = "[";
  for (int i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(extents[i]);
  return text + "]";
}

}   // namespace SARA_ABI
}   // namespace sara
