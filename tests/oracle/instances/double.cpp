#include "../instances.hpp"

SARA_TEST_OPERATIONS(template, cpu_executor, double)
SARA_TEST_OPERATIONS(template, eigen_executor, double)
