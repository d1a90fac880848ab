// More than 2^31 elements, on pages of zeros that the system makes as they are read: no extent or offset is 32 bits wide.
#include <sys/mman.h>

#include "../oracle/evaluate.hpp"
#include "../oracle/problems.hpp"
#include "catch.hpp"

namespace {

// Zeros that take no memory until they are written.
template <class E> class zero_pages {
 public:
  explicit zero_pages(std::size_t elements)
      : bytes_(elements * sizeof(E)),
        data_(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~zero_pages() {
    if (data_ != MAP_FAILED) munmap(data_, bytes_);
  }
  zero_pages(const zero_pages&) = delete;
  zero_pages& operator=(const zero_pages&) = delete;
  E* get() const { return data_ == MAP_FAILED ? nullptr : static_cast<E*>(data_); }

 private:
  std::size_t bytes_;
  void* data_;
};

}   // namespace

TEST_CASE("more than 2^31 logits: the last tokens count, and get their gradient", "[.][long]") {
  constexpr std::size_t experts = 1024, tokens = (std::size_t{1} << 21) + 4096, hidden = tokens - 300;
  static_assert(experts * tokens > (std::size_t{1} << 31));
  const zero_pages<sara::bf16> logits(tokens * experts), grad(tokens * experts);
  REQUIRE(logits.get());
  REQUIRE(grad.get());
  // Only the last 300 tokens are of any sequence, so only their rows are written: 4 GiB are spanned, a megabyte is used.
  const auto in = oracle::rounded_to<sara::bf16>(oracle::plain_problem(1, 1, 3, 100, experts));
  const auto stored = oracle::as_storage<sara::bf16>(in.logits);
  std::copy(stored.begin(), stored.end(), logits.get() + hidden * experts);
  const auto anchors = oracle::as_storage<float>(in.anchors);
  const std::vector<std::int64_t> offsets{hidden, hidden + 100, hidden + 200, tokens};
  const auto want = oracle::solve(in);
  oracle::for_each_instruction_set(
      [&](const sara::cpu_executor& exec, const char* name) {
        CAPTURE(name);
        float loss = 0;
        std::memset(static_cast<void*>(grad.get() + hidden * experts), 0, 300 * experts * sizeof(sara::bf16));
        // Accumulating leaves the rows of no sequence alone.
        sara::js_routing_into(
            exec,
            sara::js_routing_inputs<sara::bf16>{.logits = sara::matrix_view<const sara::bf16>(logits.get(), tokens, experts),
                                                .sequences = sara::sequences_view::packed(offsets),
                                                .anchors = sara::matrix_view<const float>(anchors.data(), 3, experts)},
            {.loss = sara::vector_view(&loss, 1), .grad_logits = sara::matrix_view<sara::bf16>(grad.get(), tokens, experts)},
            {.mode = sara::gradient_mode::accumulate});
        CHECK(oracle::loss_error(static_cast<double>(loss), want.loss, want.root_loss) <= 1);
        const std::vector<sara::bf16> got(grad.get() + hidden * experts, grad.get() + tokens * experts);
        CHECK(oracle::relative_error(got, want.grad, oracle::unit_of<sara::bf16>(oracle::largest(want.grad)) / 2) <= 2e-6);
      },
      2);
}

TEST_CASE("one sequence of more than 2^31 zeros: a uniform histogram", "[.][long]") {
  constexpr std::size_t experts = 1024, tokens = (std::size_t{1} << 21) + 3;
  const zero_pages<sara::bf16> logits(tokens * experts);
  REQUIRE(logits.get());
  std::vector<float> anchor(experts, 0), histogram(experts);
  anchor[0] = 1;
  float divergence = 0, mass = 0;
  sara::js_routing_into(sara::cpu_executor{},
                        sara::js_routing_inputs<sara::bf16>{.logits = sara::matrix_view<const sara::bf16>(logits.get(), tokens, experts),
                                                            .sequences = sara::sequences_view::uniform(1, tokens),
                                                            .anchors = sara::matrix_view<const float>(anchor.data(), 1, experts)},
                        {.divergence = sara::matrix_view<float>(&divergence, 1, 1),
                         .histograms = sara::matrix_view<float>(histogram.data(), 1, experts),
                         .token_mass = sara::vector_view(&mass, 1)});
  const std::vector<double> uniform(experts, 1.0 / experts), one(anchor.begin(), anchor.end());
  CHECK(oracle::relative_error(histogram, uniform) <= 2e-6);
  const double want = oracle::js(uniform.data(), one.data(), experts);
  CHECK(oracle::loss_error(static_cast<double>(divergence), want, std::sqrt(want)) <= 1);
  CHECK(mass == static_cast<float>(tokens));
}
