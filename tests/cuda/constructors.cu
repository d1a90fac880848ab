// An executor without a stream does not compile.
#include <sara/cuda/executor.cuh>

#include <type_traits>

namespace {

template <class E>
concept needs_nothing = requires {
  E{};
};
template <class E>
concept takes_zero = requires {
  E{0};
}
|| requires { E{0, sara::workspace{}}; };
template <class E>
concept takes_null = requires {
  E{nullptr};
}
|| requires { E{nullptr, sara::workspace{}}; };

static_assert(!needs_nothing<sara::cuda_executor> && !takes_zero<sara::cuda_executor> && !takes_null<sara::cuda_executor>);
static_assert(takes_zero<cudaStream_t> && takes_null<cudaStream_t> && needs_nothing<cudaStream_t>);   // the concepts can say yes
static_assert(std::is_constructible_v<sara::cuda_executor, cudaStream_t> &&
              std::is_constructible_v<sara::cuda_executor, cudaStream_t, sara::workspace>);
static_assert(!std::is_convertible_v<cudaStream_t, sara::cuda_executor> && !std::is_constructible_v<sara::cuda_executor, int>);
static_assert(std::is_trivially_copyable_v<sara::cuda_executor> && !sara::cuda_executor::runs_on_host);

}   // namespace
