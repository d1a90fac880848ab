# cmake -DNM=<nm> -DOBJDUMP=<objdump> -DOBJECT=<object file> -DABI=<its inline namespace> [-DCUDA_ABI=<and its GPUs'>] -P symbols.cmake
#
# Of symbols with one name the linker keeps one body, whichever comes first. So the weak symbols of the library's functions must
# stand in the namespace of the object's own flags, it must leave none of the standard library's behind, and the few that are neither
# (an exception class's destructor) must hold no code that a machine of the baseline cannot run. What nvcc compiled and reaches a kernel
# stands in the namespace of its GPUs as well.
cmake_minimum_required(VERSION 3.25)

execute_process(COMMAND ${NM} --defined-only --demangle ${OBJECT} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
if(NOT symbols MATCHES " [WVu] [^\n]*sara::${ABI}::")
  message(SEND_ERROR "no weak symbol of the library in sara::${ABI}")
endif()

execute_process(COMMAND ${OBJDUMP} -d --demangle --no-show-raw-insn ${OBJECT}
  COMMAND awk -v abi=${ABI} [[
    /^[0-9a-f]+ <.*>:$/ { name = substr($0, index($0, "<")); sub(/>:$/, "", name); name = substr(name, 2); next }
    $2 ~ /^v[a-z]/ && name ~ /sara::/ && index(name, abi) == 0 && !(name in told) { told[name] = 1; print name }]]
  OUTPUT_VARIABLE with_avx COMMAND_ERROR_IS_FATAL ANY)
if(with_avx)
  message(SEND_ERROR "AVX code outside of ${ABI}, which another object may be given:\n${with_avx}")
endif()

if(CUDA_ABI AND NOT symbols MATCHES " [WVu] [^\n]*sara::${ABI}::${CUDA_ABI}::js_divergence_into")
  message(SEND_ERROR "no weak symbol of the call in sara::${ABI}::${CUDA_ABI}")
endif()

string(REPLACE ";" "," symbols "${symbols}")
string(REPLACE "\n" ";" symbols "${symbols}")
foreach(symbol IN LISTS symbols)
  if(symbol MATCHES " [WVu] (.*)$")
    set(name ${CMAKE_MATCH_1})
    if(NOT name MATCHES "${ABI}" AND NOT name MATCHES "^(vtable for |typeinfo (name )?for )?sara::(invalid_argument|cuda_error)(::|$)" AND NOT name MATCHES "^(DW[.]ref[.]|__clang_call_terminate$)")
      message(SEND_ERROR "weak and outside of ${ABI}: ${name}")
    endif()
    if(CUDA_ABI AND name MATCHES "js_divergence_(rows|into)|device_call" AND NOT name MATCHES "${ABI}::${CUDA_ABI}::")
      message(SEND_ERROR "weak and outside of ${ABI}::${CUDA_ABI}: ${name}")
    endif()
  endif()
endforeach()
