// What math/ asks of a scalar and Eigen::AutoDiffScalar lacks: select, log1p and atanh, with their derivatives.
//
// They stand in Eigen's namespace, where argument-dependent lookup finds them. Each takes a whole scalar type, so that one of
// the same name that Eigen might bring some day, for AutoDiffScalar<D>, is more specialised and preferred.
#pragma once

#if defined(__CUDACC__)
#error "sara's Eigen headers are not for nvcc: Eigen turns its vectorisation off there, and objects built both ways disagree"
#endif

#include <Eigen/Core>
#include <cmath>
#include <type_traits>

#include "../core/config.hpp"

namespace Eigen {
template <typename DerivativeType> class AutoDiffScalar;   // declared only: who uses it includes <unsupported/Eigen/AutoDiff>
}

namespace sara::eigen {

template <class S> inline constexpr bool is_auto_diff = false;
template <class D> inline constexpr bool is_auto_diff<Eigen::AutoDiffScalar<D>> = true;

template <class S>
concept auto_diff = is_auto_diff<S>;
template <class S, class Other>
concept other_auto_diff = is_auto_diff<S> && !std::is_same_v<S, Other>;

// The scalar that an expression of AutoDiffScalars evaluates to.
template <class S> using auto_diff_value = Eigen::AutoDiffScalar<typename S::DerType::PlainObject>;

}   // namespace sara::eigen

namespace Eigen {
inline namespace SARA_ABI {

// Of two expressions; of two scalars of one type it is sara::math's.
template <sara::eigen::auto_diff X, sara::eigen::other_auto_diff<X> Y>
sara::eigen::auto_diff_value<X> select(bool condition, const X& yes, const Y& no) {
  if (condition) return yes;
  return no;
}

// d log1p(x) = dx / (1 + x)
template <sara::eigen::auto_diff X> sara::eigen::auto_diff_value<X> log1p(const X& x) {
  using std::log1p;
  using R = typename X::Scalar;
  return {log1p(x.value()), x.derivatives() * R(R(1) / (R(1) + x.value()))};
}

// d atanh(x) = dx / ((1 - x) (1 + x))
template <sara::eigen::auto_diff X> sara::eigen::auto_diff_value<X> atanh(const X& x) {
  using std::atanh;
  using R = typename X::Scalar;
  return {atanh(x.value()), x.derivatives() * R(R(1) / ((R(1) - x.value()) * (R(1) + x.value())))};
}

}   // namespace SARA_ABI
}   // namespace Eigen
