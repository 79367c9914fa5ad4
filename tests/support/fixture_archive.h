// SPDX-License-Identifier: Apache-2.0
//
// Reads the archives among the fixtures without the library's own code.

#ifndef MSB_TESTS_SUPPORT_FIXTURE_ARCHIVE_H_
#define MSB_TESTS_SUPPORT_FIXTURE_ARCHIVE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace msb::test {

struct FixtureEntry {
  std::string path;
  std::string stored;               // The bytes that the entry stores.
  std::uint64_t apparent_size = 0;  // Size of the file.
  // (offset, length) of each range in the map of a sparse entry.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges = {};
};

// Returns the entries of tests/fixtures/RELEASE/NAME, in archive order.
std::vector<FixtureEntry> ReadFixtureArchive(const std::string& release, const std::string& name);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_FIXTURE_ARCHIVE_H_
