// The version of the library: three macros, read by CMake, so that it stands in one place.
#pragma once

#define SARA_VERSION_MAJOR 0
#define SARA_VERSION_MINOR 1
#define SARA_VERSION_PATCH 0
