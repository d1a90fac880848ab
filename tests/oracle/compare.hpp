// How far a result is from what was wanted, relative to the largest entry of what was wanted. Every comparator is held to rejecting
// an all-zero, a doubled and a sign-flipped result (js_routing/comparators.cpp).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <sara/core/types.hpp>
#include <vector>

namespace oracle {

template <class T> double as_double(const T& x) { return static_cast<double>(sara::load_value(x)); }

template <class T> std::vector<double> as_doubles(const std::vector<T>& v) {
  std::vector<double> out;
  out.reserve(v.size());
  for (const T& x : v) out.push_back(as_double(x));
  return out;
}

template <class T> std::vector<T> as_storage(const std::vector<double>& v) {
  std::vector<T> out(v.size());
  for (std::size_t i = 0; i < v.size(); ++i) sara::store_value(out[i], static_cast<sara::arithmetic_t<T>>(v[i]));
  return out;
}

template <class R> double largest(const std::vector<R>& v) {
  double size = 0;
  for (const R& x : v)
    if (std::isfinite(x)) size = std::max(size, static_cast<double>(std::abs(x)));
  return size;
}

// The largest |got - want| - allowance over the largest |want|. Infinite where sizes differ, where one side is NaN or infinite and
// the other is not the same, and where nothing but zeros is wanted and something else, beyond the allowance, is there.
template <class G, class W> double relative_error(const std::vector<G>& got, const std::vector<W>& want, double allowance = 0) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (got.size() != want.size()) return infinity;
  const double size = largest(want);
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double g = as_double(got[i]), w = static_cast<double>(want[i]);
    if (std::isnan(w) ? std::isnan(g) : g == w) continue;
    const double difference = std::abs(g - w);
    if (difference <= allowance) continue;
    if (size == 0 || !std::isfinite(difference)) return infinity;
    worst = std::max(worst, (difference - allowance) / size);
  }
  return worst;
}

// Of a loss or divergence of size JS computed in fp32 from logits: |got - want| in units of the promised 2e-6 JS + 1e-7 sqrt(JS).
// `root` is sqrt(JS), or its weighted sum where JS is a weighted sum; 2.5e-15 = (1e-7 / 2)^2 is the same bound at JS = 0.
inline double loss_error(double got, double want, double root) {
  if (std::isnan(want) && std::isnan(got)) return 0;
  const double error = std::abs(got - want) / (2e-6 * std::abs(want) + 1e-7 * root + 2.5e-15);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

// Byte by byte.
template <class T> bool same_bits(const T* a, const T* b, std::size_t n) {
  return n == 0 || std::memcmp(static_cast<const void*>(a), static_cast<const void*>(b), n * sizeof(T)) == 0;
}
template <class T> bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), a.size());
}

// The distance of two neighbouring numbers of storage G about x.
template <class G> double unit_of(double x) {
  constexpr bool bf16 = sara::storage_trait<G>::format == sara::storage_format::bf16,
                 fp16 = sara::storage_trait<G>::format == sara::storage_format::fp16;
  const int digits = bf16   ? 8
                     : fp16 ? 11
                            : std::numeric_limits<G>::digits,
            least = fp16   ? -13
                    : bf16 ? -125
                           : std::numeric_limits<G>::min_exponent;
  int exponent = 0;
  std::frexp(x, &exponent);
  return std::ldexp(1.0, (x == 0 ? least : std::max(exponent, least)) - digits);
}

}   // namespace oracle
