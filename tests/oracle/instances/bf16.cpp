#include "../instances.hpp"

SARA_TEST_NARROW_INSTANCES(template, sara::bf16)
