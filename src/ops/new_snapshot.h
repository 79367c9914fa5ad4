// SPDX-License-Identifier: Apache-2.0
//
// Chooses the path of a new snapshot and describes it, for Create and Squash.

#ifndef MSB_SRC_OPS_NEW_SNAPSHOT_H_
#define MSB_SRC_OPS_NEW_SNAPSHOT_H_

#include <filesystem>
#include <functional>
#include <string>

#include "msb/context.h"
#include "msb/snapshot.h"
#include "src/artifact/create.h"
#include "src/artifact/manifest.h"
#include "src/ops/client_state.h"

namespace msb::ops {

// Returns the absolute path of the new snapshot.
// Throws kInvalidArgument if the options name no destination or two, if the path does not end in a
// name, or if the labels cannot be recorded.
// Throws kInvalidConfig if the name is invalid.
std::filesystem::path DestinationOf(const SnapshotCreateOptions& options,
                                    const ClientState& client);

// Returns the form of the manifest: the configured one, or else the one that the runtime reads.
artifact::ManifestForm FormFor(const Context& ctx, ClientState& client);

// Returns a manifest of this form that was created now, with the labels of the options.
artifact::Manifest NewManifest(artifact::ManifestForm form, const SnapshotCreateOptions& options);

// Applies the options for replacing and for integrity.
void ApplyOptions(artifact::ManifestForm form, const SnapshotCreateOptions& options,
                  artifact::NewArtifact& spec);
// With force, refuses to replace a snapshot whose disk is needed by others: checks that now, and
// again under the lock of the destination. ctx and client must outlive spec. independent_sandbox,
// if set, returns the name of a sandbox that does not need that disk any more once the new snapshot
// is published.
void ProtectReplaced(const Context& ctx, ClientState& client, artifact::NewArtifact& spec,
                     const std::function<std::string()>& independent_sandbox = {});
// Repeats the first of these checks. Throws what CheckReplaceable throws.
void CheckReplacement(const artifact::NewArtifact& spec);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_NEW_SNAPSHOT_H_
