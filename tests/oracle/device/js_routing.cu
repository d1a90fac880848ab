// js_routing on the device, for the storages that the tests use.
#include "call.cuh"

namespace sara {

template <class T, class G>
void js_routing_into(const oracle::device_executor&, const js_routing_inputs<T>& given,
                     const js_routing_outputs<std::type_identity_t<T>, G>& wanted, const js_routing_options& options) {
  oracle::on_the_device(
      given, wanted, [&](const auto& in, const auto& out) { check_js_routing("js_routing_into", in, out, options); },
      [&](const auto& in, const auto& out) { return js_routing_workspace_bytes(in, out, options); },
      [&](const cuda_executor& exec, const auto& in, const auto& out) { js_routing_into(exec, in, out, options); });
}

template <class T>
arithmetic_t<T> js_routing(const oracle::device_executor&, const js_routing_inputs<T>& given, const js_routing_options& options) {
  arithmetic_t<T> loss{};
  oracle::on_the_device(
      given, js_routing_outputs<T>{}, [&](const auto& in, const auto& out) { check_js_routing("js_routing_into", in, out, options); },
      oracle::no_workspace, [&](const cuda_executor& exec, const auto& in, const auto&) { loss = js_routing(exec, in, options); });
  return loss;
}

#define SARA_TEST_INSTANCE(T, G)                                                                   \
  template void js_routing_into<T, G>(const oracle::device_executor&, const js_routing_inputs<T>&, \
                                      const js_routing_outputs<std::type_identity_t<T>, G>&, const js_routing_options&);

SARA_TEST_INSTANCE(double, double)
SARA_TEST_INSTANCE(float, float)
SARA_TEST_INSTANCE(bf16, float)
SARA_TEST_INSTANCE(bf16, bf16)
SARA_TEST_INSTANCE(fp16, float)
SARA_TEST_INSTANCE(fp16, fp16)
template float js_routing<float>(const oracle::device_executor&, const js_routing_inputs<float>&, const js_routing_options&);

// For tests/cuda/batch.cuh.
template void js_routing_into<bf16, bf16>(const cuda_executor&, const js_routing_inputs<bf16>&, const js_routing_outputs<bf16, bf16>&,
                                          const js_routing_options&);
template float js_routing<bf16>(const cuda_executor&, const js_routing_inputs<bf16>&, const js_routing_options&);

}   // namespace sara
