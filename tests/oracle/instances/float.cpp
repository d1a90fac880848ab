#include "../instances.hpp"

SARA_TEST_OPERATIONS(template, cpu_executor, float)
SARA_TEST_OPERATIONS(template, eigen_executor, float)
