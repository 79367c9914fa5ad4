# SPDX-License-Identifier: Apache-2.0
#
# CPack: makes the Debian packages libmsbN, libmsb-dev and msb-snapshot. docs/packaging.md describes
# the commands, and tests/package/debs.sh runs them.
#
# CPack reads configure.cmake, and installs the components of this build, which must be shared, and the
# development component of a static build, whose directory is MSB_STATIC_BUILD_DIR. Then finish.cmake
# completes the trees, and CPack makes a package of each.

set(MSB_STATIC_BUILD_DIR "" CACHE PATH
    "Build directory of a static build whose libmsb.a becomes part of the package libmsb-dev")

if(NOT BUILD_SHARED_LIBS OR NOT MSB_STATIC_BUILD_DIR)
  return()
endif()

get_target_property(_soversion msb SOVERSION)
set(_runtime_package libmsb${_soversion})
set(_deb_dir "${CMAKE_CURRENT_BINARY_DIR}/debian")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME msb)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "The msb authors <maintainers@msb.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "") # Each package has a synopsis of its own.
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_THREADS 1) # Makes the compressed bytes the same on every machine.
set(CPACK_VERBATIM_VARIABLES ON)

# The fourth element of each quadruple is the directory to install into.
set(CPACK_COMPONENTS_ALL runtime development)
if(MSB_BUILD_TOOLS)
  list(APPEND CPACK_COMPONENTS_ALL tools)
endif()
set(CPACK_COMPONENTS_STATIC development) # The components of the "static" project below.
cmake_path(ABSOLUTE_PATH MSB_STATIC_BUILD_DIR BASE_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}"
           OUTPUT_VARIABLE _static_dir)
set(CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_CURRENT_BINARY_DIR};msb;ALL;/" "${_static_dir};msb;static;/")

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SOURCE msb)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON) # With "=" and the version.

set(_about "msb takes disk snapshots of stopped microVM sandboxes, verifies them, moves
them between machines, and boots any number of sandboxes from each. It shares
its files with the microsandbox runtime, and also works without any VM.
.
")

set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME ${_runtime_package})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_MULTIARCH same) # From CMake 3.31 on.
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA "${_deb_dir}/shlibs" "${_deb_dir}/symbols"
                                               "${_deb_dir}/triggers")
set(CPACK_DEBIAN_RUNTIME_DESCRIPTION
    "disk snapshots of microVM sandboxes - shared library\n${_about}This package contains the shared library.")

# A program that links libmsb.a links these, and pkg-config requires their .pc files to exist.
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libmsb-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_MULTIARCH same)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS
    "libarchive-dev, libcurl4-openssl-dev, libfmt-dev, libsqlite3-dev, libssl-dev, \
libzstd-dev, zlib1g-dev")
set(CPACK_COMPONENT_DEVELOPMENT_DEPENDS runtime)
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION
    "disk snapshots of microVM sandboxes - development files\n${_about}This package contains the C++ headers, the static library, and the files with
which CMake and pkg-config find the library.")

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME msb-snapshot)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS "${CMAKE_CURRENT_BINARY_DIR}") # Of libmsb.so.N.
set(CPACK_COMPONENT_TOOLS_DEPENDS runtime)
set(CPACK_DEBIAN_TOOLS_DESCRIPTION
    "disk snapshots of microVM sandboxes - command-line program\n${_about}This package contains the program msb-snapshot, its manual page, and its
completions for bash, zsh and fish.")

# Package names by component, for the scripts that CPack runs. finish.cmake also writes the files of
# CONTROL_EXTRA.
set(MSB_DEB_PACKAGES_runtime ${_runtime_package})
set(MSB_DEB_PACKAGES_development libmsb-dev)
set(MSB_DEB_PACKAGES_tools msb-snapshot)
set(MSB_DEB_VERSION ${CPACK_PACKAGE_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE})
set(MSB_DEB_SOVERSION ${_soversion})
set(MSB_DEB_SYMBOLS_VERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
configure_file(cmake/debian/finish.cmake.in debian/finish.cmake @ONLY)
configure_file(cmake/debian/configure.cmake.in debian/configure.cmake @ONLY)
set(CPACK_PROJECT_CONFIG_FILE "${_deb_dir}/configure.cmake")
set(CPACK_PRE_BUILD_SCRIPTS "${_deb_dir}/finish.cmake")

include(CPack)
