#include "../instances.hpp"

SARA_TEST_OPERATIONS(template, cpu_executor, sara::bf16)
SARA_TEST_OPERATIONS_TO_FLOAT(template, cpu_executor, sara::bf16)
SARA_TEST_OPERATIONS(template, eigen_executor, sara::bf16)
SARA_TEST_OPERATIONS_TO_FLOAT(template, eigen_executor, sara::bf16)
