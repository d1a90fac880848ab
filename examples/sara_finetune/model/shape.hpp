// The model's shape: everything that fixes its parameters' number and order.
#pragma once

#include <sara/core/types.hpp>

#include <stdexcept>
#include <string>

namespace sara_finetune {

using sara::index_t;

struct model_shape {
  int vocabulary = 2000, layers = 6, width = 96, heads = 4, experts = 8, chosen = 2, hidden = 128, context = 96;

  int head_width() const { return width / heads; }
  friend bool operator==(const model_shape&, const model_shape&) = default;

  // Throws unless a model of this shape can be.
  void check() const {
    const auto refuse = [](const std::string& name, const std::string& wanted, int found) {
      throw std::runtime_error("model shape: " + name + " must be " + wanted + ", but is " + std::to_string(found));
    };
    const struct {
      const char* name;
      int value, least;
    } extents[] = {{"vocabulary", vocabulary, 2}, {"layers", layers, 1}, {"width", width, 2},   {"heads", heads, 1},
                   {"experts", experts, 1},       {"chosen", chosen, 1}, {"hidden", hidden, 1}, {"context", context, 1}};
    for (const auto& each : extents)
      if (each.value < each.least) refuse(each.name, "at least " + std::to_string(each.least), each.value);
    if (width % heads != 0) refuse("width", "a multiple of heads (" + std::to_string(heads) + ")", width);
    if (head_width() % 2 != 0) refuse("width / heads", "even, as rotary positions turn pairs", head_width());
    if (chosen > experts) refuse("chosen", "at most experts (" + std::to_string(experts) + ")", chosen);
  }
};

}   // namespace sara_finetune
