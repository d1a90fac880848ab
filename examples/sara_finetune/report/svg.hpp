// A drawing in SVG: self-contained, without scripts, identifiers or references, so that several stand in one page.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sara_finetune {

// For XML and HTML, in text and attributes alike. What XML 1.0 cannot hold (control characters, bytes that are not UTF-8) becomes U+FFFD.
std::string escape(std::string_view text);

struct point {
  double x = 0, y = 0;
};

struct rectangle {
  double x = 0, y = 0, width = 0, height = 0;

  double right() const { return x + width; }
  double bottom() const { return y + height; }
};

struct stroke {
  std::string color = "#000000";
  double width = 1;
  std::string dashes = {};   // as SVG's stroke-dasharray; absent: solid
};

enum class marker { none, circle, square, diamond, triangle };
enum class align { start, middle, end };

struct lettering {
  double size = 12;
  std::string color = "#222222";
  align to = align::start;
  bool bold = false;
  double rotation = 0;   // degrees, about the text's point
};

// An estimate from above for the usual system fonts, in the drawing's units.
double text_width(std::string_view text, double size);

// The longest beginning of `text` that fits, with an ellipsis if something is left out.
std::string fitted(std::string_view text, double width, double size);

// Whatever has a coordinate that is not finite is left out: a gap, never a broken file.
class drawing {
 public:
  // For readers who do not see it.
  explicit drawing(std::string description) : description_(std::move(description)) {}

  void line(point from, point to, const stroke& with);
  // Broken where a point is not finite; a stretch of one point alone shows by its marker only.
  void path(std::span<const point> points, const stroke& with);
  void band(std::span<const point> low, std::span<const point> high, const std::string& color, double opacity);
  void fill(const rectangle& area, const std::string& color);
  void outline(const rectangle& area, const stroke& with);
  void mark(marker shape, point at, double size, const std::string& color);
  void text(point at, std::string_view words, const lettering& style = {});

  std::string svg(double width, double height) const;

 private:
  std::string description_, body_;
};

}   // namespace sara_finetune
