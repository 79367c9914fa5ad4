#include <utility>

#include "msb/artifact.h"
#include "src/base/call_scope.h"
#include "src/base/throw.h"
#include "src/client_state.h"

namespace msb {

using internal::ArtifactState;

namespace {

// Checks that what is at an artifact's path now is the artifact that was opened there.
void CheckSame(const artifact::Artifact& opened, const artifact::Artifact& now) {
  const std::string& expected = opened.manifest.digest;
  const std::string& found = now.manifest.digest;
  if (expected == found) return;
  if (opened.directory == now.directory) {
    base::Throw(ErrorKind::kSnapshotIntegrity,
                "the manifest of {} changed since it was opened: expected {}, found {}",
                now.path.native(), expected, found);
  }
  base::Throw(ErrorKind::kSnapshotNotFound,
              "the snapshot {} at {} was replaced by {} since it was opened; open it again",
              expected, now.path.native(), found);
}

SnapshotUpperVerifyStatus StatusOf(const std::optional<artifact::Integrity>& found) {
  if (!found) return {.kind = "not_recorded", .algorithm = {}, .digest = {}};
  return {.kind = "verified", .algorithm = found->algorithm, .digest = found->digest};
}

}  // namespace

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

std::optional<SnapshotIntegrity> SnapshotArtifact::Integrity() const {
  const auto& layers = state_->artifact.manifest.layers;
  if (layers.empty() || !layers[0].integrity) return std::nullopt;
  return SnapshotIntegrity{layers[0].integrity->algorithm, layers[0].integrity->digest};
}

SnapshotVerifyReport SnapshotArtifact::Verify(const Context& ctx) const {
  const base::CallScope scope;
  ctx.Check();
  artifact::OpenedArtifact opened = artifact::OpenAt(ctx, state_->artifact.path);
  CheckSame(state_->artifact, opened.artifact);
  if (opened.artifact.manifest.layers.empty()) {
    base::Throw(ErrorKind::kUnsupportedOperation, "{} is a checkpoint, which has no disk to verify",
                Path());
  }
  SnapshotVerifyReport report{.digest = Digest(), .path = Path(), .upper = {}, .backing = {}};
  const artifact::DiskChain chain = internal::OpenDisk(ctx, *state_->client, std::move(opened));
  const auto found = artifact::VerifyFiles(ctx, chain.files);
  report.upper = StatusOf(found[0]);
  for (std::size_t i = 1; i < found.size(); ++i) {
    const artifact::DiskFile& file = chain.files[i];
    report.backing.push_back({file.digest, file.disk.path.native(), StatusOf(found[i])});
  }
  return report;
}

}  // namespace msb
