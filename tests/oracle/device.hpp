// The CUDA backend as the tests see it: an executor that takes views of host memory. A call mirrors the memory of its arguments to the
// device, runs there as cuda_executor's, and brings back what it may have written.
//
// It is only declared here, without a header of CUDA's, so that one object of a test's body serves every device: device/*.cu defines it
// for the types that the tests use, compiled for a device emulated in software and, where there is nvcc, for a GPU.
#pragma once

#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/js_routing.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

namespace oracle {

struct device_executor {
  static constexpr bool runs_on_host = true;   // for its caller
};

bool device_is_there();

}   // namespace oracle

namespace sara {

template <class T, class P = T>
void gate_softmax_into(const oracle::device_executor&, const gate_softmax_inputs<T>&,
                       const gate_softmax_outputs<std::type_identity_t<T>, P>&);
template <class P, class G = P>
void gate_softmax_backward_into(const oracle::device_executor&, const gate_softmax_backward_inputs<P>&,
                                const gate_softmax_backward_outputs<std::type_identity_t<P>, G>&,
                                const gate_softmax_backward_options& = {});

template <class T, class V, class I = std::int32_t>
void top_k_into(const oracle::device_executor&, const top_k_inputs<T, V>&, const top_k_outputs<std::type_identity_t<T>, I>&,
                const top_k_options& = {});
template <class V, class I, class G = V>
void top_k_backward_into(const oracle::device_executor&, const top_k_backward_inputs<V, I>&,
                         const top_k_backward_outputs<std::type_identity_t<V>, G>&, const top_k_backward_options& = {});

template <class T>
void routing_histogram_into(const oracle::device_executor&, const routing_histogram_inputs<T>&,
                            const routing_histogram_outputs<std::type_identity_t<T>>&);
template <class T, class G = T>
void routing_histogram_backward_into(const oracle::device_executor&, const routing_histogram_backward_inputs<T>&,
                                     const routing_histogram_backward_outputs<std::type_identity_t<T>, G>&,
                                     const routing_histogram_backward_options& = {});
template <class W, class I>
void hard_routing_histogram_into(const oracle::device_executor&, const hard_routing_histogram_inputs<W, I>&,
                                 const hard_routing_histogram_outputs<std::type_identity_t<W>>&);
template <class W, class I>
void hard_routing_histogram_backward_into(const oracle::device_executor&, const hard_routing_histogram_backward_inputs<W, I>&,
                                          const hard_routing_histogram_backward_outputs<std::type_identity_t<W>>&,
                                          const routing_histogram_backward_options& = {});

template <class T>
void js_divergence_into(const oracle::device_executor&, const js_divergence_inputs<T>&, const js_divergence_outputs<arithmetic_t<T>>&,
                        const js_divergence_options& = {});

template <class T, class G = T>
void js_routing_into(const oracle::device_executor&, const js_routing_inputs<T>&, const js_routing_outputs<std::type_identity_t<T>, G>&,
                     const js_routing_options& = {});
template <class T> arithmetic_t<T> js_routing(const oracle::device_executor&, const js_routing_inputs<T>&, const js_routing_options& = {});

}   // namespace sara
