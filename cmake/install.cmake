# SPDX-License-Identifier: Apache-2.0
#
# Install rules: the library, its headers, the CMake package msb, msb.pc and the license.
#
# The components are those of the packages: runtime (libmsb.so.N), development and, from
# tools/msb-snapshot, tools. The component license is not packaged, because each package has a
# copyright file of its own (packages.cmake).
#
# A static and a shared build may be installed into one prefix, in any order. They have separate
# files for everything that differs, except msb.pc, which is written at install time for what is
# installed.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

if(BUILD_SHARED_LIBS)
  set(_kind shared)
else()
  set(_kind static)
endif()

install(
  TARGETS msb
  EXPORT msb-${_kind}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
          COMPONENT runtime
          NAMELINK_COMPONENT development
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
  INCLUDES
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/msb DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development
        FILES_MATCHING PATTERN "*.h")
# The DOCDIR of an enclosing project may contain a LICENSE of its own.
set(_doc_dir ${CMAKE_INSTALL_DATAROOTDIR}/doc/msb)
if(PROJECT_IS_TOP_LEVEL)
  set(_doc_dir ${CMAKE_INSTALL_DOCDIR})
endif()
install(FILES LICENSE cmake/debian/copyright DESTINATION ${_doc_dir} COMPONENT license)

set(_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/msb)
install(
  EXPORT msb-${_kind}
  FILE msb-${_kind}-targets.cmake
  NAMESPACE msb::
  DESTINATION ${_package_dir}
  COMPONENT development)
configure_package_config_file(cmake/msbConfig.cmake.in msbConfig.cmake
                              INSTALL_DESTINATION ${_package_dir})
configure_file(cmake/msb-static-dependencies.cmake.in msb-static-dependencies.cmake @ONLY)
write_basic_package_version_file(msbConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/msbConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/msbConfigVersion.cmake
        DESTINATION ${_package_dir} COMPONENT development)
if(NOT BUILD_SHARED_LIBS)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/msb-static-dependencies.cmake cmake/Findzstd.cmake
          DESTINATION ${_package_dir} COMPONENT development)
endif()

# libarchive.pc and libcurl.pc are not used, because they require libraries that only a static
# libarchive or libcurl needs.
set(_pc_requires "libcrypto sqlite3 fmt libzstd zlib")
set(_pc_libs "-larchive -pthread")
if(MSB_WITH_REGISTRY)
  string(APPEND _pc_libs " -lcurl")
endif()
if(NOT BLAKE3_IS_BUNDLED)
  string(APPEND _pc_libs " -lblake3")
endif()
cmake_path(SET _pc_dir NORMALIZE "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(MSB_PC_PREFIX "${CMAKE_INSTALL_PREFIX}")
  set(MSB_PC_LIBDIR "${CMAKE_INSTALL_LIBDIR}")
else()
  # Relative to the directory of msb.pc, so that the prefix can be chosen at install time and moved.
  file(RELATIVE_PATH _to_prefix "/${_pc_dir}" "/")
  string(REGEX REPLACE "/$" "" _to_prefix "${_to_prefix}")
  set(MSB_PC_PREFIX "\${pcfiledir}/${_to_prefix}")
  set(MSB_PC_LIBDIR "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
endif()
if(IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(MSB_PC_INCLUDEDIR "${CMAKE_INSTALL_INCLUDEDIR}")
else()
  set(MSB_PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
# libmsb.so is linked to its dependencies. A program that links libmsb.a must link them, too, and if
# there is no libmsb.so, it must not need pkg-config --static for that.
function(msb_write_pc kind requires public_libs private_libs)
  set(MSB_PC_REQUIRES "${requires}")
  set(MSB_PC_PUBLIC_LIBS "${public_libs}")
  set(MSB_PC_PRIVATE_LIBS "${private_libs}")
  configure_file(cmake/msb.pc.in msb-${kind}.pc @ONLY)
  # The name of the library may depend on the build type, with CMAKE_<CONFIG>_POSTFIX.
  file(GENERATE OUTPUT msb-${kind}-$<CONFIG>.pc INPUT "${CMAKE_CURRENT_BINARY_DIR}/msb-${kind}.pc")
endfunction()
msb_write_pc(shared "" "" "")
msb_write_pc(static "Requires: ${_pc_requires}" " ${_pc_libs}" "")
msb_write_pc(both "Requires.private: ${_pc_requires}" "" "Libs.private: ${_pc_libs}")

set(_libdir "${CMAKE_INSTALL_LIBDIR}")
if(NOT IS_ABSOLUTE "${_libdir}")
  set(_libdir "\${CMAKE_INSTALL_PREFIX}/${_libdir}")
endif()
install(
  CODE "set(kind static)
        # A link, whose target may be in another component.
        if(IS_SYMLINK \"\$ENV{DESTDIR}${_libdir}/lib$<TARGET_FILE_BASE_NAME:msb>.so\")
          set(kind shared)
          if(EXISTS \"\$ENV{DESTDIR}${_libdir}/lib$<TARGET_FILE_BASE_NAME:msb>.a\")
            set(kind both)
          endif()
        endif()
        file(INSTALL \"${CMAKE_CURRENT_BINARY_DIR}/msb-\${kind}-$<CONFIG>.pc\"
             DESTINATION \"${_libdir}/pkgconfig\" RENAME msb.pc)"
  COMPONENT development)
