// SPDX-License-Identifier: Apache-2.0
//
// Opens files that must be regular files.

#ifndef MSB_SRC_BASE_REGULAR_FILE_H_
#define MSB_SRC_BASE_REGULAR_FILE_H_

#include <filesystem>
#include <string>

#include "msb/error.h"
#include "src/base/file.h"

namespace msb::base {

// Returns the descriptor of an entry. Throws an error of the given kind, which names path and what
// was found there, if the entry is not a regular file.
UniqueFd RequireRegularFile(Entry entry, const std::filesystem::path& path, ErrorKind kind);

// Opens the file at path for reading. Throws an error of the given kind if path is not a regular
// file; a symbolic link is not followed at the last component.
UniqueFd OpenRegularFile(const std::filesystem::path& path, ErrorKind kind);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_REGULAR_FILE_H_
