#pragma once
#include "top_k/cpu.hpp"
