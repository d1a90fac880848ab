// Row-major Eigen maps on flat memory, and the memory that the model keeps between calls.
#pragma once

#include <Eigen/Core>
#include <type_traits>
#include <vector>

#include "shape.hpp"

namespace sara_finetune {

template <class Scalar> using matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class Scalar> using row_array = Eigen::Array<Scalar, 1, Eigen::Dynamic>;

template <template <class> class Plain, class Scalar>
using of_constness =
    std::conditional_t<std::is_const_v<Scalar>, const Plain<std::remove_const_t<Scalar>>, Plain<std::remove_const_t<Scalar>>>;

// [rows, columns], rows `outerStride()` apart
template <class Scalar> using matrix_map = Eigen::Map<of_constness<matrix, Scalar>, Eigen::Unaligned, Eigen::OuterStride<>>;
template <class Scalar> using row_map = Eigen::Map<of_constness<row_array, Scalar>>;

template <class Scalar> matrix_map<Scalar> map_rows(Scalar* data, index_t rows, index_t columns, index_t row_stride) {
  return {data, rows, columns, Eigen::OuterStride<>(row_stride)};
}
template <class Scalar> matrix_map<Scalar> map_rows(Scalar* data, index_t rows, index_t columns) {
  return map_rows(data, rows, columns, columns);
}
template <class Scalar> row_map<Scalar> map_row(Scalar* data, index_t size) { return {data, size}; }

// Parts of a map, as const as the map is.
template <class Map> auto read_only(const Map& m) { return map_rows(m.data(), m.rows(), m.cols(), m.outerStride()); }
template <class Map> auto submatrix(Map& m, index_t row, index_t column, index_t rows, index_t columns) {
  return map_rows(m.data() + row * m.outerStride() + column, rows, columns, m.outerStride());
}
template <class Map> auto row_of(Map& m, index_t row) { return map_row(m.data() + row * m.outerStride(), m.cols()); }
template <class Map> auto row_part(Map& m, index_t row, index_t column, index_t columns) {
  return map_row(m.data() + row * m.outerStride() + column, columns);
}

// Rows of so many values begin where a vector may: Eigen computes what lies before and after whole vectors one by one.
inline constexpr index_t widest_vector = 16;
inline index_t whole_vectors(index_t values) { return (values + widest_vector - 1) / widest_vector * widest_vector; }

// Memory that grows and never shrinks, so that a warm model allocates nothing. What it holds after it grew is unspecified.
template <class Scalar> class buffer {
 public:
  Scalar* grown(index_t size) {
    if (static_cast<index_t>(memory_.size()) < size) memory_.resize(static_cast<std::size_t>(size));
    return memory_.data();
  }
  matrix_map<Scalar> grown(index_t rows, index_t columns) { return map_rows(grown(rows * columns), rows, columns); }

  Scalar* data() { return memory_.data(); }
  const Scalar* data() const { return memory_.data(); }
  matrix_map<Scalar> rows(index_t count, index_t columns) { return map_rows(data(), count, columns); }
  matrix_map<const Scalar> rows(index_t count, index_t columns) const { return read(count, columns); }
  matrix_map<const Scalar> read(index_t count, index_t columns) const { return map_rows(data(), count, columns); }

 private:
  std::vector<Scalar, Eigen::aligned_allocator<Scalar>> memory_;
};

}   // namespace sara_finetune
