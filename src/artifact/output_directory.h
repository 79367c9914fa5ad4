// SPDX-License-Identifier: Apache-2.0
//
// Checks the path that a new artifact, archive or disk is written to.

#ifndef MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_
#define MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_

#include <filesystem>

namespace msb::artifact {

// Throws kInvalidArgument if out, which is absolute, is inside a snapshot: if its parent directory,
// or the nearest ancestor that exists, holds an artifact.
void CheckOutputDirectory(const std::filesystem::path& out);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_OUTPUT_DIRECTORY_H_
