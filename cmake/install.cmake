# `cmake --install`: the headers, and a package for find_package(sara). Nothing of it depends on the machine.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(sara_package_dir ${CMAKE_INSTALL_DATADIR}/cmake/sara)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/sara DESTINATION include)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/sara)
install(TARGETS sara EXPORT sara)
install(EXPORT sara NAMESPACE sara:: FILE sara-targets.cmake DESTINATION ${sara_package_dir})

# Before 1.0 a new minor version may break callers.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/sara-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_SOURCE_DIR}/cmake/sara-config.cmake ${PROJECT_SOURCE_DIR}/cmake/sara-cuda-usage.cmake
              ${PROJECT_BINARY_DIR}/sara-config-version.cmake DESTINATION ${sara_package_dir})
