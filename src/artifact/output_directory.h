// Creates the directory that a new artifact, archive or disk is written to.

#ifndef MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_
#define MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_

#include <filesystem>

#include "src/base/new_directory.h"

namespace msb::artifact {

// Throws kInvalidArgument if out, which is absolute, is inside a snapshot: if its parent directory,
// or the nearest ancestor that exists, holds an artifact.
void CheckOutputDirectory(const std::filesystem::path& out);

// Creates the parent directory of out, with its own parents, if it does not exist. The destructor
// of the result removes the directories that were created, unless Keep() is called on it.
// Throws what CheckOutputDirectory throws.
base::NewDirectory MakeOutputDirectory(const std::filesystem::path& out);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_
