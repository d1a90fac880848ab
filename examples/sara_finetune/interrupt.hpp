// Ctrl-C and SIGTERM as a question that a training loop asks, so that it can save before it stops.
#pragma once

#include <signal.h>

#include <stdexcept>
#include <string>

namespace sara_finetune {

// Thrown by what a signal asked to end, after it has saved itself.
struct interrupted : std::runtime_error {
  interrupted(const std::string& sentence, int by) : std::runtime_error(sentence), signal(by) {}
  int signal;
};

// While it lives, the first SIGINT or SIGTERM is only noted; the next one ends the process at once. A signal that was ignored before (nohup)
// stays ignored. One guard at a time: a second one throws.
class interrupt_guard {
 public:
  interrupt_guard();
  interrupt_guard(const interrupt_guard&) = delete;
  interrupt_guard& operator=(const interrupt_guard&) = delete;
  ~interrupt_guard();   // as it was before, whatever has come

  bool requested() const { return signal() != 0; }
  int signal() const;   // which one came; 0: none. A program that it stops exits with 128 + signal()

 private:
  struct sigaction old_interrupt_, old_terminate_;
};

}   // namespace sara_finetune
