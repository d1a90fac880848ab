// The parameters: one flat vector, cut into named blocks.
//
// | block                   | shape                        |                                                       |
// |-------------------------|------------------------------|-------------------------------------------------------|
// | embedding               | [vocabulary, width]          | of the tokens, and of the output                      |
// | layer.l.attention_norm  | [1, width]                   |                                                       |
// | layer.l.query_key_value | [width, 3 width]             | one product for all three                             |
// | layer.l.attention_out   | [width, width]               |                                                       |
// | layer.l.mixture_norm    | [1, width]                   |                                                       |
// | layer.l.router          | [width, experts]             |                                                       |
// | layer.l.experts_in      | [experts width, 2 hidden]    | the gate's and the linear half of SwiGLU side by side |
// | layer.l.experts_out     | [experts hidden, width]      |                                                       |
// | final_norm              | [1, width]                   |                                                       |
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "../training/random.hpp"
#include "matrices.hpp"

namespace sara_finetune {

struct parameter_block {
  std::string name;
  index_t offset, rows, columns;
  bool decays;   // takes part in weight decay: matrices do, norms do not

  index_t size() const { return rows * columns; }
};

namespace block_order {
enum : index_t { attention_norm, query_key_value, attention_out, mixture_norm, router, experts_in, experts_out, of_a_layer };
}

// In the order of their offsets.
inline std::vector<parameter_block> blocks(const model_shape& shape) {
  shape.check();
  std::vector<parameter_block> all;
  index_t offset = 0;
  const auto add = [&](const std::string& name, index_t rows, index_t columns, bool decays = true) {
    all.push_back({name, offset, rows, columns, decays});
    offset += rows * columns;
  };
  const index_t width = shape.width, hidden = shape.hidden, experts = shape.experts;
  add("embedding", shape.vocabulary, width);
  for (int l = 0; l < shape.layers; ++l) {
    const std::string layer = "layer." + std::to_string(l) + ".";
    add(layer + "attention_norm", 1, width, false);
    add(layer + "query_key_value", width, 3 * width);
    add(layer + "attention_out", width, width);
    add(layer + "mixture_norm", 1, width, false);
    add(layer + "router", width, experts);
    add(layer + "experts_in", experts * width, 2 * hidden);
    add(layer + "experts_out", experts * hidden, width);
  }
  add("final_norm", 1, width, false);
  return all;
}

inline index_t parameter_count(const std::vector<parameter_block>& all) { return all.back().offset + all.back().size(); }

// One layer's blocks within a flat vector: of parameters (const Scalar) or of their gradient (Scalar).
template <class Scalar> struct layer_blocks {
  Scalar *attention_norm, *mixture_norm;   // [width]
  matrix_map<Scalar> query_key_value, attention_out, router;
  matrix_map<Scalar> experts_in, experts_out;   // of all experts

  layer_blocks(const std::vector<parameter_block>& all, index_t layer, Scalar* flat)
      : attention_norm(at(all, layer, block_order::attention_norm, flat).data()),
        mixture_norm(at(all, layer, block_order::mixture_norm, flat).data()),
        query_key_value(at(all, layer, block_order::query_key_value, flat)),
        attention_out(at(all, layer, block_order::attention_out, flat)),
        router(at(all, layer, block_order::router, flat)),
        experts_in(at(all, layer, block_order::experts_in, flat)),
        experts_out(at(all, layer, block_order::experts_out, flat)) {}

 private:
  static matrix_map<Scalar> at(const std::vector<parameter_block>& all, index_t layer, index_t which, Scalar* flat) {
    const parameter_block& block = all[static_cast<std::size_t>(1 + layer * block_order::of_a_layer + which)];
    return map_rows(flat + block.offset, block.rows, block.columns);
  }
};

// Normal with standard deviation 0.02; what is added to the residual stream 2 layers times is smaller by the root of that; norms are 1.
template <class Scalar> std::vector<Scalar> initialize(const model_shape& shape, std::uint64_t seed) {
  const std::vector<parameter_block> all = blocks(shape);
  std::vector<Scalar> parameters(static_cast<std::size_t>(parameter_count(all)), Scalar(1));
  random_bits random(seed);
  for (const parameter_block& block : all) {
    if (block.name.ends_with("norm")) continue;
    const double deviation = block.name.ends_with("_out") ? 0.02 / std::sqrt(2.0 * shape.layers) : 0.02;
    Scalar* const values = parameters.data() + block.offset;
    for (index_t i = 0; i < block.size(); ++i) values[i] = static_cast<Scalar>(deviation * random.normal());
  }
  return parameters;
}

}   // namespace sara_finetune
