// Every way to run a call's workers: spawned, in a pool, in a user's own parallel-for; each exactly once.
#include <sara/cpu/threads.hpp>

#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <string>
#endif

#include "catch.hpp"

namespace {

// How often each worker ran.
std::vector<int> run(const sara::parallel_for& pool, int workers) {
  std::vector<std::atomic<int>> visits(static_cast<std::size_t>(workers));
  const auto visit = [&](int w) { visits[static_cast<std::size_t>(w)].fetch_add(1); };
  if (pool)
    pool(workers, sara::worker_task(visit));
  else
    sara::spawn_threads(workers, sara::worker_task(visit));
  return {visits.begin(), visits.end()};
}

std::vector<int> once(int workers) { return std::vector<int>(static_cast<std::size_t>(workers), 1); }

}   // namespace

TEST_CASE("threads: a pool of a negative size is refused", "[cpu]") { REQUIRE_THROWS_AS(sara::thread_pool(-1), sara::invalid_argument); }

TEST_CASE("threads: spawned, each worker runs once, the first on the caller's thread", "[cpu]") {
  for (const int workers : {1, 2, 3, 16}) CHECK(run({}, workers) == once(workers));
  std::thread::id first;
  const auto note = [&](int w) {
    if (w == 0) first = std::this_thread::get_id();
  };
  sara::spawn_threads(3, sara::worker_task(note));
  CHECK(first == std::this_thread::get_id());
}

TEST_CASE("threads: a pool runs call after call, with fewer and with more workers than it has", "[cpu]") {
  for (const int size : {1, 2, 4}) {
    sara::thread_pool pool(size);
    CHECK(pool.size() == size);
    for (int call = 0; call < 300; ++call) {
      const int workers = 1 + call % 9;
      REQUIRE(run(pool, workers) == once(workers));
    }
    // so long idle that its threads sleep
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    CHECK(run(pool, 8) == once(8));
  }
}

TEST_CASE("threads: a pool's threads really run at the same time", "[cpu]") {
  sara::thread_pool pool(3);
  std::atomic<int> arrived{0};
  const auto meet = [&](int) {   // returns only when three threads are in it
    arrived.fetch_add(1);
    while (arrived.load() < 3) std::this_thread::yield();
  };
  pool(3, sara::worker_task(meet));
  CHECK(arrived == 3);
}

#if defined(__linux__)
namespace {

// Has every worker of a pool meet the others, so that each is on a thread of its own, and calls note(worker) there.
template <class Note> void on_every_thread(sara::thread_pool& pool, const Note& note) {
  std::atomic<int> arrived{0};
  const auto meet = [&](int w) {
    note(w);
    arrived.fetch_add(1);
    while (arrived.load() < pool.size()) std::this_thread::yield();
  };
  pool(pool.size(), sara::worker_task(meet));
}

// How often a thread of this process got a processor, once it sleeps: none where that cannot be told.
std::optional<long> switches_asleep(pid_t thread) {
  std::optional<long> last;
  for (int attempt = 0; attempt < 2000; ++attempt) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/status");
    bool asleep = false;
    long switches = 0;
    for (std::string name, line; file >> name && std::getline(file, line);) {
      if (name == "State:") asleep = line.find("sleeping") != std::string::npos;
      if (name.ends_with("ctxt_switches:")) switches += std::stol(line);
    }
    if (asleep && last == switches) return last;
    last = asleep ? std::optional(switches) : std::nullopt;
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
  return {};
}

std::atomic<int> held{0};   // threads in the handler; -1 lets them go
void hold(int) {
  held.fetch_add(1);
  while (held.load() > 0) sched_yield();
}

}   // namespace

