// The two kinds of picture that the figures are put together from: a panel of lines and a heat map.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "svg.hpp"

namespace sara_finetune {

struct line_style {
  stroke pen = {};
  marker shape = marker::none;
};

struct line_series {
  std::string label = {};   // of the legend; absent: not in it
  line_style style = {};
  std::vector<point> points = {};
  std::vector<point> low = {}, high = {};   // a band about the points; absent: none
};

struct line_panel {
  std::string title = {}, x_label = {}, y_label = {};
  std::vector<line_series> series = {};
  std::optional<std::pair<double, double>> x_range = {}, y_range = {};   // absent: what the points span
  bool from_zero = false;                                                // the y axis begins at 0
  bool whole_numbers = false;                                            // x ticks at every whole number that has room
  std::optional<std::pair<double, double>> shaded = {};                  // from x to x
  std::string shaded_label = {};
  std::string if_empty = "not measured";   // said where no point is
};

// Lowest and highest finite y of all points and bands; absent if there is none.
std::optional<std::pair<double, double>> y_span(const std::vector<line_series>& series);

// `frame` is the plotted area: the axes' words stand outside it, about 52 to its left, 40 below, 12 above.
void draw(drawing& onto, const rectangle& frame, const line_panel& panel);

// Entries side by side, in as many rows as they need. Returns the height.
double draw_legend(drawing& onto, point corner, double width, const std::vector<line_series>& entries);

enum class palette { sequential, diverging };   // white to blue; orange, white, blue

struct color_scale {
  palette colors = palette::sequential;
  double low = 0, high = 1;
};

std::string color_of(const color_scale& scale, double value);

struct heat_map {
  std::string title = {}, x_label = {}, y_label = {};
  std::vector<std::string> rows = {}, columns = {};
  std::vector<std::vector<double>> values = {};   // [rows][columns]; not finite: an empty cell
  color_scale scale = {};
  int decimals = 1;                                                                         // of the values in the cells
  std::optional<std::pair<std::size_t, std::size_t>> boxed_rows = {}, boxed_columns = {};   // first and last, outlined
};

// `area` is the cells'; the rows' names stand to its left. Values are printed where a cell has room.
void draw(drawing& onto, const rectangle& area, const heat_map& map);

// A bar of the scale's colours with its ends and middle named.
void draw_scale(drawing& onto, const rectangle& bar, const color_scale& scale, const std::string& label, int decimals = 1);

}   // namespace sara_finetune
