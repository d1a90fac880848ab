#pragma once
#include "routing_histogram/cpu.hpp"
