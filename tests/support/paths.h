// The directories that the tests read from and write to.

#ifndef MSB_TESTS_SUPPORT_PATHS_H_
#define MSB_TESTS_SUPPORT_PATHS_H_

#include <filesystem>

namespace msb::test {

// Returns tests/fixtures in the sources. These paths are variables of one source and not macros, so
// that a compiler cache serves the other sources in a checkout at another path, too.
std::filesystem::path FixturesDir();
// Returns the directory, beneath the build directory, in which the tests make temporary files.
std::filesystem::path ScratchDir();

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_PATHS_H_
