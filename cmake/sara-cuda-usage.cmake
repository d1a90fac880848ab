# What a target that uses sara::cuda gets, in this build and from an installed package. CMake 3.25 does not know nvcc's C++20 as a
# feature, so the flag is given as it is. Which CUDA runtime is linked remains the target's CUDA_RUNTIME_LIBRARY.
function(sara_cuda_usage target)
  target_link_libraries(${target} INTERFACE sara::sara CUDA::toolkit)
  target_compile_options(${target} INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
endfunction()
