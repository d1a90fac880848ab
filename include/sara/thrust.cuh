// view(): sara's views of Thrust's vectors.
//
//   | call                            | the vector's size must be  | view                                                    |
//   |---------------------------------|----------------------------|---------------------------------------------------------|
//   | view(v)                         | anything                   | vector_view [size]; of int32 or int64: also integers_view |
//   | view(v, rows, columns)          | rows columns               | matrix_view [rows, columns]                             |
//   | view(v, layers, rows, columns)  | layers rows columns        | layers_view [layers, rows, columns]                     |
//
//   thrust::device_vector<float> logits = ..., grad(logits.size());
//   thrust::device_vector<std::int32_t> cu_seqlens = ...;
//   const sara::js_routing_inputs<float> batch{.logits = sara::view(logits, layers, tokens, experts),
//                                              .sequences = sara::sequences_view::packed(sara::view(cu_seqlens)), ...};
//   sara::js_routing_into(sara::cuda_executor{stream}, batch, {.grad_logits = sara::view(grad, layers, tokens, experts)});
//
// v is a device_vector or a universal_vector (a host_vector is a container like std::vector, which views take as it is). A view of what is
// const is a view of const. A temporary, which would be gone before the view is used, does not compile. Thrust fills its vectors on the
// default stream unless told otherwise: another stream that does not wait for that one must be made to wait.
// Errors: sara::invalid_argument where the extents do not make the vector's size.
#pragma once

#include <thrust/device_vector.h>

#include "core/errors.hpp"
#include "core/views.hpp"

namespace sara {

// A container whose elements only a pointer of Thrust's tells.
template <class X>
concept thrust_vector = requires(std::remove_cvref_t<X>& v) {
  { v.size() } -> std::convertible_to<std::size_t>;
  thrust::raw_pointer_cast(v.data());
  requires !std::is_pointer_v<decltype(v.data())>;
};
template <class X>
concept lasting_thrust_vector = thrust_vector<X> && std::is_lvalue_reference_v<X>;
template <class X>
concept passing_thrust_vector = thrust_vector<X> && !std::is_lvalue_reference_v<X>;

inline namespace SARA_ABI {

template <lasting_thrust_vector X> auto view(X&& v) { return vector_view(thrust::raw_pointer_cast(v.data()), v.size()); }

template <lasting_thrust_vector X, std::integral R, std::integral C> auto view(X&& v, R rows, C columns) {
  const matrix_view m(thrust::raw_pointer_cast(v.data()), rows, columns);
  if (m.rows() < 0 || m.columns() < 0 || m.rows() * m.columns() != static_cast<index_t>(v.size()))
    fail("view", sentence("the vector must have rows x columns = ")
                     << m.rows() << " x " << m.columns() << " elements, but its size is " << v.size());
  return m;
}

template <lasting_thrust_vector X, std::integral L, std::integral R, std::integral C> auto view(X&& v, L layers, R rows, C columns) {
  auto* const data = thrust::raw_pointer_cast(v.data());
  const index_t l = static_cast<index_t>(layers), r = static_cast<index_t>(rows), c = static_cast<index_t>(columns);
  if (l < 0 || r < 0 || c < 0 || l * r * c != static_cast<index_t>(v.size()))
    fail("view", sentence("the vector must have layers x rows x columns = ")
                     << l << " x " << r << " x " << c << " elements, but its size is " << v.size());
  return layers_view<std::remove_pointer_t<decltype(data)>>(data, l, r, c);
}

template <passing_thrust_vector X, std::integral... Extents> void view(X&&, Extents...) = delete;   // a temporary: the view would dangle

}   // namespace SARA_ABI
}   // namespace sara
