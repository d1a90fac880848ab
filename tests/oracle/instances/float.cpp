#include "../instances.hpp"

SARA_TEST_INSTANCES(template, float)
