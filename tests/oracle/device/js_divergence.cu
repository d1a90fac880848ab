// js_divergence on the device, for the storages that the tests use.
#include "call.cuh"

namespace sara {

template <class T>
void js_divergence_into(const oracle::device_executor&, const js_divergence_inputs<T>& given,
                        const js_divergence_outputs<arithmetic_t<T>>& wanted, const js_divergence_options& options) {
  oracle::on_the_device(
      given, wanted, [](const auto& in, const auto& out) { check_js_divergence("js_divergence_into", in, out); }, oracle::no_workspace,
      [&](const cuda_executor& exec, const auto& in, const auto& out) { js_divergence_into(exec, in, out, options); });
}

#define SARA_TEST_INSTANCE(T)                                                                         \
  template void js_divergence_into<T>(const oracle::device_executor&, const js_divergence_inputs<T>&, \
                                      const js_divergence_outputs<arithmetic_t<T>>&, const js_divergence_options&);

SARA_TEST_INSTANCE(double)
SARA_TEST_INSTANCE(float)
SARA_TEST_INSTANCE(bf16)
SARA_TEST_INSTANCE(fp16)

}   // namespace sara
