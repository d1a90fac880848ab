#include "interrupt.hpp"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace sara_finetune {
namespace {

std::atomic<int> received = 0;
std::atomic<bool> guarded = false;
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void set_handler(int number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;   // a write that is under way is not cut short
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGINT);
  sigaddset(&action.sa_mask, SIGTERM);
  ::sigaction(number, &action, nullptr);
}

std::atomic<bool> notes_interrupt = false, notes_terminate = false;

void note(int number) {
  const int error = errno;
  received.store(number);
  if (notes_interrupt) set_handler(SIGINT, SIG_DFL);
  if (notes_terminate) set_handler(SIGTERM, SIG_DFL);
  errno = error;
}

}   // namespace

interrupt_guard::interrupt_guard() {
  if (guarded.exchange(true)) throw std::runtime_error("interrupt_guard: another one is alive");
  received.store(0);
  ::sigaction(SIGINT, nullptr, &old_interrupt_);
  ::sigaction(SIGTERM, nullptr, &old_terminate_);
  notes_interrupt = old_interrupt_.sa_handler != SIG_IGN;
  notes_terminate = old_terminate_.sa_handler != SIG_IGN;
  if (notes_interrupt) set_handler(SIGINT, note);
  if (notes_terminate) set_handler(SIGTERM, note);
}

interrupt_guard::~interrupt_guard() {
  ::sigaction(SIGINT, &old_interrupt_, nullptr);
  ::sigaction(SIGTERM, &old_terminate_, nullptr);
  guarded.store(false);
}

int interrupt_guard::signal() const { return received.load(); }

}   // namespace sara_finetune
