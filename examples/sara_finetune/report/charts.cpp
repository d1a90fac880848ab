#include "charts.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "numbers.hpp"

namespace sara_finetune {
namespace {

constexpr const char* quiet = "#5f6368";
constexpr const char* grid = "#e4e6ea";
constexpr const char* axis = "#9aa0a6";
constexpr const char* window_fill = "#eef3fb";

using range = std::pair<double, double>;

void include(std::optional<range>& span, double value) {
  if (!std::isfinite(value)) return;
  if (!span) span = {value, value};
  span = {std::min(span->first, value), std::max(span->second, value)};
}

// 1, 2 or 5 times a power of ten, at least `step`.
double round_step(double step) {
  const double power = std::pow(10.0, std::floor(std::log10(step)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= step * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

// Where the ticks of an axis lie: first, step and how many decimals their names need.
struct ticks {
  double first = 0, step = 1;
  int decimals = 0;
  int count = 0;

  double at(int i) const { return first + i * step; }
};

ticks ticks_in(range span, double most, double least_step = 0) {
  const double step = round_step(std::max((span.second - span.first) / std::max(most, 1.0), std::max(least_step, 1e-12)));
  const double first = std::ceil(span.first / step - 1e-9) * step;
  return {.first = first,
          .step = step,
          .decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9))),
          .count = 1 + static_cast<int>(std::floor((span.second - first) / step + 1e-9))};
}

range widened(range span, double share) {
  const double room = share * (span.second - span.first);
  return {span.first - room, span.second + room};
}

range not_empty(range span) {
  if (span.second > span.first) return span;
  const double half = span.first == 0 ? 0.5 : 0.05 * std::abs(span.first);
  return {span.first - half, span.second + half};
}

using rgb = std::array<double, 3>;

rgb shade(const color_scale& scale, double value) {
  static constexpr std::array<rgb, 5> blues = {{{247, 251, 255}, {200, 220, 240}, {115, 178, 216}, {40, 121, 185}, {8, 48, 107}}};
  static constexpr std::array<rgb, 5> orange_blue = {{{179, 88, 6}, {247, 187, 119}, {248, 248, 248}, {146, 190, 222}, {33, 102, 172}}};
  const std::array<rgb, 5>& stops = scale.colors == palette::sequential ? blues : orange_blue;
  const double width = scale.high - scale.low;
  const double along = width > 0 ? 4 * std::clamp((value - scale.low) / width, 0.0, 1.0) : 0;
  const std::size_t below = std::min<std::size_t>(static_cast<std::size_t>(along), 3);
  const double part = along - static_cast<double>(below);
  rgb color;
  for (std::size_t c = 0; c < 3; ++c) color[c] = stops[below][c] + part * (stops[below + 1][c] - stops[below][c]);
  return color;
}

std::string hexadecimal(const rgb& color) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text = "#";
  for (const double channel : color) {
    const auto byte = static_cast<unsigned>(std::lround(channel));
    text += {digits[byte / 16], digits[byte % 16]};
  }
  return text;
}

// The index of every `stride`-th name, so that names of this width have room.
std::size_t stride_for(const std::vector<std::string>& names, double cell, double size) {
  double widest = 0;
  for (const std::string& name : names) widest = std::max(widest, text_width(name, size));
  return static_cast<std::size_t>(std::max(1.0, std::ceil((widest + 4) / std::max(cell, 1e-6))));
}

}   // namespace

std::optional<range> y_span(const std::vector<line_series>& series) {
  std::optional<range> span;
  for (const line_series& one : series) {
    for (const auto* points : {&one.points, &one.low, &one.high}) {
      for (const point p : *points) {
        if (std::isfinite(p.x)) include(span, p.y);
      }
    }
  }
  return span;
}

