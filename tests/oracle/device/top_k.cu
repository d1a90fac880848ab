// top_k and its backward on the device, for the storages and index types that the tests use.
#include "call.cuh"

namespace sara {

template <class T, class V, class I>
void top_k_into(const oracle::device_executor&, const top_k_inputs<T, V>& given, const top_k_outputs<std::type_identity_t<T>, I>& wanted,
                const top_k_options& options) {
  oracle::on_the_device(
      given, wanted, [&](const auto& in, const auto& out) { check_top_k("top_k_into", in, out, options); }, oracle::no_workspace,
      [&](const cuda_executor& exec, const auto& in, const auto& out) { top_k_into(exec, in, out, options); });
}

template <class V, class I, class G>
void top_k_backward_into(const oracle::device_executor&, const top_k_backward_inputs<V, I>& given,
                         const top_k_backward_outputs<std::type_identity_t<V>, G>& wanted, const top_k_backward_options& options) {
  oracle::on_the_device(
      given, wanted, [&](const auto& in, const auto& out) { check_top_k_backward("top_k_backward_into", in, out, options); },
      oracle::no_workspace,
      [&](const cuda_executor& exec, const auto& in, const auto& out) { top_k_backward_into(exec, in, out, options); });
}

#define SARA_TEST_FORWARD(T, V, I)                                                             \
  template void top_k_into<T, V, I>(const oracle::device_executor&, const top_k_inputs<T, V>&, \
                                    const top_k_outputs<std::type_identity_t<T>, I>&, const top_k_options&);
#define SARA_TEST_BACKWARD(V, I, G)                                                                              \
  template void top_k_backward_into<V, I, G>(const oracle::device_executor&, const top_k_backward_inputs<V, I>&, \
                                             const top_k_backward_outputs<std::type_identity_t<V>, G>&, const top_k_backward_options&);

SARA_TEST_FORWARD(double, double, std::int32_t)
SARA_TEST_FORWARD(float, float, std::int16_t)
SARA_TEST_FORWARD(float, float, std::int32_t)
SARA_TEST_FORWARD(float, float, std::int64_t)
SARA_TEST_FORWARD(float, fp16, std::int32_t)
SARA_TEST_FORWARD(bf16, float, std::int32_t)
SARA_TEST_FORWARD(bf16, bf16, std::int32_t)
SARA_TEST_FORWARD(fp16, float, std::int32_t)
SARA_TEST_FORWARD(fp16, fp16, std::int32_t)
SARA_TEST_BACKWARD(double, std::int32_t, double)
SARA_TEST_BACKWARD(double, std::int64_t, double)
SARA_TEST_BACKWARD(float, std::int32_t, float)
SARA_TEST_BACKWARD(float, std::int64_t, float)
SARA_TEST_BACKWARD(bf16, std::int32_t, float)
SARA_TEST_BACKWARD(bf16, std::int64_t, bf16)
SARA_TEST_BACKWARD(fp16, std::int64_t, fp16)

}   // namespace sara
