// SPDX-License-Identifier: Apache-2.0
//
// Why nothing is at a path.

#ifndef MSB_SRC_BASE_ABSENT_PATH_H_
#define MSB_SRC_BASE_ABSENT_PATH_H_

#include <filesystem>

namespace msb::base {

// Returns path if something is there, even a symbolic link to an absent file, else the nearest
// directory above it of which this is true. Returns an empty path if this is true of none of them.
std::filesystem::path NearestExisting(std::filesystem::path path);

// Returns the symbolic link to an absent file because of which path is absent: path itself or a
// directory above it. Returns an empty path if path is absent for another reason, or exists.
std::filesystem::path DanglingLinkIn(const std::filesystem::path& path);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_ABSENT_PATH_H_
