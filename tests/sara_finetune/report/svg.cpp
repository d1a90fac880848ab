// Drawing: numbers, escaping, panels and heat maps.
#include "sara_finetune/report/svg.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <pugixml.hpp>
#include <sstream>

#include "catch.hpp"
#include "drawn_points.hpp"
#include "sara_finetune/report/charts.hpp"
#include "sara_finetune/report/numbers.hpp"

namespace {

using namespace sara_finetune;

constexpr double not_measured = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();

pugi::xml_document parsed(const std::string& svg) {
  pugi::xml_document document;
  const pugi::xml_parse_result result = document.load_string(svg.c_str());
  INFO(result.description() << " at " << result.offset);
  REQUIRE(result);
  REQUIRE(document.child("svg"));
  return document;
}

std::vector<std::string> texts(const pugi::xml_document& document) {
  std::vector<std::string> all;
  for (const pugi::xml_node& text : document.child("svg").children("text")) all.emplace_back(text.child_value());
  return all;
}

bool holds(const std::vector<std::string>& all, const std::string& one) { return std::find(all.begin(), all.end(), one) != all.end(); }

bool has_bad_number(const std::string& svg) {
  return svg.find("nan") != std::string::npos || svg.find("inf") != std::string::npos || svg.find("n/a") != std::string::npos;
}

}   // namespace

TEST_CASE("numbers: four significant digits, whatever the size", "[sara_finetune]") {
  CHECK(significant(2.3) == "2.300");
  CHECK(significant(0.0123456) == "0.01235");
  CHECK(significant(9.99996) == "10.00");
  CHECK(significant(0.99996) == "1.000");
  CHECK(significant(123456) == "123456");
  CHECK(significant(-37.284) == "-37.28");
  CHECK(significant(0) == "0.000");
  CHECK(significant(-0.0) == "0.000");
  CHECK(significant(0.00012345, 2) == "0.00012");
  CHECK(significant(1e-7) == "1.000e-07");
  CHECK(significant(not_measured) == "n/a");
  CHECK(significant(-infinity) == "n/a");
  CHECK(with_sign(0.5) == "+0.5000");
  CHECK(with_sign(-0.5) == "-0.5000");
  CHECK(with_sign(0) == "0.000");
  CHECK(fixed(-0.001, 1) == "0.0");
  CHECK(fixed(-0.06, 1) == "-0.1");
  CHECK(grouped(0) == "0");
  CHECK(grouped(999) == "999");
  CHECK(grouped(1234567) == "1,234,567");
  CHECK(grouped(-100000) == "-100,000");
}

TEST_CASE("svg: text is escaped, and what XML cannot hold is replaced", "[sara_finetune]") {
  CHECK(escape("<a href=\"x\">Tom & 'Jerry'</a>") == "&lt;a href=&quot;x&quot;&gt;Tom &amp; &#39;Jerry&#39;&lt;/a&gt;");
  CHECK(escape("Ki\u015b\u2192") == "Ki\u015b\u2192");
  CHECK(escape(std::string_view("a\x01z\0y", 5)) == "a\ufffdz\ufffdy");
  CHECK(escape("bad \xff\xc3( bytes") == "bad \ufffd\ufffd( bytes");
  CHECK(escape("\xef\xbf\xbe\xef\xbf\xbf") == "\ufffd\ufffd");

  drawing onto("<title> & more");
  onto.text({1, 2}, "</text><script>alert(1)</script>", {.color = "\" onload=\"x"});
  const std::string svg = onto.svg(10, 10);
  const pugi::xml_document document = parsed(svg);
  CHECK(texts(document) == std::vector<std::string>{"</text><script>alert(1)</script>"});
  CHECK(std::string(document.child("svg").child_value("title")) == "<title> & more");
  CHECK(svg.find("<script") == std::string::npos);
  CHECK_FALSE(document.child("svg").child("text").attribute("onload"));
}

