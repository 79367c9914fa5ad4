# SPDX-License-Identifier: Apache-2.0
#
# Finds the official C implementation of BLAKE3 and defines BLAKE3::blake3.
#
# BLAKE3_SOURCE_DIR names a directory with its sources (blake3.c), or a checkout of the BLAKE3
# repository, which has them in c/. If it is empty, an installed library is used, or else the
# sources that Debian 12 and 13 ship in librust-blake3-dev. Sources are compiled, with their SIMD
# assembly, into every target that links BLAKE3::blake3, and BLAKE3_IS_BUNDLED is set to TRUE.

set(BLAKE3_SOURCE_DIR "" CACHE PATH
    "Directory of the C sources of BLAKE3; empty to use an installed library")
set(BLAKE3_IS_BUNDLED FALSE)

if(NOT BLAKE3_SOURCE_DIR)
  if(NOT TARGET BLAKE3::blake3)
    find_package(BLAKE3 QUIET CONFIG)
  endif()
  if(TARGET BLAKE3::blake3)
    set(BLAKE3_FOUND TRUE)
    return()
  endif()
endif()

if(BLAKE3_SOURCE_DIR)
  # A relative path is relative to the directory of the top-level CMakeLists.txt.
  cmake_path(ABSOLUTE_PATH BLAKE3_SOURCE_DIR BASE_DIRECTORY "${CMAKE_SOURCE_DIR}"
             OUTPUT_VARIABLE _blake3_given)
  set(_blake3_candidates "${_blake3_given}/blake3.c" "${_blake3_given}/c/blake3.c")
  set(_blake3_reason
      "BLAKE3_SOURCE_DIR is '${BLAKE3_SOURCE_DIR}', which has neither blake3.c nor c/blake3.c")
else()
  file(GLOB _blake3_candidates /usr/share/cargo/registry/blake3-*/c/blake3.c)
  list(SORT _blake3_candidates COMPARE NATURAL ORDER DESCENDING)
  set(_blake3_reason "no library is installed, and BLAKE3_SOURCE_DIR is not set")
endif()
unset(_blake3_dir)
foreach(_blake3_source IN LISTS _blake3_candidates)
  if(EXISTS "${_blake3_source}" AND NOT _blake3_dir)
    cmake_path(GET _blake3_source PARENT_PATH _blake3_dir)
  endif()
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(BLAKE3 REQUIRED_VARS _blake3_dir
                                  REASON_FAILURE_MESSAGE "${_blake3_reason}")
if(NOT BLAKE3_FOUND)
  set(BLAKE3_NOT_FOUND_MESSAGE "${_blake3_reason}")
  return()
endif()

enable_language(C)
set(_blake3_files blake3.c blake3_dispatch.c blake3_portable.c)
set(_blake3_definitions "")
# A 32-bit build has the same processor as its 64-bit host.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  enable_language(ASM)
  list(APPEND _blake3_files blake3_sse2_x86-64_unix.S blake3_sse41_x86-64_unix.S
       blake3_avx2_x86-64_unix.S blake3_avx512_x86-64_unix.S)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  list(APPEND _blake3_files blake3_neon.c)
else()
  # Without these, blake3_dispatch.c calls the functions of the files above, whatever the processor
  # that CMake knows.
  set(_blake3_definitions BLAKE3_NO_SSE2 BLAKE3_NO_SSE41 BLAKE3_NO_AVX2 BLAKE3_NO_AVX512
                          BLAKE3_USE_NEON=0)
  message(STATUS "BLAKE3 is compiled without SIMD code, because CMAKE_SYSTEM_PROCESSOR is "
                 "'${CMAKE_SYSTEM_PROCESSOR}', or the build is not 64-bit")
endif()
list(TRANSFORM _blake3_files PREPEND "${_blake3_dir}/")

add_library(msb_blake3 OBJECT ${_blake3_files})
# Without unity builds, because its sources define the same names. Without LTO, because the C
# compiler may have another version than the C++ compiler, which then cannot read its intermediate
# code. In C11, whatever an enclosing project has set with CMAKE_C_STANDARD.
set_target_properties(
  msb_blake3 PROPERTIES C_STANDARD 11 C_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON
                        UNITY_BUILD OFF INTERPROCEDURAL_OPTIMIZATION OFF)
target_compile_definitions(msb_blake3 PRIVATE ${_blake3_definitions})
# Without warnings, because it is not this project's code; optimized even in a debug build, because
# it is the hot loop.
target_compile_options(msb_blake3 PRIVATE -O3 -w)

add_library(BLAKE3::blake3 INTERFACE IMPORTED)
target_sources(BLAKE3::blake3 INTERFACE $<TARGET_OBJECTS:msb_blake3>)
target_include_directories(BLAKE3::blake3 SYSTEM INTERFACE "${_blake3_dir}")
set(BLAKE3_IS_BUNDLED TRUE)
