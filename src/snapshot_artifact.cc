#include <utility>

#include "msb/artifact.h"
#include "src/base/throw.h"
#include "src/client_state.h"

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
  return SnapshotArtifact(std::move(state));
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
  return state_->artifact.manifest.labels;
}
std::optional<std::string> SnapshotArtifact::SourceSandbox() const {
  return state_->artifact.manifest.source_sandbox;
}

SnapshotVerifyReport SnapshotArtifact::Verify(const Context& ctx) const {
  ctx.Check();
  const artifact::Artifact now = artifact::OpenArtifactAt(state_->artifact.path);
  if (now.manifest.digest != Digest()) {
    base::Throw(ErrorKind::kSnapshotIntegrity, "the manifest of {} changed: expected {}, found {}",
                Path(), Digest(), now.manifest.digest);
  }
  if (now.manifest.layers.empty()) {
    base::Throw(ErrorKind::kUnsupportedOperation, "{} is a checkpoint, which has no disk to verify",
                Path());
  }
  SnapshotVerifyReport report{.digest = now.manifest.digest, .path = Path(), .upper = {}};
  report.upper.kind = "not_recorded";
  bool is_head = true;
  for (const artifact::Layer& layer : now.manifest.layers) {
    const auto verified = artifact::VerifyLayer(ctx, now, layer);
    // The layers below are checked too; what is reported is the head's.
    if (is_head && verified) report.upper = {"verified", verified->algorithm, verified->digest};
    is_head = false;
  }
  return report;
}

}  // namespace msb