void draw(drawing& onto, const rectangle& frame, const line_panel& panel) {
  std::optional<range> x = panel.x_range, y = panel.y_range ? panel.y_range : y_span(panel.series);
  if (!x) {
    for (const line_series& one : panel.series) {
      for (const point p : one.points) {
        if (std::isfinite(p.y)) include(x, p.x);
      }
    }
  }
  onto.text({frame.x, frame.y - 12}, panel.title, {.size = 13, .bold = true});
  if (!x || !y) {
    onto.outline(frame, {.color = grid});
    onto.text({frame.x + frame.width / 2, frame.y + frame.height / 2}, panel.if_empty, {.color = quiet, .to = align::middle});
    return;
  }
  if (panel.from_zero) y = range{std::min(0.0, y->first), y->second};
  const range across = not_empty(*x);
  range up = widened(not_empty(*y), 0.06);
  if (panel.from_zero && y->first >= 0) up.first = 0;
  const auto place = [&](point p) {
    return point{frame.x + frame.width * (p.x - across.first) / (across.second - across.first),
                 frame.bottom() - frame.height * (p.y - up.first) / (up.second - up.first)};
  };

  if (panel.shaded) {
    const double from = place({panel.shaded->first, up.first}).x, to = place({panel.shaded->second, up.first}).x;
    onto.fill({from, frame.y, to - from, frame.height}, window_fill);
    onto.text({(from + to) / 2, frame.y + 13}, fitted(panel.shaded_label, to - from, 10.5),
              {.size = 10.5, .color = quiet, .to = align::middle});
  }
  const ticks rows = ticks_in(up, frame.height / 34);
  for (int i = 0; i < rows.count; ++i) {
    const double at = place({across.first, rows.at(i)}).y;
    onto.line({frame.x, at}, {frame.right(), at}, {.color = grid});
    onto.text({frame.x - 7, at + 4}, fixed(rows.at(i), rows.decimals), {.size = 11, .color = quiet, .to = align::end});
  }
  const ticks columns = ticks_in(across, frame.width / 46, panel.whole_numbers ? 1 : 0);
  for (int i = 0; i < columns.count; ++i) {
    const double at = place({columns.at(i), up.first}).x;
    onto.line({at, frame.bottom()}, {at, frame.bottom() + 4}, {.color = axis});
    onto.text({at, frame.bottom() + 17}, fixed(columns.at(i), columns.decimals), {.size = 11, .color = quiet, .to = align::middle});
  }
  onto.line({frame.x, frame.bottom()}, {frame.right(), frame.bottom()}, {.color = axis});
  onto.text({frame.x + frame.width / 2, frame.bottom() + 35}, panel.x_label, {.size = 12, .to = align::middle});
  onto.text({frame.x - 46, frame.y + frame.height / 2}, panel.y_label, {.size = 12, .to = align::middle, .rotation = -90});

  const auto placed = [&](const std::vector<point>& points) {
    std::vector<point> there;
    for (const point p : points) there.push_back(place(p));
    return there;
  };
  for (const line_series& one : panel.series) onto.band(placed(one.low), placed(one.high), one.style.pen.color, 0.16);
  for (const line_series& one : panel.series) {
    const std::vector<point> points = placed(one.points);
    onto.path(points, one.style.pen);
    const double apart = frame.width / static_cast<double>(std::max<std::size_t>(points.size(), 1));
    for (const point p : points) onto.mark(one.style.shape, p, std::clamp(apart / 3, 4.0, 8.0), one.style.pen.color);
  }
}

double draw_legend(drawing& onto, point corner, double width, const std::vector<line_series>& entries) {
  constexpr double size = 12, row = 20, sample = 30;
  point at = {corner.x, corner.y + 12};
  for (const line_series& entry : entries) {
    if (entry.label.empty()) continue;
    const std::string label = fitted(entry.label, width - sample - 8, size);
    const double needed = sample + 8 + text_width(label, size);
    if (at.x > corner.x && at.x + needed > corner.x + width) at = {corner.x, at.y + row};
    const point ends[] = {{at.x, at.y - 4}, {at.x + sample, at.y - 4}};
    onto.path(ends, entry.style.pen);
    onto.mark(entry.style.shape, {at.x + sample / 2, at.y - 4}, 8, entry.style.pen.color);
    onto.text({at.x + sample + 8, at.y}, label, {.size = size});
    at.x += needed + 16;
  }
  return at.y - corner.y + row - 12;
}

std::string color_of(const color_scale& scale, double value) { return std::isfinite(value) ? hexadecimal(shade(scale, value)) : "#ffffff"; }

