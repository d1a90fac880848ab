// Catch2, v2 (Debian 12) or v3: the one place that knows which.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;   // v2 has it in the global namespace
#else
#include <catch2/catch.hpp>
#endif
