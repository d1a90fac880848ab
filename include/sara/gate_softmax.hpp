#pragma once
#include "gate_softmax/cpu.hpp"
