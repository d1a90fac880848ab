// view() of Eigen objects: what it takes, what it says of shape and strides, and what it refuses.
#include <sara/eigen.hpp>
#include <sara/js_routing.hpp>

#include "catch.hpp"
#include "oracle/instances.hpp"

namespace {

using row_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using row_array = Eigen::Array<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using fixed_matrix = Eigen::Matrix<float, 3, 4, Eigen::RowMajor>;

template <class X>
concept viewable = requires(X&& x) {
  sara::view(std::forward<X>(x));
};

// A temporary that owns its memory would dangle; a temporary window on memory does not.
static_assert(viewable<row_matrix&> && viewable<const row_matrix&> && viewable<row_array&> && viewable<fixed_matrix&>);
static_assert(!viewable<row_matrix> && !viewable<const row_matrix> && !viewable<Eigen::VectorXf> && !viewable<row_array>);
static_assert(viewable<Eigen::Map<row_matrix>> && viewable<Eigen::Ref<row_matrix>> && !viewable<Eigen::Ref<const row_matrix>>);
static_assert(!viewable<std::vector<float>&> && !viewable<float>);

template <class X> using view_of = decltype(sara::view(std::declval<X>()));
static_assert(std::is_same_v<view_of<row_matrix&>, sara::matrix_view<float>> &&
              std::is_same_v<view_of<const row_matrix&>, sara::matrix_view<const float>>);
static_assert(std::is_same_v<view_of<row_array&>, sara::matrix_view<double>> &&
              std::is_same_v<view_of<Eigen::Map<const row_matrix>>, sara::matrix_view<const float>>);
static_assert(std::is_same_v<view_of<Eigen::VectorXf&>, sara::vector_view<float>> &&
              std::is_same_v<view_of<const Eigen::RowVectorXd&>, sara::vector_view<const double>>);

}   // namespace

TEST_CASE("eigen: views of matrices, blocks, maps and vectors", "[eigen]") {
  row_matrix m(5, 6);
  for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<float>(i);
  const auto whole = sara::view(m);
  CHECK(whole.rows() == 5);
  CHECK(whole.columns() == 6);
  CHECK(whole.row_stride() == 6);
  CHECK(whole(2, 3) == m(2, 3));

  const auto part = sara::view(m.block(1, 2, 3, 4));
  CHECK(part.rows() == 3);
  CHECK(part.columns() == 4);
  CHECK(part.row_stride() == 6);
  CHECK(part(2, 3) == m(3, 5));
  CHECK(sara::view(m.topRows(2)).rows() == 2);

  auto middle = m.middleCols(1, 2);
  sara::view(middle)(4, 1) = -1;
  CHECK(m(4, 2) == -1);

  Eigen::Map<row_matrix, 0, Eigen::OuterStride<>> every_other(m.data(), 2, 6, Eigen::OuterStride<>(12));
  CHECK(sara::view(every_other).row_stride() == 12);
  CHECK(sara::view(every_other)(1, 0) == m(2, 0));

  const Eigen::VectorXf v = Eigen::VectorXf::LinSpaced(4, 0, 3);
  CHECK(sara::view(v).size() == 4);
  CHECK(sara::view(v)[2] == 2);
  CHECK(sara::view(v.segment(1, 2)).data() == v.data() + 1);
  CHECK(sara::view(m.row(3)).size() == 6);
  CHECK(sara::view(m.row(3)).data() == m.data() + 18);

  const row_matrix empty(0, 4);
  CHECK(sara::view(empty).rows() == 0);
  CHECK(sara::view(empty).given());
}

TEST_CASE("eigen: views reach the fast executor as well, in place in a block of a larger matrix", "[eigen]") {
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  std::srand(1);
  matrix z = matrix::Random(8, 12), anchors = matrix::Random(2, 5).array().exp();
  for (Eigen::Index r = 0; r < 2; ++r) anchors.row(r) /= anchors.row(r).sum();
  const matrix original = z;
  matrix apart(8, 5);
  const auto columns = [](matrix& m) { return sara::view(m.middleCols(4, 5)); };
  const auto batch = [&](matrix& m) {
    return sara::js_routing_inputs<double>{
        .logits = columns(m), .sequences = sara::sequences_view::uniform(2, 4), .anchors = sara::view(anchors)};
  };
  sara::js_routing_into(sara::eigen_executor{}, batch(z), {.grad_logits = sara::view(apart)});
  CHECK(z == original);
  matrix fast = z;
  sara::js_routing_into(sara::cpu_executor{}, batch(fast), {.grad_logits = columns(fast)});
  sara::js_routing_into(sara::eigen_executor{}, batch(z), {.grad_logits = columns(z)});
  CHECK(z.middleCols(4, 5) == apart);
  CHECK((fast.middleCols(4, 5) - apart).cwiseAbs().maxCoeff() <= 1e-13 * apart.cwiseAbs().maxCoeff());
  CHECK(z.leftCols(4) == original.leftCols(4));
  CHECK(fast.rightCols(3) == original.rightCols(3));
  CHECK(apart.cwiseAbs().maxCoeff() > 0);
}
