// This library on the GPU for race/python.py --device cuda, as C functions of a shared object.
#include <cuda_bf16.h>
#include <sara/js_routing.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>

namespace {

// Logits and gradient [layers, sequences, length, experts] of one storage type, anchors [layers, sequences, experts], all on the device.
template <class T> struct call {
  call(const void* logits, const float* anchors, const std::int64_t* shape, float* loss, void* gradient)
      : in{.logits = sara::layers_view{static_cast<const T*>(logits), shape[0], shape[1] * shape[2], shape[3]},
           .sequences = sara::sequences_view::uniform(shape[1], shape[2]),
           .anchors = sara::layers_view{anchors, shape[0], shape[1], shape[3]}},
        out{.loss = sara::vector_view{loss, 1},
            .grad_logits = sara::layers_view{static_cast<T*>(gradient), shape[0], shape[1] * shape[2], shape[3]}} {}

  sara::js_routing_inputs<T> in;
  sara::js_routing_outputs<T, T> out;
};

template <class T> void run(cudaStream_t stream, const call<T>& c, void* scratch, std::size_t* bytes) {
  if (scratch)
    sara::js_routing_into(sara::cuda_executor{stream, sara::workspace{scratch, *bytes}}, c.in, c.out);
  else
    *bytes = sara::js_routing_workspace_bytes(c.in, c.out);
}

}   // namespace

// Enqueues the call on the stream; without scratch it writes how many bytes of it are needed, and enqueues nothing. 0, or 1 after saying
// what is wrong: no exception may leave a C function.
extern "C" [[gnu::visibility("default")]] int race_cuda_loss(void* stream, int is_bf16, const void* logits, const float* anchors,
                                                             const std::int64_t* shape, float* loss, void* gradient, void* scratch,
                                                             std::size_t* bytes) {
  try {
    const auto on = static_cast<cudaStream_t>(stream);
    if (is_bf16)
      run(on, call<__nv_bfloat16>(logits, anchors, shape, loss, gradient), scratch, bytes);
    else
      run(on, call<float>(logits, anchors, shape, loss, gradient), scratch, bytes);
    return 0;
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
