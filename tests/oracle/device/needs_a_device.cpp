// Linked into the tests on a GPU: where there is none they say so and end before they begin, with what ctest takes for "skipped".
#define CATCH_CONFIG_EXTERNAL_INTERFACES   // v2's listeners
#include "../../catch.hpp"
#include "../device.hpp"

#include <cstdio>
#include <cstdlib>

namespace {

#if __has_include(<catch2/catch_all.hpp>)
using listener = Catch::EventListenerBase;
#else
using listener = Catch::TestEventListenerBase;
#endif

struct needs_a_device : listener {
  using listener::listener;
  void testRunStarting(const Catch::TestRunInfo&) override {
    if (oracle::device_is_there()) return;
    std::puts("skipped: no CUDA device");
    std::exit(77);
  }
};
CATCH_REGISTER_LISTENER(needs_a_device)

}   // namespace
