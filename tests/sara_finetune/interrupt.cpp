// Ctrl-C noted, and obeyed when it comes again.
#include "sara_finetune/interrupt.hpp"

#include <sys/wait.h>

#include <csignal>

#include "catch.hpp"
#include "files.hpp"

namespace {

using sara_finetune::interrupt_guard;

void (*handler_of(int signal))(int) {
  struct sigaction now;
  ::sigaction(signal, nullptr, &now);
  return now.sa_handler;
}

void noticed(int) {}

// How a child ends that does this: -signal, or its exit status.
template <class Act> int ends(const Act& act) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, SIG_DFL);
    act();
    ::_exit(99);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

}   // namespace

TEST_CASE("interrupt_guard: notes the first signal", "[sara_finetune]") {
  for (const int signal : {SIGINT, SIGTERM}) {
    const interrupt_guard guard;
    REQUIRE_FALSE(guard.requested());
    REQUIRE(guard.signal() == 0);
    ::raise(signal);
    REQUIRE(guard.requested());
    REQUIRE(guard.signal() == signal);
  }
}

TEST_CASE("interrupt_guard: the second signal ends the process", "[sara_finetune]") {
  for (const int first : {SIGINT, SIGTERM})
    for (const int second : {SIGINT, SIGTERM})
      REQUIRE(ends([&] {
                const interrupt_guard guard;
                ::raise(first);
                if (!guard.requested()) ::_exit(1);
                ::raise(second);
              }) == -second);
}

TEST_CASE("interrupt_guard: puts back what was there, signalled or not", "[sara_finetune]") {
  for (const bool signalled : {false, true}) {
    const auto old_interrupt = std::signal(SIGINT, noticed), old_terminate = std::signal(SIGTERM, noticed);
    {
      const interrupt_guard guard;
      REQUIRE(handler_of(SIGINT) != noticed);
      if (signalled) ::raise(SIGINT);
    }
    REQUIRE(handler_of(SIGINT) == noticed);
    REQUIRE(handler_of(SIGTERM) == noticed);
    std::signal(SIGINT, old_interrupt);
    std::signal(SIGTERM, old_terminate);
  }
  const interrupt_guard again;
  REQUIRE_FALSE(again.requested());
}

TEST_CASE("interrupt_guard: an ignored signal stays ignored", "[sara_finetune]") {
  REQUIRE(ends([] {
            std::signal(SIGINT, SIG_IGN);
            const interrupt_guard guard;
            ::raise(SIGINT);
            if (guard.requested()) ::_exit(1);
            ::raise(SIGTERM);
            if (guard.signal() != SIGTERM) ::_exit(2);
            ::raise(SIGINT);
            ::_exit(handler_of(SIGINT) == SIG_IGN ? 0 : 3);
          }) == 0);
}

TEST_CASE("interrupt_guard: a read that waits goes on", "[sara_finetune]") {
  REQUIRE(ends([] {
            int ends_of_pipe[2];
            if (::pipe(ends_of_pipe) != 0) ::_exit(1);
            const interrupt_guard guard;
            const pid_t parent = ::getpid();
            if (::fork() == 0) {
              ::usleep(50000);
              ::kill(parent, SIGINT);
              ::usleep(50000);
              ::_exit(::write(ends_of_pipe[1], "x", 1) == 1 ? 0 : 1);
            }
            char byte = 0;
            const bool read = ::read(ends_of_pipe[0], &byte, 1) == 1;
            ::_exit(read && byte == 'x' && guard.requested() ? 0 : 2);
          }) == 0);
}

TEST_CASE("interrupt_guard: one at a time", "[sara_finetune]") {
  const interrupt_guard guard;
  REQUIRE(files::complaint([] { interrupt_guard second; }) == "interrupt_guard: another one is alive");
  ::raise(SIGINT);
  REQUIRE(guard.requested());
}
