# cmake -DPROGRAM=<program> -P expect_abort.cmake: it aborts, and stderr names function, argument and both shapes.
execute_process(COMMAND ${PROGRAM} RESULT_VARIABLE result ERROR_VARIABLE sentence)
if(NOT result MATCHES "abort|ABRT|^134$")
  message(SEND_ERROR "did not abort, but: ${result}")
endif()
if(NOT sentence MATCHES "^sara::js_routing_into: grad_logits [^\n]*\\[1, 2, 2\\][^\n]*\\[1, 1, 2\\] \\([^\n]*\\)\n$")
  message(SEND_ERROR "stderr is: ${sentence}")
endif()
