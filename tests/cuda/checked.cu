// A checked build looks where the arguments lie.
#undef SARA_CHECKED
#define SARA_CHECKED 1
#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

#include "batch.cuh"
#include "catch.hpp"

using namespace device_tests;

namespace {

template <class Call> std::string refusal(const Call& call) {
  try {
    call();
  } catch (const sara::invalid_argument& e) {
    return e.what();
  }
  return "";
}

bool reads_host_memory() {
  int reads = 0;
  require_success(cudaDeviceGetAttribute(&reads, cudaDevAttrPageableMemoryAccess, 0));
  return reads != 0;
}

}   // namespace

TEST_CASE("checked: memory of the host is refused by the argument's name", "[cuda]") {
  if (reads_host_memory()) return;   // such a device may be given it
  const stream on;
  const sara::cuda_executor exec{on};
  const batch b(31);
  std::vector<float> there(1000, 1.0f);
  const auto said = [](const char* function, const char* argument) {
    return std::string("sara::") + function + ": " + argument + " must lie in memory of the device, but lies in the host's (checked build)";
  };
  auto in = b.inputs();
  in.token_weights = sara::vector_view<const float>(there.data(), batch::tokens);
  CHECK(refusal([&] { sara::js_routing_into(exec, in, b.outputs()); }) == said("js_routing_into", "token_weights"));
  CHECK(refusal([&] { sara::js_routing(exec, in); }) == said("js_routing", "token_weights"));
  auto out = b.outputs();
  out.loss = sara::vector_view<float>(there.data(), 1);
  CHECK(refusal([&] { sara::js_routing_into(exec, b.inputs(), out); }) == said("js_routing_into", "loss"));
  CHECK(refusal([&] { sara::js_routing_into(exec, b.inputs(), b.outputs()); }).empty());

  const sara::matrix_view<float> m(there.data(), 5, 8);
  const sara::matrix_view<float> far(b.anchors.data(), 5, 8);
  CHECK(refusal([&] { sara::gate_softmax_into(exec, sara::gate_softmax_inputs<float>{.logits = m}, {.probs = far}); }) ==
        said("gate_softmax_into", "logits"));
  CHECK(refusal([&] {
          sara::top_k_into(exec, sara::top_k_inputs<float>{.scores = far}, {.weights = sara::matrix_view<float>(there.data(), 5, 2)});
        }) == said("top_k_into", "weights"));
  CHECK(refusal([&] {
          sara::js_divergence_into(exec, sara::js_divergence_inputs<float>{.p = far, .q = m},
                                   {.divergence = sara::vector_view<float>(b.divergence.data(), 5)});
        }) == said("js_divergence_into", "q"));
  CHECK(refusal([&] {
          sara::routing_histogram_into(exec,
                                       sara::routing_histogram_inputs<float>{.logits = m, .sequences = sara::sequences_view::uniform(1, 5)},
                                       {.histograms = sara::matrix_view<float>(b.histograms.data(), 1, 8)});
        }) == said("routing_histogram_into", "logits"));
  on.wait();
}
