#include "../instances.hpp"

SARA_TEST_INSTANCES(template, sara::bf16, sara::bf16)
SARA_TEST_INSTANCES(template, sara::bf16, float)