TEST_CASE("svg: what is not finite leaves a gap", "[sara_finetune]") {
  drawing onto("gaps");
  const std::vector<point> points = {{0, 1}, {1, 2}, {2, not_measured}, {3, 4}, {infinity, 4}, {5, 6}, {6, 7}, {7, 8}};
  onto.path(points, {});
  onto.band(points, points, "#000000", 0.5);
  onto.line({0, not_measured}, {1, 1}, {});
  onto.mark(marker::circle, {not_measured, 1}, 4, "#000000");
  onto.mark(marker::diamond, {1, 1}, not_measured, "#000000");
  onto.fill({0, 0, not_measured, 1}, "#000000");
  onto.fill({0, 0, -1, 1}, "#000000");
  onto.outline({infinity, 0, 1, 1}, {});
  onto.text({not_measured, 1}, "nowhere");
  const std::string svg = onto.svg(10, 10);
  CHECK_FALSE(has_bad_number(svg));
  const pugi::xml_document document = parsed(svg);
  std::vector<std::size_t> lengths;
  for (const pugi::xml_node& line : document.child("svg").children("polyline")) lengths.push_back(points_of(line).size());
  CHECK(lengths == std::vector<std::size_t>{2, 3});
  CHECK(std::distance(document.child("svg").children("polygon").begin(), document.child("svg").children("polygon").end()) == 2);
  CHECK(std::distance(document.child("svg").children("rect").begin(), document.child("svg").children("rect").end()) == 1);   // the ground
  for (const char* left_out : {"line", "circle", "text"}) CHECK_FALSE(document.child("svg").child(left_out));
}

TEST_CASE("svg: text is cut to its room between characters", "[sara_finetune]") {
  CHECK(fitted("short", 100, 12) == "short");
  const std::string cut = fitted("\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9", 50, 12);
  CHECK(text_width(cut, 12) <= 50);
  CHECK(cut.size() > 6);
  CHECK(cut.ends_with("\u2026"));
  CHECK(escape(cut) == cut);   // still UTF-8
  CHECK(text_width("\xff\xff", 10) > 0);
}

TEST_CASE("charts: a panel of lines holds its points at their places", "[sara_finetune]") {
  const line_style style{.pen = {.color = "#0072b2", .width = 2}, .shape = marker::circle};
  line_panel panel{.title = "title", .x_label = "layer", .y_label = "nats"};
  panel.series = {{.label = "one", .style = style, .points = {{0, 10}, {1, 30}, {2, 20}, {3, 50}}}};
  panel.shaded = {{0.5, 2.5}};
  panel.from_zero = panel.whole_numbers = true;
  drawing onto("panel");
  draw(onto, {100, 50, 300, 200}, panel);
  const pugi::xml_document document = parsed(onto.svg(500, 300));
  const pugi::xml_node root = document.child("svg");
  const std::vector<point> at = points_of(root.child("polyline"));
  REQUIRE(at.size() == 4);
  CHECK(at[0].x == Approx(100));
  CHECK(at[3].x == Approx(400));
  CHECK((at[0].y - at[1].y) / (at[0].y - at[3].y) == Approx((30. - 10) / (50 - 10)).epsilon(1e-3));
  CHECK((250 - at[2].y) / (250 - at[0].y) == Approx(2).epsilon(1e-3));   // from zero
  for (const point p : at) {
    CHECK(p.y >= 50);
    CHECK(p.y <= 250);
  }
  CHECK(std::distance(root.children("circle").begin(), root.children("circle").end()) == 4);
  const std::vector<std::string> words = texts(document);
  for (const char* expected : {"title", "layer", "nats", "0", "1", "2", "3", "40"}) CHECK(holds(words, expected));
  CHECK_FALSE(holds(words, "0.5"));   // no half layers
  const pugi::xml_node shaded = *std::next(root.children("rect").begin());
  CHECK(shaded.attribute("x").as_double() == Approx(150));
  CHECK(shaded.attribute("width").as_double() == Approx(200));
}

