// SPDX-License-Identifier: Apache-2.0
//
// The version of the library. It is defined only here; the build system reads it from this file.
// Versions follow semantic versioning; before 1.0, a minor version may change the API and the ABI
// (docs/contributing.md).

#ifndef MSB_VERSION_H_
#define MSB_VERSION_H_

#include <string_view>

#include "msb/export.h"

// The version of the headers that a program was compiled with.
#define MSB_VERSION_MAJOR 0
#define MSB_VERSION_MINOR 1
#define MSB_VERSION_PATCH 0
#define MSB_VERSION_STRING "0.1.0"

namespace msb {

// Returns the version of the library that the program was linked to, as "MAJOR.MINOR.PATCH". With
// the shared library, its patch version may differ from that of the headers.
[[nodiscard]] MSB_EXPORT std::string_view Version() noexcept;

}  // namespace msb

#endif  // MSB_VERSION_H_
