// Prepares the place that a new artifact, archive or disk is written to.

#ifndef MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_
#define MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_

#include <filesystem>
#include <string_view>

#include "src/base/new_directory.h"

namespace msb::artifact {

// Throws kInvalidArgument if out, which is absolute, is inside a snapshot: if its parent directory,
// or the nearest ancestor that exists, holds an artifact.
void CheckOutputDirectory(const std::filesystem::path& out);

// Creates the parent directory of out, with its own parents, if it does not exist. The destructor
// of the result removes the directories that were created, unless Keep() is called on it. kind, for
// messages: "archive" or "disk".
// Throws what CheckOutputDirectory throws, and kInvalidArgument if out does not end in a name.
base::NewDirectory MakeOutputDirectory(std::string_view kind, const std::filesystem::path& out);

// Throws kInvalidArgument if something other than a regular file exists at out.
void CheckOutputFile(std::string_view kind, const std::filesystem::path& out);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_
