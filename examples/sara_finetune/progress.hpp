// How far a stage is: one line that redraws itself on a terminal, a plain line now and then elsewhere.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace sara_finetune {

struct progress_figures {
  std::int64_t tokens = 0;                                   // since the bar began; makes tokens a second; 0: not shown
  std::vector<std::pair<std::string, double>> losses = {};   // name and value, in this order; on a narrow terminal the last are left out
};

struct progress_options {
  std::int64_t first_step = 0;            // steps that an earlier run has taken: they say nothing of this one's speed
  int width = 0;                          // columns; 0: stderr's, asked at every redraw
  std::function<double()> seconds = {};   // the clock; absent: steady_clock
};

bool stderr_is_terminal();   // and one that can redraw a line (TERM is not dumb)
int stderr_width();          // 100 where it is unknown

class progress_bar {
 public:
  // On a terminal at most 10 redraws a second, elsewhere at most a line in 10 seconds.
  progress_bar(std::string stage, std::int64_t steps, std::ostream& out, bool terminal, progress_options options = {});
  progress_bar(const progress_bar&) = delete;
  progress_bar& operator=(const progress_bar&) = delete;
  ~progress_bar();   // leaves the line, so that an error's sentence begins its own

  void update(std::int64_t step, const progress_figures& figures);   // step: of `steps`, those taken

  // The last figures and how long it took. Nothing is shown after it.
  void finish();

 private:
  struct moment {
    double seconds;
    std::int64_t step, tokens;
  };
  std::string line(double now, int width) const;
  void show(double now);

  std::string stage_;
  std::int64_t steps_;
  std::ostream& out_;
  bool terminal_;
  progress_options options_;
  double begin_;
  moment now_;   // of the last update
  progress_figures figures_ = {};
  std::deque<moment> recent_;   // what the speed is taken from
  double next_show_;
  bool drawn_ = false, finished_ = false;
};

}   // namespace sara_finetune
