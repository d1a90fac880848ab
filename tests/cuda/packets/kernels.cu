// Aligned rows of 16-bit logits: kernels whose every access to a row must be of 16 bytes, and of 8 where no more is aligned. Compiled to PTX
// alone.
#include <sara/gate_softmax.hpp>
#include <sara/js_routing.hpp>

namespace sara {
inline namespace SARA_ABI {
inline namespace SARA_CUDA_ABI {

using form = row_form<8, 16, 16>;
template __global__ void gate_softmax_in_registers<bf16, bf16, form>(const __grid_constant__ gate_softmax_inputs<bf16>,
                                                                     const __grid_constant__ gate_softmax_outputs<bf16, bf16>, int);
using form_of_60 = row_form<8, 0, 8>;
template __global__ void gate_softmax_in_registers<bf16, bf16, form_of_60>(const __grid_constant__ gate_softmax_inputs<bf16>,
                                                                           const __grid_constant__ gate_softmax_outputs<bf16, bf16>, int);
template __global__ void sum_softmax<rows_in_registers<form>, bf16, js_routing_device_step<float>>(
    const __grid_constant__ tile_sweeps<bf16>, const __grid_constant__ js_routing_device_step<float>);
template __global__ void settle_units<bf16, js_routing_device_step<float>>(const __grid_constant__ tile_sweeps<bf16>,
                                                                           const __grid_constant__ js_routing_device_step<float>, index_t);
template __global__ void differentiate_softmax<rows_in_registers<form>, bf16, bf16, js_routing_device_step<float>>(
    const __grid_constant__ tile_sweeps<bf16>, const __grid_constant__ device_layers<bf16>, bool,
    const __grid_constant__ js_routing_device_step<float>);

}   // namespace SARA_CUDA_ABI
}   // namespace SARA_ABI
}   // namespace sara
