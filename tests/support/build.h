// SPDX-License-Identifier: Apache-2.0
//
// Directories and options that only the build knows.

#ifndef MSB_TESTS_SUPPORT_BUILD_H_
#define MSB_TESTS_SUPPORT_BUILD_H_

#include <filesystem>

namespace msb::test {

// These are variables of one source and not macros, so that a compiler cache serves the other
// sources in every build directory and checkout.

// Returns tests/fixtures in the sources.
std::filesystem::path FixturesDir();
// Returns the directory, beneath the build directory, in which the tests make temporary files.
std::filesystem::path ScratchDir();
// Returns the program msb-snapshot; what is generated from it is in the same directory.
std::filesystem::path ProgramPath();
// Returns the directory of the examples, which may not have been built.
std::filesystem::path ExamplesDir();
// Returns the directory docs in the sources.
std::filesystem::path DocsDir();
// Returns whether the library is built with a sanitizer.
bool HasSanitizer();

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_BUILD_H_
