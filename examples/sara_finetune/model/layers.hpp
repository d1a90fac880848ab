// RMSNorm and rotary positions.
#pragma once

#include <cmath>

#include "matrices.hpp"

namespace sara_finetune {

// y = weight x r, r = 1 / sqrt(mean of x^2 + epsilon), each row by itself. Keeps r for the backward.
template <class Scalar> class rms_norm {
 public:
  void forward(matrix_map<const Scalar> x, const Scalar* weight, matrix_map<Scalar> y) {
    inverse_.grown(x.rows());
    const auto w = map_row(weight, x.cols());
    for (index_t t = 0; t < x.rows(); ++t) {
      const auto from = row_of(x, t);
      const Scalar r = 1 / std::sqrt(from.square().mean() + epsilon);
      inverse_.data()[t] = r;
      row_of(y, t) = r * from * w;
    }
  }

  // Adds to grad_x and grad_weight.
  void backward(matrix_map<const Scalar> x, const Scalar* weight, matrix_map<const Scalar> grad_y, matrix_map<Scalar> grad_x,
                Scalar* grad_weight) const {
    const index_t width = x.cols();
    const auto w = map_row(weight, width);
    auto grad_w = map_row(grad_weight, width);
    for (index_t t = 0; t < x.rows(); ++t) {
      const auto from = row_of(x, t), g = row_of(grad_y, t);
      const Scalar r = inverse_.data()[t];
      const Scalar along = r * r * (g * w * from).mean();
      grad_w += r * g * from;
      row_of(grad_x, t) += r * (g * w - along * from);
    }
  }

 private:
  static constexpr Scalar epsilon = Scalar(1e-6);
  buffer<Scalar> inverse_;
};

// Rotary positions: entry i and entry i + half of a head are a pair, turned by position / 10000^(i / half).
template <class Scalar> class rotary {
 public:
  rotary(index_t context, index_t head_width) : half_(head_width / 2) {
    cosine_.reserve(static_cast<std::size_t>(context * half_));
    sine_.reserve(static_cast<std::size_t>(context * half_));
    for (index_t position = 0; position < context; ++position)
      for (index_t i = 0; i < half_; ++i) {
        const double angle = static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half_));
        cosine_.push_back(static_cast<Scalar>(std::cos(angle)));
        sine_.push_back(static_cast<Scalar>(std::sin(angle)));
      }
  }

  // Turns one head in place, and multiplies it by `scale`.
  void turn(Scalar* head, index_t position, Scalar scale) const { turn<1>(head, position, scale); }
  // The transpose of turn(): what a gradient needs.
  void turn_back(Scalar* head, index_t position, Scalar scale) const { turn<-1>(head, position, scale); }

 private:
  template <int direction> void turn(Scalar* head, index_t position, Scalar scale) const {
    const Scalar *const c = cosine_.data() + position * half_, *const s = sine_.data() + position * half_;
    Scalar *const first = head, *const second = head + half_;
    for (index_t i = 0; i < half_; ++i) {
      const Scalar x = scale * first[i], y = scale * second[i];
      first[i] = x * c[i] - direction * y * s[i];
      second[i] = y * c[i] + direction * x * s[i];
    }
  }

  index_t half_;
  std::vector<Scalar> cosine_, sine_;   // [context, half]
};

}   // namespace sara_finetune
