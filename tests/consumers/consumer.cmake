# The consumer, made when the library is there: its warnings are errors, and the library has left its project alone.
if(NOT CMAKE_CXX_FLAGS STREQUAL "-O2" OR DEFINED CMAKE_CXX_STANDARD OR DEFINED CMAKE_CUDA_COMPILER OR TARGET sara::cuda OR TARGET sara_test OR TARGET benchmark::benchmark)
  message(FATAL_ERROR "the library set flags, a standard or a language of its user's, or brought CUDA or its own tests")
endif()
get_target_property(options sara::sara INTERFACE_COMPILE_OPTIONS)
if(options)
  message(FATAL_ERROR "the library brings flags: ${options}")
endif()

add_executable(consumer ${CMAKE_CURRENT_LIST_DIR}/main.cpp)
target_link_libraries(consumer PRIVATE sara::sara)
target_compile_options(consumer PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
set_target_properties(consumer PROPERTIES NO_SYSTEM_FROM_IMPORTED ON)   # the installed headers' warnings count too
