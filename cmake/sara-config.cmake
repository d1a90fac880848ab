# What find_package(sara) reads after an install.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include("${CMAKE_CURRENT_LIST_DIR}/sara-targets.cmake")
