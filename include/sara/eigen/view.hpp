// view(): sara's views of Eigen objects.
//
//   | Eigen                                                                    | view                                             |
//   |--------------------------------------------------------------------------|--------------------------------------------------|
//   | row-major Matrix or Array, and Map, Ref, Block of one (any outer stride) | matrix_view [rows, columns], outer stride apart  |
//   | vectors (one row or one column at compile time), without gaps            | vector_view [size]                               |
//
// A view of what is const is a view of const. What does not compile: a column-major matrix, one with gaps between the columns, an
// expression, which has no memory of its own; and a temporary that owns its memory, which would be gone before the view is used. A
// temporary Map, Ref or Block owns none and may be passed: view(m.topRows(4)). (A temporary Ref to const may hold a copy: name it.)
#pragma once

#if defined(__CUDACC__)
#error "sara's Eigen headers are not for nvcc: Eigen turns its vectorisation off there, and objects built both ways disagree"
#endif

#include <Eigen/Core>

#include "../core/views.hpp"

namespace sara {

// A Matrix, Array, Map, Ref, Block or expression of them, or a class derived from one of these.
template <class X>
concept eigen_dense = requires(std::remove_cvref_t<X>& x) {
  x.derived();
  requires std::derived_from<std::remove_cvref_t<X>, Eigen::DenseBase<std::remove_cvref_t<decltype(x.derived())>>>;
};

namespace eigen {

template <class Derived> inline constexpr bool may_own_memory = std::is_base_of_v<Eigen::PlainObjectBase<Derived>, Derived>;
template <class Plain, int options, class Stride> inline constexpr bool may_own_memory<Eigen::Ref<const Plain, options, Stride>> = true;

template <class X> using derived_of = std::remove_cvref_t<decltype(std::declval<std::remove_cvref_t<X>&>().derived())>;

// As view() gets them: what stays after the full expression, and what would be gone.
template <class X>
concept keeps_memory = eigen_dense<X> &&(std::is_lvalue_reference_v<X> || !may_own_memory<derived_of<X>>);
template <class X>
concept loses_memory = eigen_dense<X> && !keeps_memory<X>;

}   // namespace eigen

inline namespace SARA_ABI {

template <eigen::keeps_memory X> auto view(X&& x) {
  using D = eigen::derived_of<X>;
  constexpr bool has_memory = (D::Flags & Eigen::DirectAccessBit) != 0;
  constexpr bool is_vector = D::IsVectorAtCompileTime != 0;
  static_assert(has_memory, "sara::view: this Eigen expression has no memory of its own; evaluate it into a matrix first");
  if constexpr (has_memory) {
    constexpr bool is_row_major = is_vector || D::IsRowMajor != 0;
    constexpr bool has_no_gaps = D::InnerStrideAtCompileTime == 1;
    static_assert(
        is_row_major,
        "sara::view: this Eigen matrix is column-major, but rows must be contiguous: declare it Eigen::RowMajor, or view its transpose");
    static_assert(has_no_gaps || !is_row_major,
                  "sara::view: neighbours in a row of this Eigen object are not known to be next to each other in memory");
    if constexpr (is_vector)
      return vector_view<std::remove_reference_t<decltype(*x.data())>>(x.data(), x.size());
    else
      return matrix_view<std::remove_reference_t<decltype(*x.data())>>(x.data(), x.rows(), x.cols(), x.outerStride());
  }
}

template <eigen::loses_memory X> auto view(X&&) = delete;   // a temporary that owns its memory: the view would dangle

}   // namespace SARA_ABI
}   // namespace sara
