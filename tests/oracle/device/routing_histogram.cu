// The routing histograms and their backwards on the device, for the storages and index types that the tests use.
#include "call.cuh"

namespace sara {

template <class T>
void routing_histogram_into(const oracle::device_executor&, const routing_histogram_inputs<T>& given,
                            const routing_histogram_outputs<std::type_identity_t<T>>& wanted) {
  oracle::on_the_device(
      given, wanted, [](const auto& in, const auto& out) { check_routing_histogram("routing_histogram_into", in, out); },
      [](const auto& in, const auto& out) { return routing_histogram_workspace_bytes(in, out); },
      [](const cuda_executor& exec, const auto& in, const auto& out) { routing_histogram_into(exec, in, out); });
}

template <class T, class G>
void routing_histogram_backward_into(const oracle::device_executor&, const routing_histogram_backward_inputs<T>& given,
                                     const routing_histogram_backward_outputs<std::type_identity_t<T>, G>& wanted,
                                     const routing_histogram_backward_options& options) {
  oracle::on_the_device(
      given, wanted,
      [&](const auto& in, const auto& out) { check_routing_histogram_backward("routing_histogram_backward_into", in, out, options); },
      [&](const auto& in, const auto& out) { return routing_histogram_backward_workspace_bytes(in, out, options); },
      [&](const cuda_executor& exec, const auto& in, const auto& out) { routing_histogram_backward_into(exec, in, out, options); });
}

template <class W, class I>
void hard_routing_histogram_into(const oracle::device_executor&, const hard_routing_histogram_inputs<W, I>& given,
                                 const hard_routing_histogram_outputs<std::type_identity_t<W>>& wanted) {
  oracle::on_the_device(
      given, wanted, [](const auto& in, const auto& out) { check_hard_routing_histogram("hard_routing_histogram_into", in, out); },
      [](const auto& in, const auto& out) { return hard_routing_histogram_workspace_bytes(in, out); },
      [](const cuda_executor& exec, const auto& in, const auto& out) { hard_routing_histogram_into(exec, in, out); });
}

template <class W, class I>
void hard_routing_histogram_backward_into(const oracle::device_executor&, const hard_routing_histogram_backward_inputs<W, I>& given,
                                          const hard_routing_histogram_backward_outputs<std::type_identity_t<W>>& wanted,
                                          const routing_histogram_backward_options& options) {
  oracle::on_the_device(
      given, wanted,
      [](const auto& in, const auto& out) { check_hard_routing_histogram_backward("hard_routing_histogram_backward_into", in, out); },
      [](const auto& in, const auto& out) { return hard_routing_histogram_backward_workspace_bytes(in, out); },
      [&](const cuda_executor& exec, const auto& in, const auto& out) { hard_routing_histogram_backward_into(exec, in, out, options); });
}

#define SARA_TEST_SOFT(T)                                                                                     \
  template void routing_histogram_into<T>(const oracle::device_executor&, const routing_histogram_inputs<T>&, \
                                          const routing_histogram_outputs<std::type_identity_t<T>>&);
#define SARA_TEST_SOFT_BACKWARD(T, G)                                                                                              \
  template void routing_histogram_backward_into<T, G>(const oracle::device_executor&, const routing_histogram_backward_inputs<T>&, \
                                                      const routing_histogram_backward_outputs<std::type_identity_t<T>, G>&,       \
                                                      const routing_histogram_backward_options&);
#define SARA_TEST_HARD(W, I)                                                                                                  \
  template void hard_routing_histogram_into<W, I>(const oracle::device_executor&, const hard_routing_histogram_inputs<W, I>&, \
                                                  const hard_routing_histogram_outputs<std::type_identity_t<W>>&);
#define SARA_TEST_HARD_BACKWARD(W, I)                                                      \
  template void hard_routing_histogram_backward_into<W, I>(                                \
      const oracle::device_executor&, const hard_routing_histogram_backward_inputs<W, I>&, \
      const hard_routing_histogram_backward_outputs<std::type_identity_t<W>>&, const routing_histogram_backward_options&);

SARA_TEST_SOFT(double)
SARA_TEST_SOFT(float)
SARA_TEST_SOFT(bf16)
SARA_TEST_SOFT(fp16)
SARA_TEST_SOFT_BACKWARD(double, double)
SARA_TEST_SOFT_BACKWARD(float, float)
SARA_TEST_SOFT_BACKWARD(bf16, float)
SARA_TEST_SOFT_BACKWARD(bf16, bf16)
SARA_TEST_SOFT_BACKWARD(fp16, float)
SARA_TEST_SOFT_BACKWARD(fp16, fp16)
SARA_TEST_HARD(double, std::int32_t)
SARA_TEST_HARD(double, std::int64_t)
SARA_TEST_HARD(float, std::int16_t)
SARA_TEST_HARD(float, std::int32_t)
SARA_TEST_HARD(float, std::int64_t)
SARA_TEST_HARD(bf16, std::int32_t)
SARA_TEST_HARD(bf16, std::int64_t)
SARA_TEST_HARD(fp16, std::int32_t)
SARA_TEST_HARD_BACKWARD(double, std::int32_t)
SARA_TEST_HARD_BACKWARD(float, std::int32_t)
SARA_TEST_HARD_BACKWARD(bf16, std::int32_t)
SARA_TEST_HARD_BACKWARD(fp16, std::int32_t)

}   // namespace sara
