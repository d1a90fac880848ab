#pragma once
#include "js_divergence/cpu.hpp"
