// Views of Thrust's vectors: what view() takes and refuses, what it says of shapes, and that a call reads and writes through them.
#include <sara/js_divergence.hpp>
#include <sara/thrust.cuh>

#include <thrust/universal_vector.h>

#include <cmath>
#include <cstring>

namespace {

template <class X, class... Extents>
concept viewable = requires(X&& x, Extents... extents) {
  sara::view(std::forward<X>(x), extents...);
};
using floats = thrust::device_vector<float>;

// A temporary would dangle.
static_assert(viewable<floats&> && viewable<const floats&> && viewable<floats&, int, long> &&
              viewable<floats&, int, unsigned, std::size_t>);
static_assert(!viewable<floats> && !viewable<const floats> && !viewable<floats, int, int> && !viewable<floats, int, int, int>);
static_assert(viewable<thrust::universal_vector<float>&> && !viewable<std::vector<float>&> && !viewable<floats&, double, int>);

template <class X, class... Extents> using view_of = decltype(sara::view(std::declval<X>(), std::declval<Extents>()...));
static_assert(std::is_same_v<view_of<floats&>, sara::vector_view<float>> &&
              std::is_same_v<view_of<const floats&>, sara::vector_view<const float>>);
static_assert(std::is_same_v<view_of<floats&, int, int>, sara::matrix_view<float>> &&
              std::is_same_v<view_of<const floats&, int, int>, sara::matrix_view<const float>>);
static_assert(std::is_same_v<view_of<floats&, int, int, int>, sara::layers_view<float>> &&
              std::is_same_v<view_of<const floats&, int, int, int>, sara::layers_view<const float>>);
static_assert(std::is_constructible_v<sara::integers_view, view_of<thrust::device_vector<std::int32_t>&>> &&
              std::is_constructible_v<sara::integers_view, view_of<const thrust::device_vector<std::int64_t>&>>);

int failures = 0;
void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("not so: %s\n", what);
  ++failures;
}
template <class Call> void expect_sentence(const Call& call, const char* sentence) {
  try {
    call();
    expect(false, sentence);
  } catch (const sara::invalid_argument& e) {
    expect(std::strcmp(e.what(), sentence) == 0, sentence);
  }
}

}   // namespace

int main() {
  floats none;
  expect(sara::view(none).size() == 0 && sara::view(none, 0, 4).columns() == 4, "a vector of nothing");
  expect_sentence([&] { sara::view(none, 2, 3); }, "sara::view: the vector must have rows x columns = 2 x 3 elements, but its size is 0");
  expect_sentence([&] { sara::view(none, -2, 0); }, "sara::view: the vector must have rows x columns = -2 x 0 elements, but its size is 0");
  expect_sentence([&] { sara::view(none, 2, 3, 4); },
                  "sara::view: the vector must have layers x rows x columns = 2 x 3 x 4 elements, but its size is 0");

  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    if (failures == 0) std::puts("skipped: no CUDA device");
    return failures;
  }
  floats p(6, 0.5f), q(6), divergence(3);
  for (int i = 0; i < 6; ++i) q[i] = i % 2 == 0 ? 1.0f : 0.0f;
  expect(sara::view(p, 3, 2).row(2) == thrust::raw_pointer_cast(p.data()) + 4, "rows lie one after the other");
  expect(sara::view(p, 3, 1, 2)[2].data() == thrust::raw_pointer_cast(p.data()) + 4, "layers lie one after the other");
  expect_sentence([&] { sara::view(p, 2, 2); }, "sara::view: the vector must have rows x columns = 2 x 2 elements, but its size is 6");
  cudaDeviceSynchronize();
  const sara::js_divergence_inputs<float> in{.p = sara::view(p, 3, 2), .q = sara::view(q, 3, 2)};
  sara::js_divergence_into(sara::cuda_executor{cudaStreamLegacy}, in, {.divergence = sara::view(divergence)});
  for (const float x : {float(divergence[0]), float(divergence[1]), float(divergence[2])})
    expect(std::fabs(x - 0.2157616f) < 1e-6f, "the divergence of (1/2, 1/2) and (1, 0) is 0.2157616");
  return failures;
}
