// SPDX-License-Identifier: Apache-2.0
//
// MSB_EXPORT marks the symbols that the shared library exports; all others are hidden. Every public
// header includes this file, because it checks the language standard.

#ifndef MSB_EXPORT_H_
#define MSB_EXPORT_H_

#if defined(_WIN32)
#error "msb runs on Linux only"
#endif
#if __cplusplus < 202002L
#error "msb needs C++20: compile with -std=c++20 or later"
#endif

#define MSB_EXPORT __attribute__((visibility("default")))

#endif  // MSB_EXPORT_H_
