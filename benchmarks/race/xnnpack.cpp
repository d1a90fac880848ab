#include <pthreadpool.h>
#include <xnnpack.h>

#include <memory>
#include <stdexcept>

#include "contestant.hpp"

namespace race {
namespace {

void must(xnn_status status, const char* what) {
  if (status != xnn_status_success) throw std::runtime_error(std::string("XNNPACK: ") + what + " failed with " + std::to_string(status));
}

struct softmax {
  std::unique_ptr<pthreadpool, decltype(&pthreadpool_destroy)> threads{pthreadpool_create(2), &pthreadpool_destroy};
  std::unique_ptr<xnn_operator, decltype(&xnn_delete_operator)> op{nullptr, &xnn_delete_operator};
  std::vector<float> probs;

  explicit softmax(const routing_problem& p) : probs(p.logits.size(), 1.0f) {
    const auto experts = static_cast<std::size_t>(p.shape.experts);
    xnn_operator_t made = nullptr;
    must(xnn_initialize(nullptr), "xnn_initialize");
    must(xnn_create_softmax_nc_f32(experts, experts, experts, 0, &made), "xnn_create_softmax_nc_f32");
    op.reset(made);
    must(xnn_setup_softmax_nc_f32(made, p.logits.size() / experts, p.logits.data(), probs.data(), threads.get()),
         "xnn_setup_softmax_nc_f32");
  }
};

}   // namespace

std::vector<contestant> xnnpack_softmax_contestants(const routing_problem& p) {
  const auto s = std::make_shared<softmax>(p);
  return {{.library = "XNNPACK",
           .job = softmax_forward,
           .how = "softmax_nc_f32",
           .threads = 2,
           .run = [s] { must(xnn_run_operator(s->op.get(), s->threads.get()), "xnn_run_operator"); },
           .check =
               [s, &p] {
                 return errors{benchmarks::largest_error(s->probs, p.probs), -1};
               }}};
}

}   // namespace race
