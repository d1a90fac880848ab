#include "svg.hpp"

#include <algorithm>
#include <cmath>

#include "../text/utf8.hpp"
#include "numbers.hpp"

namespace sara_finetune {
namespace {

constexpr const char* replacement = "\xef\xbf\xbd";

bool finite(point p) { return std::isfinite(p.x) && std::isfinite(p.y); }
bool finite(const rectangle& r) {
  return std::isfinite(r.x) && std::isfinite(r.y) && std::isfinite(r.width) && std::isfinite(r.height) && r.width >= 0 && r.height >= 0;
}

std::string coordinate(double value) {
  std::string text = fixed(value, 2);
  while (text.ends_with('0')) text.pop_back();
  if (text.ends_with('.')) text.pop_back();
  return text;
}

std::string attribute(const char* name, const std::string& value) { return std::string(" ") + name + "=\"" + value + "\""; }
std::string attribute(const char* name, double value) { return attribute(name, coordinate(value)); }

std::string stroked(const stroke& with) {
  std::string text = attribute("stroke", escape(with.color)) + attribute("stroke-width", with.width);
  if (!with.dashes.empty()) text += attribute("stroke-dasharray", escape(with.dashes));
  return text;
}

std::string pair_of(point p) { return coordinate(p.x) + "," + coordinate(p.y); }

std::string corners(const rectangle& r) {
  return attribute("x", r.x) + attribute("y", r.y) + attribute("width", r.width) + attribute("height", r.height);
}

}   // namespace

std::string escape(std::string_view text) {
  std::string safe;
  while (!text.empty()) {
    const std::size_t valid = std::min(first_invalid_utf8(text), text.size());
    for (const char c : text.substr(0, valid)) {
      switch (c) {
        case '&':
          safe += "&amp;";
          break;
        case '<':
          safe += "&lt;";
          break;
        case '>':
          safe += "&gt;";
          break;
        case '"':
          safe += "&quot;";
          break;
        case '\'':
          safe += "&#39;";
          break;
        case '\t':
        case '\n':
          safe += c;
          break;
        default:
          if (static_cast<unsigned char>(c) < 0x20) {
            safe += replacement;
          } else {
            safe += c;
          }
      }
    }
    text.remove_prefix(valid);
    if (!text.empty()) {
      safe += replacement;
      text.remove_prefix(1);
    }
  }
  // The two characters that UTF-8 can say and XML cannot.
  for (const char* not_a_character : {"\xef\xbf\xbe", "\xef\xbf\xbf"}) {
    for (std::size_t at = safe.find(not_a_character); at != std::string::npos; at = safe.find(not_a_character)) {
      safe.replace(at, 3, replacement);
    }
  }
  return safe;
}

double text_width(std::string_view text, double size) {
  constexpr std::string_view narrow = " .,:;'|!()[]-/fijlrt", wide = "mwMW%@";
  double em = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text, at);
    const char c = text[at];
    // Three bytes and more: most of the world's scripts, ideographs among them.
    em += length >= 3                                ? 1
          : length != 1                              ? 0.7
          : narrow.find(c) != std::string_view::npos ? 0.41
          : wide.find(c) != std::string_view::npos   ? 0.98
          : c >= 'A' && c <= 'Z'                     ? 0.74
                                                     : 0.63;
    at += std::max<std::size_t>(1, length);
  }
  return em * size;
}

std::string fitted(std::string_view text, double width, double size) {
  if (text_width(text, size) <= width) return std::string(text);
  std::string kept;
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view character = text.substr(at, std::max<std::size_t>(1, utf8_length(text, at)));
    if (text_width(kept + std::string(character) + "\u2026", size) > width) break;
    kept += character;
    at += character.size();
  }
  return kept + "\u2026";
}

void drawing::line(point from, point to, const stroke& with) {
  if (!finite(from) || !finite(to)) return;
  body_ +=
      "<line" + attribute("x1", from.x) + attribute("y1", from.y) + attribute("x2", to.x) + attribute("y2", to.y) + stroked(with) + "/>\n";
}

