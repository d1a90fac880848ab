// Non-owning views: vector_view, matrix_view, layers_view, and integers_view for offsets and row numbers.
//
// All are trivially copyable, with the last dimension contiguous and every other stride free (in elements). Extents may be any
// integral type. A view of T converts to a view of const T, lists included. A temporary container is refused. A view that was
// never filled (`given()` is false) means "not wanted" for an output and "not there" for an input.
#pragma once

// Version 14 of clang-format does not know requires-clauses.
// clang-format off

#include <concepts>
#include <span>

#include "types.hpp"

namespace sara {

template <class From, class To>
concept same_or_adds_const = std::same_as<From, To> || std::same_as<const From, To>;

// A container whose elements stay where they are after the full expression: an lvalue, or a borrowed range such as std::span.
template <class C, class T>
concept contiguous_container = requires(C& c) {
  { *c.data() } -> std::same_as<std::remove_reference_t<decltype(*c.data())>&>;
  { c.size() } -> std::convertible_to<std::size_t>;
} && same_or_adds_const<std::remove_reference_t<decltype(*std::declval<C&>().data())>, T>;

template <class C>
concept sara_view = requires { typename std::remove_cvref_t<C>::is_sara_view; };
template <class C>
concept outlives_expression = std::is_lvalue_reference_v<C> || std::ranges::enable_borrowed_range<std::remove_cvref_t<C>> || sara_view<C>;

// [size]
template <class T>
class vector_view {
 public:
  constexpr vector_view() = default;
  template <std::integral I>
  SARA_INLINE constexpr vector_view(T* data, I size) : data_(data), size_(static_cast<index_t>(size)) {}
  template <class C>
    requires(contiguous_container<C, T> && outlives_expression<C> && !sara_view<C>)
  SARA_HOST_INLINE constexpr vector_view(C&& c) : data_(c.data()), size_(static_cast<index_t>(c.size())) {}
  template <class C>
    requires(contiguous_container<C, T> && !outlives_expression<C>)
  constexpr vector_view(C&&) = delete;   // a view of a temporary container would dangle
  template <class U>
    requires(same_or_adds_const<U, T>)
  SARA_INLINE constexpr vector_view(const vector_view<U>& v) : data_(v.data()), size_(v.size()) {}

  using is_sara_view = void;
  SARA_INLINE constexpr T* data() const { return data_; }
  SARA_INLINE constexpr index_t size() const { return size_; }
  SARA_INLINE constexpr T& operator[](index_t i) const { return data_[i]; }
  SARA_INLINE constexpr bool given() const { return data_ != nullptr || size_ != 0; }

 private:
  T* data_ = nullptr;
  index_t size_ = 0;
};
template <class C>
  requires requires(C& c) { c.data(); }
vector_view(C&&) -> vector_view<std::remove_reference_t<decltype(*std::declval<C&>().data())>>;

// [rows, columns], rows `row_stride` elements apart
template <class T>
class matrix_view {
 public:
  constexpr matrix_view() = default;
  template <std::integral R, std::integral C>
  SARA_INLINE constexpr matrix_view(T* data, R rows, C columns)
      : data_(data), rows_(static_cast<index_t>(rows)), columns_(static_cast<index_t>(columns)), row_stride_(columns_) {}
  template <std::integral R, std::integral C, std::integral S>
  SARA_INLINE constexpr matrix_view(T* data, R rows, C columns, S row_stride)
      : data_(data), rows_(static_cast<index_t>(rows)), columns_(static_cast<index_t>(columns)), row_stride_(static_cast<index_t>(row_stride)) {}
  template <class U>
    requires(same_or_adds_const<U, T> && !std::same_as<U, T>)
  SARA_INLINE constexpr matrix_view(const matrix_view<U>& m)
      : data_(m.data()), rows_(m.rows()), columns_(m.columns()), row_stride_(m.row_stride()) {}

  SARA_INLINE constexpr T* data() const { return data_; }
  SARA_INLINE constexpr index_t rows() const { return rows_; }
  SARA_INLINE constexpr index_t columns() const { return columns_; }
  SARA_INLINE constexpr index_t row_stride() const { return row_stride_; }
  SARA_INLINE constexpr T* row(index_t r) const { return data_ + r * row_stride_; }
  SARA_INLINE constexpr T& operator()(index_t r, index_t c) const { return data_[r * row_stride_ + c]; }
  SARA_INLINE constexpr bool given() const { return data_ != nullptr || rows_ != 0 || columns_ != 0; }

 private:
  T* data_ = nullptr;
  index_t rows_ = 0, columns_ = 0, row_stride_ = 0;
};

// [layers, rows, columns]: one strided block, or a list of matrices that live apart. A list stays in host memory, is read
// during the call only, and its matrices have one shape; their data lives where the executor runs.
template <class T>
class layers_view {
  using mutable_matrix = matrix_view<std::remove_const_t<T>>;
  template <class> friend class layers_view;