void draw(drawing& onto, const rectangle& area, const heat_map& map) {
  const double width = area.width / static_cast<double>(std::max<std::size_t>(map.columns.size(), 1));
  const double height = area.height / static_cast<double>(std::max<std::size_t>(map.rows.size(), 1));
  const auto cell = [&](std::size_t r, std::size_t c) {
    return rectangle{area.x + width * static_cast<double>(c), area.y + height * static_cast<double>(r), width, height};
  };
  double widest = 0;
  for (const auto& row : map.values) {
    for (const double value : row) widest = std::max(widest, std::isfinite(value) ? text_width(fixed(value, map.decimals), 11) : 0);
  }
  const bool printed = width >= widest + 1 && height >= 14;

  onto.text({area.x, area.y - 12}, map.title, {.size = 13, .bold = true});
  for (std::size_t r = 0; r < map.values.size(); ++r) {
    for (std::size_t c = 0; c < map.values[r].size(); ++c) {
      const double value = map.values[r][c];
      const rectangle where = cell(r, c);
      // Neighbours overlap, or the ground shines through between them.
      onto.fill({where.x, where.y, std::min(width + 0.5, area.right() - where.x), std::min(height + 0.5, area.bottom() - where.y)},
                color_of(map.scale, value));
      if (!std::isfinite(value)) onto.line({where.x, where.bottom()}, {where.right(), where.y}, {.color = grid});
      if (!printed || !std::isfinite(value)) continue;
      const rgb color = shade(map.scale, value);
      const bool dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140;
      onto.text({where.x + width / 2, where.y + height / 2 + 4}, fixed(value, map.decimals),
                {.size = 11, .color = dark ? "#ffffff" : "#222222", .to = align::middle});
    }
  }
  onto.outline(area, {.color = axis});

  const std::size_t every_column = stride_for(map.columns, width, 11);
  for (std::size_t c = 0; c < map.columns.size(); c += every_column) {
    onto.text({cell(0, c).x + width / 2, area.bottom() + 15}, map.columns[c], {.size = 11, .color = quiet, .to = align::middle});
  }
  const auto every_row = static_cast<std::size_t>(std::max(1.0, std::ceil(13 / std::max(height, 1e-6))));
  for (std::size_t r = 0; r < map.rows.size(); r += every_row) {
    onto.text({area.x - 7, cell(r, 0).y + height / 2 + 4}, map.rows[r], {.size = 11, .color = quiet, .to = align::end});
  }
  onto.text({area.x + area.width / 2, area.bottom() + 32}, map.x_label, {.size = 12, .to = align::middle});
  onto.text({area.x - 34, area.y + area.height / 2}, map.y_label, {.size = 12, .to = align::middle, .rotation = -90});

  const stroke box = {.color = "#222222", .width = 1.6, .dashes = {}};
  if (map.boxed_columns) {
    const double from = cell(0, map.boxed_columns->first).x, to = cell(0, map.boxed_columns->second).right();
    onto.outline({from, area.y, to - from, area.height}, box);
  }
  if (map.boxed_rows) {
    const double from = cell(map.boxed_rows->first, 0).y, to = cell(map.boxed_rows->second, 0).bottom();
    onto.outline({area.x, from, area.width, to - from}, box);
  }
}

void draw_scale(drawing& onto, const rectangle& bar, const color_scale& scale, const std::string& label, int decimals) {
  constexpr int steps = 60;
  const auto value = [&](double along) { return scale.low + along * (scale.high - scale.low); };
  for (int i = 0; i < steps; ++i) {
    const double from = bar.x + bar.width * i / steps;
    onto.fill({from, bar.y, bar.width / steps + 0.3, bar.height}, color_of(scale, value((i + 0.5) / steps)));
  }
  onto.outline(bar, {.color = axis});
  for (const double along : {0.0, 0.5, 1.0}) {
    onto.text({bar.x + along * bar.width, bar.bottom() + 14}, value(along) == 0 ? "0" : fixed(value(along), decimals),
              {.size = 11, .color = quiet, .to = align::middle});
  }
  onto.text({bar.right() + 24, bar.y + bar.height - 1}, label, {.size = 12});
}

}   // namespace sara_finetune