void drawing::path(std::span<const point> points, const stroke& with) {
  for (std::size_t begin = 0; begin < points.size();) {
    std::size_t end = begin;
    std::string coordinates;
    while (end < points.size() && finite(points[end])) coordinates += (end == begin ? "" : " ") + pair_of(points[end]), ++end;
    if (end > begin + 1) {
      body_ += "<polyline" + attribute("points", coordinates) + attribute("fill", "none") + stroked(with) +
               " stroke-linejoin=\"round\" stroke-linecap=\"round\"/>\n";
    }
    begin = end + 1;
  }
}

void drawing::band(std::span<const point> low, std::span<const point> high, const std::string& color, double opacity) {
  const std::size_t count = std::min(low.size(), high.size());
  for (std::size_t begin = 0; begin < count;) {
    std::size_t end = begin;
    while (end < count && finite(low[end]) && finite(high[end])) ++end;
    if (end > begin + 1) {
      std::string coordinates;
      for (std::size_t i = begin; i < end; ++i) coordinates += pair_of(low[i]) + " ";
      for (std::size_t i = end; i > begin; --i) coordinates += pair_of(high[i - 1]) + (i - 1 == begin ? "" : " ");
      body_ +=
          "<polygon" + attribute("points", coordinates) + attribute("fill", escape(color)) + attribute("fill-opacity", opacity) + "/>\n";
    }
    begin = end + 1;
  }
}

void drawing::fill(const rectangle& area, const std::string& color) {
  if (finite(area)) body_ += "<rect" + corners(area) + attribute("fill", escape(color)) + " shape-rendering=\"crispEdges\"/>\n";
}

void drawing::outline(const rectangle& area, const stroke& with) {
  if (finite(area)) body_ += "<rect" + corners(area) + attribute("fill", "none") + stroked(with) + "/>\n";
}

void drawing::mark(marker shape, point at, double size, const std::string& color) {
  if (!finite(at) || !std::isfinite(size)) return;
  const double r = size / 2;
  const std::string filled = attribute("fill", escape(color)) + " stroke=\"#ffffff\" stroke-width=\"1\"/>\n";
  const auto polygon = [&](std::initializer_list<point> points) {
    std::string coordinates;
    for (const point p : points) coordinates += (coordinates.empty() ? "" : " ") + pair_of(p);
    body_ += "<polygon" + attribute("points", coordinates) + filled;
  };
  switch (shape) {
    case marker::none:
      break;
    case marker::circle:
      body_ += "<circle" + attribute("cx", at.x) + attribute("cy", at.y) + attribute("r", r) + filled;
      break;
    case marker::square:
      body_ += "<rect" + corners({at.x - 0.9 * r, at.y - 0.9 * r, 1.8 * r, 1.8 * r}) + filled;
      break;
    case marker::diamond:
      polygon({{at.x, at.y - 1.25 * r}, {at.x + 1.25 * r, at.y}, {at.x, at.y + 1.25 * r}, {at.x - 1.25 * r, at.y}});
      break;
    case marker::triangle:
      polygon({{at.x, at.y - 1.2 * r}, {at.x + 1.15 * r, at.y + 0.9 * r}, {at.x - 1.15 * r, at.y + 0.9 * r}});
      break;
  }
}

void drawing::text(point at, std::string_view words, const lettering& style) {
  if (!finite(at)) return;
  body_ +=
      "<text" + attribute("x", at.x) + attribute("y", at.y) + attribute("font-size", style.size) + attribute("fill", escape(style.color));
  if (style.to != align::start) body_ += attribute("text-anchor", style.to == align::middle ? "middle" : "end");
  if (style.bold) body_ += " font-weight=\"600\"";
  if (style.rotation != 0)
    body_ += attribute("transform", "rotate(" + coordinate(style.rotation) + " " + coordinate(at.x) + " " + coordinate(at.y) + ")");
  body_ += ">" + escape(words) + "</text>\n";
}

std::string drawing::svg(double width, double height) const {
  const std::string w = coordinate(width), h = coordinate(height);
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + w + " " + h + "\" width=\"" + w + "\" height=\"" + h +
         "\" role=\"img\" font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', Arial, "
         "sans-serif\">\n<title>" +
         escape(description_) + "</title>\n<rect width=\"" + w + "\" height=\"" + h + "\" fill=\"#ffffff\"/>\n" + body_ + "</svg>\n";
}

}   // namespace sara_finetune
