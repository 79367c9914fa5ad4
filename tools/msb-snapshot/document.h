// SPDX-License-Identifier: Apache-2.0
//
// The JSON documents of --json, and the same values as text. docs/msb-snapshot.schema.json is the
// schema of the documents.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_DOCUMENT_H_
#define MSB_TOOLS_MSB_SNAPSHOT_DOCUMENT_H_

#include <optional>
#include <string>

#include "msb/msb.h"
#include "tools/msb-snapshot/session.h"

namespace msb::program {

Json ToJson(const SnapshotHandle& handle);
Json ToJson(const SnapshotArtifact& artifact);
Json ToJson(const SnapshotVerifyReport& report);
Json ToJson(const SandboxHandle& sandbox);

// Returns the disk of a sandbox, or nullopt if it has none of its own.
std::optional<SandboxUpper> UpperOf(const SandboxHandle& sandbox);

// Returns the fields of a snapshot, one on each line.
std::string Details(const SnapshotArtifact& artifact);
// Returns the result of a verification, one file on each line.
std::string Details(const SnapshotVerifyReport& report);

// Returns "running", "stopped" and so on.
std::string_view StatusName(SandboxStatus status);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_DOCUMENT_H_
