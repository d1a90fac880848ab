// A model's shape as JSON, for checkpoints and settings.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "shape.hpp"

namespace sara_finetune {

inline constexpr std::array<std::pair<const char*, int model_shape::*>, 8> shape_extents = {{{"vocabulary", &model_shape::vocabulary},
                                                                                             {"layers", &model_shape::layers},
                                                                                             {"width", &model_shape::width},
                                                                                             {"heads", &model_shape::heads},
                                                                                             {"experts", &model_shape::experts},
                                                                                             {"chosen", &model_shape::chosen},
                                                                                             {"hidden", &model_shape::hidden},
                                                                                             {"context", &model_shape::context}}};

inline void to_json(nlohmann::json& json, const model_shape& shape) {
  json = nlohmann::json::object();
  for (const auto& [name, extent] : shape_extents) json[name] = shape.*extent;
}

// Throws std::runtime_error unless every extent is there and a model of this shape can be.
inline void from_json(const nlohmann::json& json, model_shape& shape) {
  for (const auto& [name, extent] : shape_extents) {
    const auto found = json.is_object() ? json.find(name) : json.end();
    const bool given = found != json.end();
    const bool whole = given && found->is_number_integer();
    const auto value = whole ? found->get<std::int64_t>() : 0;
    // A larger unsigned number turns negative.
    if (!whole || value < 0 || value > std::numeric_limits<int>::max())
      throw std::runtime_error("model shape: " + std::string(name) + " must be a whole number, but is " +
                               (given ? found->dump() : "absent"));
    shape.*extent = static_cast<int>(value);
  }
  shape.check();
}

}   // namespace sara_finetune
