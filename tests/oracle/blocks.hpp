// Memory for the arguments of a call, laid out as a test wishes: strides with padding, unaligned, or a list of layers that live apart.
#pragma once

#include <sara/core/views.hpp>

#include "compare.hpp"

namespace oracle {

// How [layers, rows, columns] lie in memory. What is between the rows is filled with NaN and must stay untouched.
struct placement {
  bool list = false;                                              // each layer a matrix of its own, the last one first
  sara::index_t row_padding = 0, layer_padding = 0, offset = 0;   // in elements
};

template <class E> class block {
 public:
  block() = default;
  block(std::size_t layers, std::size_t rows, std::size_t columns, const placement& at = {})
      : layers_(index(layers)), rows_(index(rows)), columns_(index(columns)), at_(at) {
    row_stride_ = columns_ + at.row_padding;
    layer_stride_ = rows_ * row_stride_ + at.layer_padding;
    data_.resize(static_cast<std::size_t>(at.offset + layers_ * layer_stride_ + 1));
    sara::store_value(fill_, std::numeric_limits<sara::arithmetic_t<E>>::quiet_NaN());
    std::fill(data_.begin(), data_.end(), fill_);
  }
  block(std::size_t layers, std::size_t rows, std::size_t columns, const placement& at, const std::vector<double>& values)
      : block(layers, rows, columns, at) {
    set(values);
  }

  template <class V> void set(const std::vector<V>& values) {
    for_each([&](std::size_t i, E& x) { sara::store_value(x, static_cast<sara::arithmetic_t<E>>(values[i])); });
  }
  std::vector<E> values() const {
    std::vector<E> out(static_cast<std::size_t>(layers_ * rows_ * columns_));
    const_cast<block*>(this)->for_each([&](std::size_t i, E& x) { out[i] = x; });
    return out;
  }

  sara::layers_view<E> view() {
    if (!at_.list) return {start(0), layers_, rows_, columns_, row_stride_, layer_stride_};
    list_.clear();
    for (sara::index_t l = 0; l < layers_; ++l) list_.emplace_back(start(l), rows_, columns_, row_stride_);
    return list_;
  }
  sara::layers_view<const E> view() const { return const_cast<block*>(this)->view(); }
  sara::matrix_view<E> matrix() { return {start(0), rows_, columns_, row_stride_}; }

  // Is everything that is no element still as it was filled?
  bool padding_is_untouched() const {
    std::vector<E> rest = data_;
    const_cast<block*>(this)->for_each([&](std::size_t, E& x) { rest[static_cast<std::size_t>(&x - data_.data())] = fill_; });
    return std::all_of(rest.begin(), rest.end(), [this](const E& x) { return same_bits(&x, &fill_, 1); });
  }
  const std::vector<E>& memory() const { return data_; }

 private:
  static sara::index_t index(std::size_t n) { return static_cast<sara::index_t>(n); }
  E* start(sara::index_t l) { return data_.data() + at_.offset + (at_.list ? layers_ - 1 - l : l) * layer_stride_; }

  template <class Visit> void for_each(Visit&& visit) {
    std::size_t i = 0;
    for (sara::index_t l = 0; l < layers_; ++l)
      for (sara::index_t r = 0; r < rows_; ++r)
        for (sara::index_t c = 0; c < columns_; ++c, ++i) visit(i, start(l)[r * row_stride_ + c]);
  }

  sara::index_t layers_ = 0, rows_ = 0, columns_ = 0, row_stride_ = 0, layer_stride_ = 0;
  placement at_;
  E fill_{};
  std::vector<E> data_;
  std::vector<sara::matrix_view<E>> list_;
};

// Values that begin so many elements behind the start of a cache line, and a guard on either side of them.
template <class E> class line_of {
 public:
  line_of(std::size_t count, sara::index_t skip) : count_(count), memory_(count + static_cast<std::size_t>(skip) + line + 1) {
    first_ = memory_.data() + (line - reinterpret_cast<std::uintptr_t>(memory_.data()) % 64 / sizeof(E)) + skip;
    sara::store_value(first_[-1], sara::arithmetic_t<E>(7));
    sara::store_value(first_[count], sara::arithmetic_t<E>(7));
  }
  E* data() { return first_; }
  bool is_guarded() const {
    return sara::load_value(first_[-1]) == sara::arithmetic_t<E>(7) && sara::load_value(first_[count_]) == sara::arithmetic_t<E>(7);
  }

 private:
  static constexpr std::size_t line = 64 / sizeof(E);
  std::size_t count_;
  std::vector<E> memory_;
  E* first_;
};

}   // namespace oracle