TEST_CASE("charts: no points, one point, equal points", "[sara_finetune]") {
  const std::vector<std::vector<point>> cases = {
      {}, {{1, not_measured}, {not_measured, 2}}, {{3, 7}}, {{1, 5}, {2, 5}}, {{1, 0}, {2, 0}}, {{1, -3}, {2, not_measured}, {3, 1e-9}}};
  for (std::size_t c = 0; c < cases.size(); ++c) {
    for (const bool from_zero : {false, true}) {
      CAPTURE(c, from_zero);
      line_panel panel{.title = "t"};
      panel.series = {{.label = "s", .style = {.pen = {}, .shape = marker::square}, .points = cases[c]}};
      panel.from_zero = from_zero;
      drawing onto("panel");
      draw(onto, {50, 50, 300, 200}, panel);
      const std::string svg = onto.svg(400, 300);
      const pugi::xml_document document = parsed(svg);
      CHECK_FALSE(has_bad_number(svg));
      CHECK(holds(texts(document), "not measured") == (c < 2));
    }
  }
  CHECK_FALSE(y_span({}));
  const auto span = y_span({{.points = {{0, 1}, {1, not_measured}}, .low = {{0, -2}}, .high = {{not_measured, 9}, {0, 4}}}});
  REQUIRE(span);
  CHECK(*span == std::pair(-2.0, 4.0));
}

TEST_CASE("charts: a heat map prints its values where they have room", "[sara_finetune]") {
  heat_map map{.title = "map", .rows = {"a", "b"}, .columns = {"0", "1", "2"}, .values = {{1, 2.25, 30}, {not_measured, 0, -4}}};
  map.scale = {.colors = palette::sequential, .low = 0, .high = 30};
  map.boxed_columns = {{1, 2}};
  {
    drawing onto("map");
    draw(onto, {50, 50, 120, 60}, map);
    const std::string svg = onto.svg(200, 200);
    const pugi::xml_document document = parsed(svg);
    const std::vector<std::string> words = texts(document);
    for (const char* expected : {"map", "a", "b", "1.0", "2.2", "30.0", "0.0", "-4.0"}) CHECK(holds(words, expected));
    CHECK_FALSE(has_bad_number(svg));
    CHECK(svg.find(color_of(map.scale, 30)) != std::string::npos);
    bool boxed = false;
    for (const pugi::xml_node& rect : document.child("svg").children("rect")) {
      boxed = boxed || (rect.attribute("x").as_double() == Approx(90) && rect.attribute("width").as_double() == Approx(80));
    }
    CHECK(boxed);
  }
  {
    drawing onto("narrow");
    draw(onto, {50, 50, 30, 60}, map);
    CHECK_FALSE(holds(texts(parsed(onto.svg(200, 200))), "30.0"));
  }
  drawing onto("empty");
  draw(onto, {0, 0, 10, 10}, heat_map{});
  draw_scale(onto, {0, 20, 100, 10}, {.colors = palette::diverging, .low = -2, .high = 2}, "points");
  draw_scale(onto, {0, 50, 100, 10}, {.low = 0, .high = 0}, "nothing");
  const std::string svg = onto.svg(200, 200);
  const std::vector<std::string> words = texts(parsed(svg));
  CHECK_FALSE(has_bad_number(svg));
  for (const char* expected : {"-2.0", "0", "2.0", "points"}) CHECK(holds(words, expected));
}

TEST_CASE("charts: colours run from one end to the other and stop there", "[sara_finetune]") {
  const color_scale blue{.colors = palette::sequential, .low = 0, .high = 10}, both{.colors = palette::diverging, .low = -1, .high = 1};
  CHECK(color_of(blue, 0) == "#f7fbff");
  CHECK(color_of(blue, 10) == "#08306b");
  CHECK(color_of(blue, 11) == color_of(blue, 10));
  CHECK(color_of(blue, -1) == color_of(blue, 0));
  CHECK(color_of(both, 0) == "#f8f8f8");
  CHECK(color_of(both, -1) != color_of(both, 1));
  CHECK(color_of(blue, not_measured) == "#ffffff");
}

TEST_CASE("charts: a legend wraps, and leaves out what has no label", "[sara_finetune]") {
  std::vector<line_series> entries(6);
  for (std::size_t i = 0; i < 5; ++i) entries[i].label = "entry number " + std::to_string(i);
  drawing onto("legend");
  const double one_row = draw_legend(onto, {0, 0}, 2000, entries), more = draw_legend(onto, {0, 0}, 300, entries);
  CHECK(more > 2 * one_row);
  const pugi::xml_document document = parsed(onto.svg(300, 100));
  CHECK(texts(document).size() == 10);
}
