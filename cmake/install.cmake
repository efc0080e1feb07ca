include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mproc)

install(DIRECTORY include/mproc TYPE INCLUDE FILES_MATCHING PATTERN "*.h")
install(TARGETS ${mproc_libraries} EXPORT mproc)
install(EXPORT mproc NAMESPACE mproc:: DESTINATION ${package_dir} FILE mproc-targets.cmake)

configure_package_config_file(cmake/mproc-config.cmake.in mproc-config.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(mproc-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/mproc-config.cmake
  ${PROJECT_BINARY_DIR}/mproc-config-version.cmake
  DESTINATION ${package_dir})

# Relative, so that it is right wherever `cmake --install --prefix` puts it.
file(RELATIVE_PATH MPROC_PC_TO_PREFIX
  ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/mproc.pc.in mproc.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/mproc.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES LICENSE TYPE DOC)
include(${CMAKE_CURRENT_LIST_DIR}/man.cmake)
