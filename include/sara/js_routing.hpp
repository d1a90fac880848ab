#pragma once
#include "js_routing/cpu.hpp"
