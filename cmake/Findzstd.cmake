# SPDX-License-Identifier: Apache-2.0
#
# Finds libzstd and defines msb::libzstd. That is the shared library, or the static one if only that
# is installed: a static libzstd may have been built without threads, like Debian's.
#
# The CMake package of libzstd defines zstd::libzstd_shared, zstd::libzstd_static or both, and since
# release 1.5.6 zstd::libzstd, which may be either. A libzstd built with its Makefile has no CMake
# package. ZSTD_LIBRARY and ZSTD_INCLUDE_DIR override all of these.

unset(_zstd_library)
if(NOT ZSTD_LIBRARY)
  if(NOT TARGET zstd::libzstd AND NOT TARGET zstd::libzstd_shared
     AND NOT TARGET zstd::libzstd_static)
    find_package(zstd QUIET CONFIG)
  endif()
  foreach(_zstd_candidate IN ITEMS zstd::libzstd_shared zstd::libzstd zstd::libzstd_static)
    if(TARGET ${_zstd_candidate} AND NOT _zstd_library)
      set(_zstd_library ${_zstd_candidate})
    endif()
  endforeach()
endif()
if(NOT _zstd_library)
  find_path(ZSTD_INCLUDE_DIR zstd.h)
  find_library(ZSTD_LIBRARY zstd)
  mark_as_advanced(ZSTD_INCLUDE_DIR ZSTD_LIBRARY)
  if(ZSTD_INCLUDE_DIR AND ZSTD_LIBRARY)
    set(_zstd_library "${ZSTD_LIBRARY}")
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(zstd REQUIRED_VARS _zstd_library)

if(zstd_FOUND AND NOT TARGET msb::libzstd)
  add_library(msb::libzstd INTERFACE IMPORTED)
  target_link_libraries(msb::libzstd INTERFACE ${_zstd_library})
  if(NOT TARGET "${_zstd_library}")
    target_include_directories(msb::libzstd INTERFACE "${ZSTD_INCLUDE_DIR}")
  endif()
endif()
