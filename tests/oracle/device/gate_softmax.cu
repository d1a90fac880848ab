// gate_softmax and its backward on the device, for the storages that the tests use.
#include "call.cuh"

namespace sara {

template <class T, class P>
void gate_softmax_into(const oracle::device_executor&, const gate_softmax_inputs<T>& given,
                       const gate_softmax_outputs<std::type_identity_t<T>, P>& wanted) {
  oracle::on_the_device(
      given, wanted, [](const auto& in, const auto& out) { check_gate_softmax("gate_softmax_into", in, out); }, oracle::no_workspace,
      [](const cuda_executor& exec, const auto& in, const auto& out) { gate_softmax_into(exec, in, out); });
}

template <class P, class G>
void gate_softmax_backward_into(const oracle::device_executor&, const gate_softmax_backward_inputs<P>& given,
                                const gate_softmax_backward_outputs<std::type_identity_t<P>, G>& wanted,
                                const gate_softmax_backward_options& options) {
  oracle::on_the_device(
      given, wanted, [&](const auto& in, const auto& out) { check_gate_softmax_backward("gate_softmax_backward_into", in, out, options); },
      oracle::no_workspace,
      [&](const cuda_executor& exec, const auto& in, const auto& out) { gate_softmax_backward_into(exec, in, out, options); });
}

#define SARA_TEST_FORWARD(T, P)                                                                        \
  template void gate_softmax_into<T, P>(const oracle::device_executor&, const gate_softmax_inputs<T>&, \
                                        const gate_softmax_outputs<std::type_identity_t<T>, P>&);
#define SARA_TEST_BACKWARD(P, G)                                                                                         \
  template void gate_softmax_backward_into<P, G>(const oracle::device_executor&, const gate_softmax_backward_inputs<P>&, \
                                                 const gate_softmax_backward_outputs<std::type_identity_t<P>, G>&,       \
                                                 const gate_softmax_backward_options&);

SARA_TEST_FORWARD(double, double)
SARA_TEST_FORWARD(float, float)
SARA_TEST_FORWARD(float, bf16)
SARA_TEST_FORWARD(float, fp16)
SARA_TEST_FORWARD(bf16, float)
SARA_TEST_FORWARD(bf16, bf16)
SARA_TEST_FORWARD(fp16, float)
SARA_TEST_FORWARD(fp16, fp16)
SARA_TEST_BACKWARD(double, double)
SARA_TEST_BACKWARD(float, float)
SARA_TEST_BACKWARD(float, fp16)
SARA_TEST_BACKWARD(bf16, float)
SARA_TEST_BACKWARD(bf16, bf16)
SARA_TEST_BACKWARD(fp16, fp16)

}   // namespace sara
