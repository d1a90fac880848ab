#include "../instances.hpp"

SARA_TEST_INSTANCES(template, sara::fp16, sara::fp16)
SARA_TEST_INSTANCES(template, sara::fp16, float)
