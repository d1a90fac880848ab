// The operations for the executors and storages that the tests use, compiled once (instances/*.cpp) and not in every test.
#pragma once

// Macros.
// clang-format off

#include <sara/eigen.hpp>
#include <sara/gate_softmax.hpp>
#include <sara/js_divergence.hpp>
#include <sara/js_routing.hpp>
#include <sara/routing_histogram.hpp>
#include <sara/top_k.hpp>

// `what` is `extern template` here, `template` where it is compiled. T: what is read, G: what is written.
#define SARA_TEST_JS_ROUTING(what, executor, T, G)                                                                                        \
  what void sara::js_routing_into<T, G>(const sara::executor&, const sara::js_routing_inputs<T>&,                                         \
                                        const sara::js_routing_outputs<std::type_identity_t<T>, G>&, const sara::js_routing_options&);
#define SARA_TEST_GATE_SOFTMAX(what, executor, T, P)                                                                                      \
  what void sara::gate_softmax_into<T, P>(const sara::executor&, const sara::gate_softmax_inputs<T>&,                                     \
                                          const sara::gate_softmax_outputs<std::type_identity_t<T>, P>&);
#define SARA_TEST_GATE_SOFTMAX_BACKWARD(what, executor, T)                                                                                \
  what void sara::gate_softmax_backward_into<T, T>(const sara::executor&, const sara::gate_softmax_backward_inputs<T>&,                   \
                                                   const sara::gate_softmax_backward_outputs<std::type_identity_t<T>, T>&,                \
                                                   const sara::gate_softmax_backward_options&);
#define SARA_TEST_TOP_K(what, executor, T, V)                                                                                             \
  what void sara::top_k_into<T, V, std::int32_t>(const sara::executor&, const sara::top_k_inputs<T, V>&,                                  \
                                                 const sara::top_k_outputs<std::type_identity_t<T>, std::int32_t>&,                       \
                                                 const sara::top_k_options&);
#define SARA_TEST_TOP_K_BACKWARD(what, executor, V)                                                                                       \
  what void sara::top_k_backward_into<V, std::int32_t, V>(const sara::executor&, const sara::top_k_backward_inputs<V, std::int32_t>&,     \
                                                          const sara::top_k_backward_outputs<std::type_identity_t<V>, V>&,                \
                                                          const sara::top_k_backward_options&);
#define SARA_TEST_ROUTING_HISTOGRAM(what, executor, T)                                                                                    \
  what void sara::routing_histogram_into<T>(const sara::executor&, const sara::routing_histogram_inputs<T>&,                              \
                                            const sara::routing_histogram_outputs<std::type_identity_t<T>>&);
#define SARA_TEST_ROUTING_HISTOGRAM_BACKWARD(what, executor, T, G)                                                                        \
  what void sara::routing_histogram_backward_into<T, G>(const sara::executor&, const sara::routing_histogram_backward_inputs<T>&,         \
                                                        const sara::routing_histogram_backward_outputs<std::type_identity_t<T>, G>&,      \
                                                        const sara::routing_histogram_backward_options&);
#define SARA_TEST_HARD_ROUTING_HISTOGRAM(what, executor, W)                                                                               \
  what void sara::hard_routing_histogram_into<W, std::int32_t>(                                                                           \
      const sara::executor&, const sara::hard_routing_histogram_inputs<W, std::int32_t>&,                                                 \
      const sara::hard_routing_histogram_outputs<std::type_identity_t<W>>&);                                                              \
  what void sara::hard_routing_histogram_backward_into<W, std::int32_t>(                                                                  \
      const sara::executor&, const sara::hard_routing_histogram_backward_inputs<W, std::int32_t>&,                                        \
      const sara::hard_routing_histogram_backward_outputs<std::type_identity_t<W>>&, const sara::routing_histogram_backward_options&);
#define SARA_TEST_JS_DIVERGENCE(what, executor, T)                                                                                        \
  what void sara::js_divergence_into<T>(const sara::executor&, const sara::js_divergence_inputs<T>&,                                      \
                                        const sara::js_divergence_outputs<sara::arithmetic_t<T>>&, const sara::js_divergence_options&);

// All of them in one storage.
#define SARA_TEST_OPERATIONS(what, executor, T)               \
  SARA_TEST_JS_ROUTING(what, executor, T, T)                  \
  SARA_TEST_GATE_SOFTMAX(what, executor, T, T)                \
  SARA_TEST_GATE_SOFTMAX_BACKWARD(what, executor, T)          \
  SARA_TEST_TOP_K(what, executor, T, T)                       \
  SARA_TEST_TOP_K_BACKWARD(what, executor, T)                 \
  SARA_TEST_ROUTING_HISTOGRAM(what, executor, T)              \
  SARA_TEST_ROUTING_HISTOGRAM_BACKWARD(what, executor, T, T)  \
  SARA_TEST_HARD_ROUTING_HISTOGRAM(what, executor, T)         \
  SARA_TEST_JS_DIVERGENCE(what, executor, T)

// Of a 16-bit storage, also those that write fp32.
#define SARA_TEST_OPERATIONS_TO_FLOAT(what, executor, T)          \
  SARA_TEST_JS_ROUTING(what, executor, T, float)                  \
  SARA_TEST_GATE_SOFTMAX(what, executor, T, float)                \
  SARA_TEST_TOP_K(what, executor, T, float)                       \
  SARA_TEST_ROUTING_HISTOGRAM_BACKWARD(what, executor, T, float)

// For both executors: a storage that writes itself, and a narrow one, which writes fp32 as well.
#define SARA_TEST_INSTANCES(what, T)              \
  SARA_TEST_OPERATIONS(what, cpu_executor, T)     \
  SARA_TEST_OPERATIONS(what, eigen_executor, T)
#define SARA_TEST_NARROW_INSTANCES(what, T)                \
  SARA_TEST_INSTANCES(what, T)                             \
  SARA_TEST_OPERATIONS_TO_FLOAT(what, cpu_executor, T)     \
  SARA_TEST_OPERATIONS_TO_FLOAT(what, eigen_executor, T)

#if !SARA_CHECKED   // a checked build is another set of functions
SARA_TEST_INSTANCES(extern template, double)
SARA_TEST_INSTANCES(extern template, float)
SARA_TEST_NARROW_INSTANCES(extern template, sara::bf16)
SARA_TEST_NARROW_INSTANCES(extern template, sara::fp16)
#endif
