# cmake -DCOMPILER=<c++> -DHEADERS=<list> -DINCLUDE_DIR=<dir> -P refuses_cuda.cmake
#
# Eigen turns its vectorisation off under nvcc, and objects built both ways then disagree on a function's body: its headers stop.
foreach(header IN LISTS HEADERS)
  execute_process(COMMAND ${COMPILER} -std=c++20 -x c++ -D__CUDACC__ -I ${INCLUDE_DIR} -E ${INCLUDE_DIR}/${header}
                  RESULT_VARIABLE failed OUTPUT_QUIET ERROR_VARIABLE message)
  if(NOT failed OR NOT message MATCHES "#error")
    message(SEND_ERROR "${header} does not stop with #error under nvcc, but with: ${message}")
  endif()
endforeach()
