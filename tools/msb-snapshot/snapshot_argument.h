// SPDX-License-Identifier: Apache-2.0
//
// Snapshots that are given by digest on the command line.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_SNAPSHOT_ARGUMENT_H_
#define MSB_TOOLS_MSB_SNAPSHOT_SNAPSHOT_ARGUMENT_H_

#include <string>

#include "tools/msb-snapshot/session.h"

namespace msb::program {

// Returns text, with the rest of the digest if text is the beginning of a digest, such as
// "sha256:140102874619", that one snapshot in the index has.
// Throws kInvalidArgument if snapshots with different digests have this beginning, or if it has
// fewer than 4 digits.
std::string CompleteDigest(Session& session, const std::string& text);

// Returns the path of the snapshot if text is a digest or the beginning of one, and otherwise text,
// which is a name or a path.
// Throws kSnapshotNotFound if no snapshot in the index has the digest.
std::string NameOrPath(Session& session, const std::string& text);

// Opens a snapshot that is given by name, path, digest or the beginning of a digest.
SnapshotArtifact OpenSnapshot(Session& session, const std::string& text);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_SNAPSHOT_ARGUMENT_H_
