// SPDX-License-Identifier: Apache-2.0
//
// Resolves snapshots that are given on the command line.

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

// Returns the path of the snapshot that the index has under this name or digest, or "" if it has
// none.
// Throws kInvalidArgument if several snapshots outside the snapshots directory have the name.
std::string PathInIndex(Session& session, const std::string& name_or_digest);

// Returns the path of the snapshot if text is a digest, the beginning of one, or the name of a
// snapshot outside the snapshots directory, and otherwise text, which is a name or a path.
// Throws kSnapshotNotFound if no snapshot in the index has the digest, and kInvalidArgument if
// several snapshots outside the snapshots directory have the name.
std::string NameOrPath(Session& session, const std::string& text);

// Opens a snapshot that is given by name, path, digest or the beginning of a digest.
SnapshotArtifact OpenSnapshot(Session& session, const std::string& text);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_SNAPSHOT_ARGUMENT_H_
