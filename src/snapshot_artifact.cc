// SPDX-License-Identifier: Apache-2.0

#include <utility>

#include "msb/artifact.h"
#include "src/artifact/consistency.h"
#include "src/base/call_scope.h"
#include "src/ops/verify.h"
#include "src/wrap.h"

namespace msb {

using internal::ArtifactState;

SnapshotArtifact ArtifactState::Wrap(std::shared_ptr<internal::ClientState> client,
                                     artifact::Artifact artifact) {
  auto state = std::make_shared<ArtifactState>();
  state->client = std::move(client);
  state->artifact = std::move(artifact);
  state->path = state->artifact.path.native();
  const auto& layers = state->artifact.manifest.layers;
  if (!layers.empty()) state->format = ToString(layers[0].format);
  state->consistency = artifact::ConsistencyOf(state->artifact.manifest);
  return SnapshotArtifact(std::move(state));
}

std::vector<SnapshotArtifact> ArtifactState::WrapAll(
    const std::shared_ptr<internal::ClientState>& client,
    std::vector<artifact::Artifact> artifacts) {
  std::vector<SnapshotArtifact> wrapped;
  wrapped.reserve(artifacts.size());
  for (artifact::Artifact& artifact : artifacts)
    wrapped.push_back(Wrap(client, std::move(artifact)));
  return wrapped;
}

SnapshotArtifact::SnapshotArtifact(std::shared_ptr<const ArtifactState> state)
    : state_(std::move(state)) {}

const std::string& SnapshotArtifact::Path() const { return state_->path; }
const std::string& SnapshotArtifact::Digest() const { return state_->artifact.manifest.digest; }
std::uint64_t SnapshotArtifact::SizeBytes() const { return state_->artifact.manifest.size_bytes; }
const std::string& SnapshotArtifact::ImageRef() const {
  return state_->artifact.manifest.image.ref;
}
const std::string& SnapshotArtifact::ImageManifestDigest() const {
  return state_->artifact.manifest.image.manifest_digest;
}
const std::string& SnapshotArtifact::Format() const { return state_->format; }
const std::string& SnapshotArtifact::Fstype() const { return state_->artifact.manifest.fstype; }
std::optional<std::string> SnapshotArtifact::Parent() const {
  return state_->artifact.manifest.parent;
}
const std::string& SnapshotArtifact::CreatedAt() const {
  return state_->artifact.manifest.created_at;
}
std::map<std::string, std::string> SnapshotArtifact::Labels() const {
  return artifact::UserLabelsOf(state_->artifact.manifest);
}
std::optional<std::string> SnapshotArtifact::SourceSandbox() const {
  return state_->artifact.manifest.source_sandbox;
}

const std::string& SnapshotArtifact::Consistency() const { return state_->consistency; }

std::optional<SnapshotIntegrity> SnapshotArtifact::Integrity() const {
  const auto& layers = state_->artifact.manifest.layers;
  if (layers.empty() || !layers[0].integrity) return std::nullopt;
  return SnapshotIntegrity{layers[0].integrity->algorithm, layers[0].integrity->digest};
}

SnapshotVerifyReport SnapshotArtifact::Verify(const Context& ctx) const {
  const base::CallScope scope;
  return ops::VerifySnapshot(ctx, *state_->client, state_->artifact);
}

}  // namespace msb
