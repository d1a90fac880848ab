# cmake -DCOMPILER=<c++> -DINCLUDE_DIR=<dir that holds sara/> -P closure.cmake
#
# What `#include <sara/js_routing.hpp>` costs every C++ source file that has it: no heavy header behind it, none of CUDA's, and a bound on
# what the compiler reads.
cmake_minimum_required(VERSION 3.25)

set(own_lines_bound 2150)     # of the library's, blank lines and comments apart
set(all_lines_bound 67000)    # of all, as counted with libstdc++ 12; other versions differ and are only reported

set(dir ${CMAKE_CURRENT_BINARY_DIR})
execute_process(COMMAND ${COMPILER} -std=c++20 -x c++ -E -I ${INCLUDE_DIR} ${INCLUDE_DIR}/sara/js_routing.hpp
                OUTPUT_FILE ${dir}/closure.ii COMMAND_ERROR_IS_FATAL ANY)
# A line is code, or `# <number> "<file>" <flags>`: from here on, the text is of that file.
execute_process(
  COMMAND awk -v own=${INCLUDE_DIR}/sara/ [[
    /^# [0-9]+ "/ { split($0, part, "\""); file = part[2]; seen[file] = 1; next }
    /[^ \t]/ { ++all; if (index(file, own) == 1) ++mine }
    END {
      for (file in seen) if (file ~ /\/(immintrin\.h|iostream|regex)$|\/Eigen\/|\.cuh$|\/cuda[^\/]*\.h$/) print "heavy " file
      print "lines " all + 0 " " mine + 0
    }]] ${dir}/closure.ii
  OUTPUT_VARIABLE report COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${COMPILER} -std=c++20 -x c++ -E -dM -include version ${CMAKE_CURRENT_LIST_DIR}/main.cpp
                OUTPUT_VARIABLE macros COMMAND_ERROR_IS_FATAL ANY)

if(report MATCHES "heavy [^\n]*")
  message(SEND_ERROR "js_routing.hpp must not bring: ${CMAKE_MATCH_0}")
endif()
if(NOT report MATCHES "lines ([0-9]+) ([0-9]+)")
  message(FATAL_ERROR "no count in: ${report}")
endif()
set(all ${CMAKE_MATCH_1})
set(own ${CMAKE_MATCH_2})
message(STATUS "js_routing.hpp: ${own} lines of the library's, ${all} in all")
if(own EQUAL 0 OR own GREATER own_lines_bound)
  message(SEND_ERROR "js_routing.hpp reads ${own} lines of the library's, more than ${own_lines_bound}")
endif()
if(macros MATCHES "_GLIBCXX_RELEASE 12\n" AND all GREATER all_lines_bound)
  message(SEND_ERROR "js_routing.hpp reads ${all} lines, more than ${all_lines_bound}")
endif()
