// A row's exponentials on the device, in the registers of the lanes that share it, and the sum that they are divided by.
#pragma once

#include "rows.cuh"

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

// A row's sum of exponentials, and what they are relative to.
template <class A> struct exp_sum {
  A sum;
  math::exp_row<A> peak;
};

// A lane's part of a sum: each term passes log2(n) additions, not n.
template <class A, int n> __device__ __forceinline__ A sum_by_halves(const A (&x)[n]) {
  if constexpr (n == 1) {
    return x[0];
  } else {
    A halves[n / 2];
#pragma unroll
    for (int i = 0; i < n / 2; ++i) halves[i] = x[2 * i] + x[2 * i + 1];
    return sum_by_halves(halves);
  }
}

// A lane's exponentials of a row, up to the row's factor: the softmax is z / sum.
template <class A, int per_lane> struct row_exponentials {
  A z[per_lane];
  exp_sum<A> row;
};

// With the row's largest logit. NaN, +inf, and a row of nothing but -inf make the row NaN. Not inlined: seldom called, and long.
template <class T, class Form>
__device__ __noinline__ row_exponentials<arithmetic_t<T>, Form::per_lane> exponentiate_by_largest(const row_storage<T, Form> row,
                                                                                                  const row_group<Form::lanes> g) {
  using A = arithmetic_t<T>;
  row_exponentials<A, Form::per_lane> to;
  row.values(to.z);
  A largest = to.z[0], nan = 0;   // a maximum passes NaN over
#pragma unroll
  for (int i = 0; i < Form::per_lane; ++i) {
    largest = larger(largest, to.z[i]);
    nan += to.z[i] != to.z[i] ? to.z[i] : A(0);
  }
  const math::exp_row<A> peak(g.max(largest) + g.sum(nan));
#pragma unroll
  for (int i = 0; i < Form::per_lane; ++i) to.z[i] = math::exp_scaled(lane<A>{to.z[i]}, peak).v;
  to.row = {g.sum(sum_by_halves(to.z)), peak};
  return to;
}

// The exponentials of n rows of each group: first without the rows' largest logits, and again with them where a sum tells that it was
// needed.
template <class T, class Form, int n>
__device__ __forceinline__ void exponentiate(const row_storage<T, Form> (&rows)[n], index_t columns, const row_group<Form::lanes>& g,
                                             arithmetic_t<T> (&z)[n][Form::per_lane], exp_sum<arithmetic_t<T>> (&sums)[n]) {
  using A = arithmetic_t<T>;
  const usual_exp<A> exp;
  bool all_usual = true;
#pragma unroll
  for (int r = 0; r < n; ++r) {
    rows[r].values(z[r]);
#pragma unroll
    for (int i = 0; i < Form::per_lane; ++i) z[r][i] = exp(z[r][i]);
    sums[r] = {sum_by_halves(z[r]), math::exp_row<A>::usual()};
  }
#pragma unroll
  for (int r = 0; r < n; ++r) {
    sums[r].sum = g.sum(sums[r].sum);
    all_usual = all_usual && math::usual_exp_row<A>::was_usual(sums[r].sum, static_cast<A>(columns));
  }
  if (__all_sync(full_warp, all_usual)) return;
#pragma unroll
  for (int r = 0; r < n; ++r) {
    const row_exponentials<A, Form::per_lane> found = exponentiate_by_largest<T, Form>(rows[r], g);
    if (math::usual_exp_row<A>::was_usual(sums[r].sum, static_cast<A>(columns))) continue;
    sums[r] = found.row;
#pragma unroll
    for (int i = 0; i < Form::per_lane; ++i) z[r][i] = found.z[i];
  }
}

// The same of a row in memory that a warp shares, by reading it twice; its exponentials are exp_scaled of its values by `peak`.
template <class T> __device__ exp_sum<arithmetic_t<T>> sum_row(const T* row, index_t columns) {
  using A = arithmetic_t<T>;
  const row_group<warp_lanes> g(warp_lanes);
  A largest = -static_cast<A>(INFINITY), nan = 0;
  for (index_t e = g.lane; e < columns; e += warp_lanes) {
    const A z = widen_one(row[e]);
    largest = larger(largest, z);
    nan += z != z ? z : A(0);
  }
  const math::exp_row<A> peak(g.max(largest) + g.sum(nan));
  constexpr int parts = 8;   // of a lane's sum
  double sums[parts] = {};   // of any number of terms
  for (index_t first = g.lane; first < columns; first += parts * warp_lanes) {
#pragma unroll
    for (int i = 0; i < parts; ++i) {
      const index_t e = first + i * warp_lanes;
      if (e < columns) sums[i] += static_cast<double>(math::exp_scaled(lane<A>{widen_one(row[e])}, peak).v);
    }
  }
  return {static_cast<A>(g.sum(sum_by_halves(sums))), peak};
}

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
