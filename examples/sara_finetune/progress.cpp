#include "progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace sara_finetune {
namespace {

constexpr double redraws_apart = 0.1, lines_apart = 10, speed_over = 15;   // seconds

double steady_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class... Values> std::string printed(const char* format, Values... values) {
  char text[64];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

std::string rate_text(double rate) {
  if (rate >= 1e6) return printed("%.2fM", rate / 1e6);
  return rate >= 1e4 ? printed("%.1fk", rate / 1e3) : printed("%.0f", rate);
}

// 0:07, 12:34, 1:02:03.
std::string time_text(double seconds) {
  if (!(seconds < 360000)) return "over 100 h";
  const long all = std::lround(std::max(seconds, 0.0)), minutes = all / 60;
  return minutes < 60 ? printed("%ld:%02ld", minutes, all % 60) : printed("%ld:%02ld:%02ld", minutes / 60, minutes % 60, all % 60);
}

std::string loss_text(double loss) { return std::abs(loss) >= 1 || loss == 0 ? printed("%.3f", loss) : printed("%.4f", loss); }

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

std::size_t columns(std::string_view text) {
  return text.size() - static_cast<std::size_t>(std::count_if(text.begin(), text.end(), continues_character));
}

std::string cut(const std::string& text, std::size_t width) {
  std::size_t at = 0;
  for (; at < text.size() && (width > 0 || continues_character(text[at])); ++at)
    if (!continues_character(text[at])) --width;
  return text.substr(0, at);
}

}   // namespace

bool stderr_is_terminal() {
  const char* const kind = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && kind != nullptr && std::strcmp(kind, "dumb") != 0;
}

int stderr_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
}

progress_bar::progress_bar(std::string stage, std::int64_t steps, std::ostream& out, bool terminal, progress_options options)
    : stage_(std::move(stage)), steps_(steps), out_(out), terminal_(terminal), options_(std::move(options)) {
  if (!options_.seconds) options_.seconds = steady_seconds;
  begin_ = options_.seconds();
  now_ = {begin_, options_.first_step, 0};
  recent_.push_back(now_);
  next_show_ = begin_ + (terminal_ ? 0 : lines_apart);
}

progress_bar::~progress_bar() {
  if (terminal_ && drawn_ && !finished_) out_ << '\n' << std::flush;
}

void progress_bar::update(std::int64_t step, const progress_figures& figures) {
  if (finished_) return;
  now_ = {options_.seconds(), step, figures.tokens};
  figures_ = figures;
  if (now_.seconds - recent_.back().seconds >= redraws_apart || recent_.size() == 1) {
    // One moment older than the span stays, so that slow steps have a speed too.
    while (recent_.size() > 1 && recent_[1].seconds <= now_.seconds - speed_over) recent_.pop_front();
    recent_.push_back(now_);
  }
  if (now_.seconds >= next_show_) show(now_.seconds);
}

void progress_bar::finish() {
  if (finished_) return;
  finished_ = true;
  show(options_.seconds());
}

void progress_bar::show(double now) {
  next_show_ = now + (terminal_ ? redraws_apart : lines_apart);
  drawn_ = true;
  if (!terminal_) {
    out_ << line(now, 0) << '\n' << std::flush;
    return;
  }
  // The last column stays free: a full line would wrap, and the next redraw would leave it standing.
  const int width = options_.width > 0 ? options_.width : stderr_width();
  out_ << '\r' << line(now, std::max(width - 1, 1)) << "\x1b[K" << (finished_ ? "\n" : "") << std::flush;
}

// width 0: without a bar, as long as it is.
std::string progress_bar::line(double now, int width) const {
  const double share = steps_ > 0 ? std::clamp(static_cast<double>(now_.step) / static_cast<double>(steps_), 0.0, 1.0) : 1;
  std::string before = printed("%3d %%  ", static_cast<int>(share * 100 + 1e-9)) + std::to_string(now_.step) + "/" + std::to_string(steps_);
  const moment from = finished_ ? moment{begin_, options_.first_step, 0} : recent_.front();
  const double seconds = (finished_ ? now : now_.seconds) - from.seconds;
  if (seconds > 0 && now_.tokens > from.tokens)
    before += "  " + rate_text(static_cast<double>(now_.tokens - from.tokens) / seconds) + " tokens/s";
  std::string after;
  if (finished_) {
    after = "  " + time_text(now - begin_);
  } else if (seconds > 0 && now_.step > from.step) {
    const double a_step = seconds / static_cast<double>(now_.step - from.step);
    after = "  " + time_text(static_cast<double>(std::max<std::int64_t>(steps_ - now_.step, 0)) * a_step - (now - now_.seconds)) + " left";
  }

  constexpr int shortest = 8, longest = 30;
  for (std::size_t count = figures_.losses.size();; --count) {
    std::string text = before;
    for (std::size_t i = 0; i < count; ++i) text += "  " + figures_.losses[i].first + " " + loss_text(figures_.losses[i].second);
    text += after;
    if (width == 0) return stage_ + "  " + text;
    const int room = width - static_cast<int>(columns(stage_) + columns(text)) - 6;   // two gaps and the brackets
    if (room < shortest && count > 1) continue;
    if (room < shortest) return cut(stage_ + "  " + text, static_cast<std::size_t>(width));
    const int cells = std::min(room, longest), full = static_cast<int>(share * cells);
    std::string bar(static_cast<std::size_t>(full), '=');
    if (full < cells) bar += '>';
    bar.resize(static_cast<std::size_t>(cells), ' ');
    return stage_ + "  [" + bar + "]  " + text;
  }
}

}   // namespace sara_finetune
