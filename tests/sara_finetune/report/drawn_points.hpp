// The points of a polyline as a picture holds them.
#pragma once

#include <pugixml.hpp>
#include <sstream>
#include <vector>

#include "sara_finetune/report/svg.hpp"

inline std::vector<sara_finetune::point> points_of(const pugi::xml_node& line) {
  std::istringstream in(line.attribute("points").value());
  std::vector<sara_finetune::point> points;
  sara_finetune::point p;
  for (char comma = 0; in >> p.x >> comma >> p.y;) points.push_back(p);
  return points;
}