 public:
  constexpr layers_view() = default;

  template <std::integral L, std::integral R, std::integral C>
  SARA_INLINE constexpr layers_view(T* data, L layers, R rows, C columns)
      : layers_view(data, layers, rows, columns, columns, static_cast<index_t>(rows) * static_cast<index_t>(columns)) {}
  template <std::integral L, std::integral R, std::integral C, std::integral S, std::integral P>
  SARA_INLINE constexpr layers_view(T* data, L layers, R rows, C columns, S row_stride, P layer_stride)
      : block_(data, rows, columns, row_stride), layers_(static_cast<index_t>(layers)), layer_stride_(static_cast<index_t>(layer_stride)) {}

  template <class U>
    requires(same_or_adds_const<U, T>)
  SARA_INLINE constexpr layers_view(const matrix_view<U>& one_layer) : block_(one_layer), layers_(one_layer.given() ? 1 : 0) {}

  template <class C>
    requires((contiguous_container<C, const matrix_view<T>> || contiguous_container<C, const mutable_matrix>) && outlives_expression<C>)
  SARA_HOST_INLINE constexpr layers_view(C&& list) : layers_(static_cast<index_t>(list.size())) {
    set_list(list.data());
  }
  template <class C>
    requires((contiguous_container<C, matrix_view<T>> || contiguous_container<C, mutable_matrix>) && !outlives_expression<C>)
  constexpr layers_view(C&&) = delete;   // a view of a temporary list would dangle

  template <class U>
    requires(same_or_adds_const<U, T> && !std::same_as<U, T>)
  SARA_INLINE constexpr layers_view(const layers_view<U>& v) : block_(v.block_), layers_(v.layers_), layer_stride_(v.layer_stride_) {
    if (v.list_) set_list(v.list_);
  }

  SARA_INLINE constexpr matrix_view<T> operator[](index_t l) const {
    if (list_) return list_[l];
    if constexpr (std::is_const_v<T>) {
      if (mutable_list_) return mutable_list_[l];
    }
    return {block_.data() + l * layer_stride_, block_.rows(), block_.columns(), block_.row_stride()};
  }
  SARA_INLINE constexpr index_t layers() const { return layers_; }
  SARA_INLINE constexpr index_t rows() const { return layers_ ? (*this)[0].rows() : 0; }
  SARA_INLINE constexpr index_t columns() const { return layers_ ? (*this)[0].columns() : 0; }
  SARA_INLINE constexpr bool is_list() const { return list_ || mutable_list_; }
  SARA_INLINE constexpr bool given() const { return layers_ != 0 || is_list() || block_.given(); }

 private:
  SARA_INLINE constexpr void set_list(const matrix_view<T>* list) { list_ = list; }
  SARA_INLINE constexpr void set_list(const mutable_matrix* list)
    requires(std::is_const_v<T>)
  {
    mutable_list_ = list;
  }

  matrix_view<T> block_;
  index_t layers_ = 0, layer_stride_ = 0;
  const matrix_view<T>* list_ = nullptr;
  const mutable_matrix* mutable_list_ = nullptr;   // only where T is const: a list of matrices one may write
};

// [size] whole numbers, int32 or int64: offsets, row numbers
class integers_view {
 public:
  constexpr integers_view() = default;
  template <std::integral I>
  SARA_INLINE constexpr integers_view(const std::int32_t* data, I size) : narrow_(data), size_(static_cast<index_t>(size)) {}
  template <std::integral I>
  SARA_INLINE constexpr integers_view(const std::int64_t* data, I size) : wide_(data), size_(static_cast<index_t>(size)) {}
  template <class C>
    requires((contiguous_container<C, const std::int32_t> || contiguous_container<C, const std::int64_t>) && outlives_expression<C>)
  SARA_HOST_INLINE constexpr integers_view(C&& c) : integers_view(c.data(), c.size()) {}
  template <class C>
    requires((contiguous_container<C, const std::int32_t> || contiguous_container<C, const std::int64_t>) && !outlives_expression<C>)
  constexpr integers_view(C&&) = delete;   // a view of a temporary container would dangle

  SARA_INLINE constexpr index_t operator[](index_t i) const { return wide_ ? wide_[i] : narrow_[i]; }
  SARA_INLINE constexpr index_t size() const { return size_; }
  SARA_INLINE constexpr bool given() const { return narrow_ || wide_ || size_ != 0; }
  SARA_INLINE constexpr const void* data() const { return wide_ ? static_cast<const void*>(wide_) : narrow_; }
  SARA_INLINE constexpr index_t bytes() const { return size_ * (wide_ ? 8 : 4); }

 private:
  const std::int32_t* narrow_ = nullptr;
  const std::int64_t* wide_ = nullptr;
  index_t size_ = 0;
};

}  // namespace sara
