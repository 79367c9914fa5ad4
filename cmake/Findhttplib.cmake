# SPDX-License-Identifier: Apache-2.0
#
# Finds cpp-httplib, which the tests use, and defines httplib::httplib. Its CMake package is used if
# there is one. Debian 12 ships a compiled library without a CMake package, and with TLS.

if(NOT TARGET httplib::httplib)
  find_package(httplib QUIET CONFIG)
endif()
if(TARGET httplib::httplib)
  set(httplib_FOUND TRUE)
  return()
endif()

find_path(HTTPLIB_INCLUDE_DIR httplib.h)
find_library(HTTPLIB_LIBRARY cpp-httplib)
mark_as_advanced(HTTPLIB_INCLUDE_DIR HTTPLIB_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(httplib REQUIRED_VARS HTTPLIB_LIBRARY HTTPLIB_INCLUDE_DIR)

if(httplib_FOUND)
  find_package(OpenSSL QUIET COMPONENTS SSL Crypto)
  find_package(Threads QUIET)
  add_library(httplib::httplib INTERFACE IMPORTED)
  target_include_directories(httplib::httplib SYSTEM INTERFACE "${HTTPLIB_INCLUDE_DIR}")
  target_compile_definitions(httplib::httplib INTERFACE CPPHTTPLIB_OPENSSL_SUPPORT)
  target_link_libraries(httplib::httplib INTERFACE "${HTTPLIB_LIBRARY}" OpenSSL::SSL OpenSSL::Crypto
                                                   Threads::Threads)
endif()
