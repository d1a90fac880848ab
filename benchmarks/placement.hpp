// Where threads run. A scheduler may wake a sleeping thread on the very processor that its caller keeps busy, and leave it there for
// milliseconds while another is idle: two threads then take as long as one, and whether they do is a toss of a coin. So the thread
// that measures stays on the first processor this process may use, and all its other threads, whosever they are, on the rest.
#pragma once

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#endif

namespace benchmarks {

#if defined(__linux__)
struct processors {
  cpu_set_t all, first, rest;

  static const processors& mine() {   // as they were when this was first asked
    static const processors p;
    return p;
  }
  bool can_be_parted() const { return CPU_COUNT(&all) > 1; }

 private:
  processors() {
    CPU_ZERO(&all);
    CPU_ZERO(&first);
    sched_getaffinity(0, sizeof all, &all);
    rest = all;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &all)) {
        CPU_SET(cpu, &first);
        CPU_CLR(cpu, &rest);
        break;
      }
  }
};

// Parts the caller's thread from those that exist now.
inline void part_threads() {
  const processors& p = processors::mine();
  if (!p.can_be_parted()) return;
  sched_setaffinity(0, sizeof p.first, &p.first);
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task"))
    if (const int thread = std::atoi(entry.path().filename().c_str()); thread != gettid())
      sched_setaffinity(thread, sizeof p.rest, &p.rest);
}

// Lets the caller's thread run anywhere again: what it spawns inherits its processors.
inline void let_caller_roam() {
  const processors& p = processors::mine();
  sched_setaffinity(0, sizeof p.all, &p.all);
}
#else
inline void part_threads() {}
inline void let_caller_roam() {}
#endif

}   // namespace benchmarks
