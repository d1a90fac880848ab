// js_routing_into for the executors and storages that the tests use, compiled once (instances/*.cpp) and not in every test.
#pragma once

// Macros.
// clang-format off

#include <sara/eigen.hpp>
#include <sara/js_routing.hpp>

// `what` is `extern template` here, `template` where it is compiled.
#define SARA_TEST_INSTANCE(what, executor, T, G)                                                                       \
  what void sara::js_routing_into<T, G>(const sara::executor&, const sara::js_routing_inputs<T>&,                      \
                                        const sara::js_routing_outputs<std::type_identity_t<T>, G>&, const sara::js_routing_options&);
#define SARA_TEST_INSTANCES(what, T, G)         \
  SARA_TEST_INSTANCE(what, cpu_executor, T, G)  \
  SARA_TEST_INSTANCE(what, eigen_executor, T, G)

#if !SARA_CHECKED   // a checked build is another set of functions
SARA_TEST_INSTANCES(extern template, double, double)
SARA_TEST_INSTANCES(extern template, float, float)
SARA_TEST_INSTANCES(extern template, sara::bf16, sara::bf16)
SARA_TEST_INSTANCES(extern template, sara::bf16, float)
SARA_TEST_INSTANCES(extern template, sara::fp16, sara::fp16)
SARA_TEST_INSTANCES(extern template, sara::fp16, float)
#endif
