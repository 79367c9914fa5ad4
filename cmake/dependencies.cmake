# SPDX-License-Identifier: Apache-2.0
#
# Finds the dependencies of the library, and reports all missing ones in one message.

set(MSB_MISSING_DEPENDENCIES "")
set(MSB_MISSING_PACKAGES "")

# msb_find(TARGET DEBIAN_PACKAGE NAME [ARGUMENT...]): calls find_package(NAME ARGUMENT...), unless
# the enclosing project has already defined the target. Records the dependency if it is missing.
macro(msb_find target debian_package name)
  if(NOT TARGET ${target})
    find_package(${name} QUIET ${ARGN})
    if(NOT TARGET ${target})
      set(_msb_wanted "${name}")
      set(_msb_found "")
      if("${ARGN}" MATCHES "^[0-9.]+")
        string(APPEND _msb_wanted " ${CMAKE_MATCH_0} or later")
        # Some modules set only one of these.
        foreach(_msb_version IN ITEMS "${${name}_VERSION_STRING}" "${${name}_VERSION}")
          if(_msb_version)
            set(_msb_found "; found ${_msb_version}")
          endif()
        endforeach()
      endif()
      string(APPEND MSB_MISSING_DEPENDENCIES
             "\n  ${_msb_wanted} (Debian package ${debian_package})${_msb_found}")
      list(APPEND MSB_MISSING_PACKAGES ${debian_package})
    endif()
  endif()
endmacro()

# msb_require_dependencies(): fails if a dependency that msb_find looked for is missing.
macro(msb_require_dependencies)
  if(MSB_MISSING_DEPENDENCIES)
    list(JOIN MSB_MISSING_PACKAGES " " MSB_MISSING_PACKAGES)
    message(FATAL_ERROR "msb cannot be built: these dependencies are missing or too old:"
                        "${MSB_MISSING_DEPENDENCIES}\n"
                        "Install them (apt-get install ${MSB_MISSING_PACKAGES}) "
                        "and configure again.")
  endif()
endmacro()

# If msb is a subproject, the enclosing project links the targets that are found here.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)

msb_find(Threads::Threads libc6-dev Threads)
msb_find(OpenSSL::Crypto libssl-dev OpenSSL COMPONENTS Crypto)
msb_find(SQLite::SQLite3 libsqlite3-dev SQLite3)
msb_find(fmt::fmt libfmt-dev fmt)
msb_find(nlohmann_json::nlohmann_json nlohmann-json3-dev nlohmann_json)
msb_find(LibArchive::LibArchive libarchive-dev LibArchive)
# MODULE selects the modules of msb even with CMAKE_FIND_PACKAGE_PREFER_CONFIG.
msb_find(msb::libzstd libzstd-dev zstd MODULE)
msb_find(ZLIB::ZLIB zlib1g-dev ZLIB)
if(MSB_WITH_REGISTRY)
  msb_find(CURL::libcurl libcurl4-openssl-dev CURL 7.87)
endif()
if(MSB_BUILD_TOOLS)
  msb_find(CLI11::CLI11 libcli11-dev CLI11)
endif()
find_package(BLAKE3 MODULE QUIET)
if(NOT BLAKE3_FOUND)
  if(BLAKE3_SOURCE_DIR)
    message(FATAL_ERROR "msb cannot be built: ${BLAKE3_NOT_FOUND_MESSAGE}. "
                        "Set it to the directory c of the BLAKE3 sources, or leave it empty.")
  endif()
  string(APPEND MSB_MISSING_DEPENDENCIES "\n  BLAKE3 (Debian package librust-blake3-dev, or its "
         "sources with -DBLAKE3_SOURCE_DIR=DIR)")
  list(APPEND MSB_MISSING_PACKAGES librust-blake3-dev)
endif()
msb_require_dependencies()
