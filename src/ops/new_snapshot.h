// What Create and Squash have in common: where a new snapshot goes, and how it is described.

#ifndef MSB_SRC_OPS_NEW_SNAPSHOT_H_
#define MSB_SRC_OPS_NEW_SNAPSHOT_H_

#include <filesystem>
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

// Returns the form of the manifest: what the client is configured for, or else what its runtime
// reads.
artifact::ManifestForm FormFor(const Context& ctx, ClientState& client);

// Returns a manifest of this form that was created now, with the labels of the options.
artifact::Manifest NewManifest(artifact::ManifestForm form, const SnapshotCreateOptions& options);

// Sets what the options say about replacing and about integrity. If they force, refuses to replace
// a snapshot whose disk is needed by others: checks that now, and again under the lock of the
// destination. Refers to ctx and client until spec is gone.
void ApplyOptions(const Context& ctx, ClientState& client, artifact::ManifestForm form,
                  const SnapshotCreateOptions& options, artifact::NewArtifact& spec);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_NEW_SNAPSHOT_H_
