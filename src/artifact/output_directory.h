// SPDX-License-Identifier: Apache-2.0
//
// Checks the path that a new artifact, archive or disk is written to.

#ifndef MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_
#define MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_

#include <filesystem>
#include <string_view>

#include "src/base/home.h"

namespace msb::artifact {

// Throws kInvalidArgument if out, which is absolute, is inside a snapshot: if its parent directory,
// or the nearest ancestor that exists, holds an artifact.
void CheckOutputDirectory(const std::filesystem::path& out);

// Throws kInvalidArgument if out, which is absolute, is one of the directories in which the home
// keeps its own files (sandboxes, cache and databases), or is inside one of them, directly or
// through symbolic links. The snapshots directory is permitted even if it is beneath one of them.
// Also throws kInvalidArgument if a part of out has the name of a hidden directory of this library,
// which is deleted when it seems to be left by an interrupted call.
void CheckOutputPath(const base::Home& home, const std::filesystem::path& out);

// Returns the absolute path of a file to write. out is the path that the user gave, and kind is
// "archive" or "disk", for messages.
// Throws kInvalidArgument if out is empty or does not end in a name, as in "out/", and as
// CheckOutputPath does.
std::filesystem::path OutputPath(const base::Home& home, std::string_view kind,
                                 const std::filesystem::path& out);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_