TEST_CASE("threads: a pool wakes only as many as a call needs", "[cpu]") {
  sara::thread_pool pool(4);
  std::vector<pid_t> threads(4);
  on_every_thread(pool, [&](int w) { threads[static_cast<std::size_t>(w)] = gettid(); });
  std::vector<std::optional<long>> before, after;
  for (const int w : {1, 2, 3}) before.push_back(switches_asleep(threads[static_cast<std::size_t>(w)]));
  if (!before[0] || !before[1] || !before[2]) {
    WARN("skipped: /proc does not tell a thread's switches");
    return;
  }
  for (int call = 0; call < 100; ++call) {
    REQUIRE(run(pool, 2) == once(2));
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  for (const int w : {1, 2, 3}) after.push_back(switches_asleep(threads[static_cast<std::size_t>(w)]));
  CHECK(after[0] > before[0]);
  CHECK(after[1] == before[1]);
  CHECK(after[2] == before[2]);
}

TEST_CASE("threads: a call does not wait for a thread that cannot run", "[cpu]") {
  sara::thread_pool pool(3);
  std::vector<pthread_t> threads(3);
  on_every_thread(pool, [&](int w) { threads[static_cast<std::size_t>(w)] = pthread_self(); });
  struct sigaction holding {
  }, old{};
  holding.sa_handler = hold;
  REQUIRE(sigaction(SIGUSR1, &holding, &old) == 0);
  held = 0;
  REQUIRE(pthread_kill(threads[2], SIGUSR1) == 0);
  while (held.load() == 0) std::this_thread::yield();
  for (int call = 0; call < 20; ++call) {
    std::thread::id second;
    const auto note = [&](int w) {
      if (w == 2) second = std::this_thread::get_id();
    };
    pool(3, sara::worker_task(note));
    CHECK(second == std::this_thread::get_id());   // the caller has run its share
    CHECK(run(pool, 7) == once(7));
  }
  held = -1;
  on_every_thread(pool, [](int) {});   // it comes back, and takes no share twice
  CHECK(run(pool, 7) == once(7));
  sigaction(SIGUSR1, &old, nullptr);
}
#endif

TEST_CASE("threads: a call waits for the last of its threads, asleep if need be", "[cpu]") {
  sara::thread_pool pool(2);
  for (int call = 0; call < 5; ++call) {
    std::atomic<int> arrived{0}, done{0};
    const auto one_is_late = [&](int w) {
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();
      if (w == 1) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      done.fetch_add(1);
    };
    pool(2, sara::worker_task(one_is_late));
    CHECK(done == 2);
  }
}

TEST_CASE("threads: pools that come and go", "[cpu]") {
  for (int round = 0; round < 2000; ++round) {
    const int workers = 1 + round % 5;
    REQUIRE(run({}, workers) == once(workers));
    sara::thread_pool unused(workers);
  }
}

TEST_CASE("threads: a pool may be shared by threads; one call at a time", "[cpu]") {
  sara::thread_pool pool(2);
  std::atomic<int> inside{0}, together{0}, total{0};
  const auto user = [&] {
    for (int call = 0; call < 200; ++call) {
      std::atomic<int> mine{0};
      const auto task = [&](int) {
        if (inside.fetch_add(1) >= 2) together.fetch_add(1);   // more than the pool has threads
        mine.fetch_add(1);
        std::this_thread::yield();
        inside.fetch_sub(1);
      };
      pool(4, sara::worker_task(task));
      total.fetch_add(mine.load() == 4);
    }
  };
  std::thread a(user), b(user), c(user);
  a.join();
  b.join();
  c.join();
  CHECK(total == 600);
  CHECK(together == 0);
}

TEST_CASE("threads: the user's own parallel-for, in any order", "[cpu]") {
  std::vector<int> order;
  const auto backwards = [&](int workers, sara::worker_task task) {
    for (int w = workers; w-- > 0;) {
      order.push_back(w);
      task(w);
    }
  };
  CHECK(run(backwards, 5) == once(5));
  CHECK(order == std::vector<int>{4, 3, 2, 1, 0});
  CHECK(!sara::parallel_for{});
  CHECK(sara::parallel_for(backwards));
  struct counting {
    int calls = 0;
    void operator()(int workers, sara::worker_task task) {
      ++calls;
      for (int w = 0; w < workers; ++w) task(w);
    }
  } user;
  const sara::parallel_for view = user, copy = view;   // non-owning: both speak to `user`
  CHECK(run(view, 2) == once(2));
  CHECK(run(copy, 3) == once(3));
  CHECK(user.calls == 2);
}

TEST_CASE("threads: as many as the affinity mask allows", "[cpu]") {
  CHECK(sara::available_threads() >= 1);
#if defined(__linux__)
  int seen = 0;
  std::thread([&] {
    cpu_set_t all, one;
    REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
    CPU_ZERO(&one);
    for (int c = 0; c < CPU_SETSIZE; ++c)
      if (CPU_ISSET(c, &all)) {
        CPU_SET(c, &one);
        break;
      }
    REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
    seen = sara::available_threads();
  }).join();
  CHECK(seen == 1);
#endif
}
