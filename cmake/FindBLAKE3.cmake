# Finds the official C implementation of BLAKE3 and defines BLAKE3::blake3.
#
# Where there is a system package (Debian 13: libblake3-dev) that is it. Debian 12 ships the sources
# in librust-blake3-dev; they are compiled, with their SIMD assembly, into whatever links the target.
# BLAKE3_IS_BUNDLED says which.

find_package(BLAKE3 QUIET CONFIG)
if(TARGET BLAKE3::blake3)
  set(BLAKE3_IS_BUNDLED FALSE)
  set(BLAKE3_FOUND TRUE)
  return()
endif()

file(GLOB _blake3_candidates /usr/share/cargo/registry/blake3-*/c/blake3.c)
list(SORT _blake3_candidates COMPARE NATURAL ORDER DESCENDING)
list(POP_FRONT _blake3_candidates _blake3_source)
cmake_path(GET _blake3_source PARENT_PATH _blake3_dir)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  BLAKE3
  REQUIRED_VARS _blake3_dir
  REASON_FAILURE_MESSAGE "install libblake3-dev, or on Debian 12 librust-blake3-dev")
if(NOT BLAKE3_FOUND)
  return()
endif()

enable_language(C ASM)
set(_blake3_files blake3.c blake3_dispatch.c blake3_portable.c)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND _blake3_files blake3_sse2_x86-64_unix.S blake3_sse41_x86-64_unix.S
       blake3_avx2_x86-64_unix.S blake3_avx512_x86-64_unix.S)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  list(APPEND _blake3_files blake3_neon.c)
endif()
list(TRANSFORM _blake3_files PREPEND "${_blake3_dir}/")

add_library(msb_blake3 OBJECT ${_blake3_files})
set_target_properties(msb_blake3 PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
# Not this project's code, and the hot loop of it also in a debug build.
target_compile_options(msb_blake3 PRIVATE -O3 -w)

add_library(BLAKE3::blake3 INTERFACE IMPORTED)
target_sources(BLAKE3::blake3 INTERFACE $<TARGET_OBJECTS:msb_blake3>)
target_include_directories(BLAKE3::blake3 SYSTEM INTERFACE "${_blake3_dir}")
set(BLAKE3_IS_BUNDLED TRUE)
