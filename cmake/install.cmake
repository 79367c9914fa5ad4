# Install rules: the library, its headers, the CMake package msb and msb.pc.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

install(
  TARGETS msb
  EXPORT msbTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/msb DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/msb)
install(EXPORT msbTargets NAMESPACE msb:: DESTINATION ${_package_dir})
configure_package_config_file(cmake/msbConfig.cmake.in msbConfig.cmake
                              INSTALL_DESTINATION ${_package_dir})
write_basic_package_version_file(msbConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/msbConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/msbConfigVersion.cmake DESTINATION ${_package_dir})

# A shared libmsb carries its dependencies; whoever links a static one links them too.
if(NOT BUILD_SHARED_LIBS)
  set(MSB_PC_REQUIRES "libcrypto sqlite3 fmt libzstd zlib")
  # Not by libarchive.pc, which asks for what only a static libarchive needs.
  set(MSB_PC_LIBS "-larchive -pthread")
  if(NOT BLAKE3_IS_BUNDLED)
    string(APPEND MSB_PC_LIBS " -lblake3")
  endif()
endif()
configure_file(cmake/msb.pc.in msb.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/msb.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
