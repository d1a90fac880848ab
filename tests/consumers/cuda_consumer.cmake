# The consumer on a GPU. Its standard, its architectures and its choice of the CUDA runtime are its own.
if(DEFINED CMAKE_CUDA_STANDARD OR NOT CMAKE_CUDA_ARCHITECTURES STREQUAL ARCHITECTURES OR NOT CMAKE_CUDA_FLAGS STREQUAL "-O2" OR TARGET sara_test)
  message(FATAL_ERROR "the library set a standard, architectures or flags of its user's, or brought its own tests")
endif()

add_executable(consumer ${CMAKE_CURRENT_LIST_DIR}/main.cu)
target_link_libraries(consumer PRIVATE sara::cuda)
target_compile_options(consumer PRIVATE -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Wshadow)
set_target_properties(consumer PROPERTIES CUDA_RUNTIME_LIBRARY ${RUNTIME} NO_SYSTEM_FROM_IMPORTED ON)
