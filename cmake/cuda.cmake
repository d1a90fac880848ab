# sara::cuda: sara::sara for CUDA sources. SARA_CUDA says whether there is to be one; AUTO, where this is no other project's part and
# there is a toolkit.
set(SARA_CUDA AUTO CACHE STRING "The target sara::cuda, for CUDA sources: AUTO, ON or OFF")
set_property(CACHE SARA_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT SARA_CUDA OR (SARA_CUDA STREQUAL "AUTO" AND NOT PROJECT_IS_TOP_LEVEL))
  return()
endif()

# Goes on without CUDA, unless it was asked for.
macro(sara_without_cuda reason)
  if(SARA_CUDA STREQUAL "AUTO")
    message(STATUS "sara: without CUDA, since ${reason}")
    return()
  endif()
  message(FATAL_ERROR "SARA_CUDA=${SARA_CUDA} cannot be, since ${reason}")
endmacro()

find_package(CUDAToolkit 13.0 QUIET)
if(NOT CUDAToolkit_FOUND)
  sara_without_cuda("no CUDA toolkit of version 13.0 or newer was found (CUDAToolkit_ROOT says where one is)")
endif()

# Only sara's own tests, benchmarks and examples need the compiler here. The toolkit tells where it is, the PATH need not; host code is
# compiled as in C++ sources; and the architectures are those that a machine without a GPU must guess.
if(SARA_BUILD_TESTS OR SARA_BUILD_BENCHMARKS OR SARA_BUILD_EXAMPLES)
  if(NOT CMAKE_CUDA_HOST_COMPILER AND NOT DEFINED ENV{CUDAHOSTCXX})
    set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
  endif()
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)
  endif()
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    # Asked before the language is enabled, since that would end the configuration where it fails.
    set(probe ${PROJECT_BINARY_DIR}/CMakeFiles/cuda_probe)
    file(WRITE ${probe}.cu "#include <atomic>\n#include <concepts>\nint main() {}\n")
    execute_process(COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -std=c++20 -ccbin ${CMAKE_CUDA_HOST_COMPILER} -c ${probe}.cu -o ${probe}.o
                    RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
    if(failed)
      sara_without_cuda("'${CUDAToolkit_NVCC_EXECUTABLE}' compiles no C++20 with ${CMAKE_CUDA_HOST_COMPILER}")
    endif()
    set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
  endif()
  enable_language(CUDA)
endif()

add_library(sara_cuda INTERFACE)
add_library(sara::cuda ALIAS sara_cuda)
include(${CMAKE_CURRENT_LIST_DIR}/sara-cuda-usage.cmake)
sara_cuda_usage(sara_cuda)
