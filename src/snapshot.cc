#include "msb/snapshot.h"

#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <utility>

#include "src/artifact/create.h"
#include "src/artifact/flatten.h"
#include "src/artifact/output_directory.h"
#include "src/artifact/store.h"
#include "src/base/call_scope.h"
#include "src/base/digest.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/client_state.h"
#include "src/handle/dependents.h"
#include "src/handle/finder.h"
#include "src/handle/lineage.h"

namespace msb {
namespace {

using artifact::ManifestForm;
using base::Throw;
using internal::ArtifactState;
using internal::ClientState;
using internal::HandleState;

std::filesystem::path DestinationOf(const SnapshotCreateOptions& options,
                                    const handle::HomePaths& paths) {
  if (options.name.empty() == options.path.empty()) {
    Throw(ErrorKind::kInvalidArgument, "set exactly one of SnapshotCreateOptions::name and path");
  }
  if (!options.path.empty()) {
    std::filesystem::path path = paths.Respell(base::AbsolutePath(options.path.native()));
    if (!path.has_filename()) {
      Throw(ErrorKind::kInvalidArgument,
            "snapshot path '{}' is invalid: it must end in the name of a directory", path.native());
    }
    return path;
  }
  base::CheckBareName("snapshot", options.name, internal::kMaxSnapshotName);
  return paths.snapshots_dir() / options.name;
}

void CheckLabels(const std::map<std::string, std::string>& labels) {
  std::size_t bytes = 0;
  for (const auto& [key, value] : labels) {
    if (!base::IsUtf8(key) || !base::IsUtf8(value)) {
      Throw(ErrorKind::kInvalidArgument, "label '{}' is not UTF-8", base::Quoted(key));
    }
    bytes += key.size() + value.size();
  }
  // Escaping may turn one byte into six.
  constexpr std::size_t kMaxLabelBytes = artifact::kMaxManifestBytes / 8;
  if (bytes > kMaxLabelBytes) {
    Throw(ErrorKind::kInvalidArgument, "the labels have {} bytes, but at most {} are supported",
          bytes, kMaxLabelBytes);
  }
}

void CheckNotRunning(const vmm::SandboxRecord& sandbox) {
  if (sandbox.status == SandboxStatus::kCreated || sandbox.status == SandboxStatus::kStopped ||
      sandbox.status == SandboxStatus::kCrashed) {
    return;
  }
  Throw(ErrorKind::kSnapshotSandboxRunning, "sandbox '{}' is {}{}; stop it first", sandbox.name,
        ToString(sandbox.status), sandbox.runs_on.empty() ? "" : ", as " + sandbox.runs_on);
}

ManifestForm FormFor(const Context& ctx, ClientState& client) {
  switch (client.config.generation) {
    case Generation::kManifest:
      return ManifestForm::kManifest;
    case Generation::kDescriptor:
      return ManifestForm::kDescriptor;
    case Generation::kAuto:
      break;
  }
  return client.catalog.RuntimePredatesDescriptors(ctx) ? ManifestForm::kManifest
                                                        : ManifestForm::kDescriptor;
}

artifact::Manifest ManifestFor(const vmm::SandboxRecord& sandbox, ManifestForm form,
                               const SnapshotCreateOptions& options) {
  if (!sandbox.image) {
    Throw(ErrorKind::kInvalidConfig, "sandbox '{}' has no pinned image", sandbox.name);
  }
  if (!sandbox.upper) {
    Throw(ErrorKind::kInvalidConfig, "sandbox '{}' has no root disk of its own", sandbox.name);
  }
  if (!base::IsDigest(sandbox.image->manifest_digest, "sha256") || sandbox.image->ref.empty()) {
    Throw(ErrorKind::kInvalidConfig,
          "the image of sandbox '{}' must have a reference and a SHA-256 digest, but has '{}' and "
          "'{}'",
          sandbox.name, base::Quoted(sandbox.image->ref),
          base::Quoted(sandbox.image->manifest_digest));
  }
  artifact::Manifest manifest;
  manifest.form = form;
  manifest.created = base::UtcTime::Now();
  manifest.created_at = base::FormatManifestTime(manifest.created);
  manifest.parent = sandbox.snapshot_digest;
  manifest.image = *sandbox.image;
  manifest.source_sandbox = sandbox.name;
  manifest.labels = options.labels;
  manifest.fstype = sandbox.upper->fstype;
  manifest.layers = {
      {.file = artifact::UpperFileName(sandbox.upper->format), .format = sandbox.upper->format}};
  return manifest;
}

std::optional<std::string> AlgorithmFor(ManifestForm form, const SnapshotCreateOptions& options) {
  if (!options.record_integrity) return std::nullopt;
  return std::string(form == ManifestForm::kManifest ? artifact::kSparseSha256
                                                     : artifact::kFileMerkle);
}

// Returns the manifest of a raw copy of a snapshot's complete disk.
artifact::Manifest SquashedManifest(const artifact::Manifest& source, ManifestForm form,
                                    const SnapshotCreateOptions& options) {
  artifact::Manifest manifest;
  manifest.form = form;
  manifest.created = base::UtcTime::Now();
  manifest.created_at = base::FormatManifestTime(manifest.created);
  manifest.image = source.image;
  manifest.source_sandbox = source.source_sandbox;
  manifest.labels = options.labels;
  manifest.fstype = source.fstype;
  manifest.layers = {{.file = artifact::UpperFileName(DiskFormat::kRaw)}};
  return manifest;
}

// If force is set, refuses to replace a snapshot whose disk is needed by others. Checks that now
// and again under the lock of the destination.
void RefuseReplacing(const Context& ctx, ClientState& client, artifact::NewArtifact& spec) {
  if (!spec.force) return;
  spec.confirm_replace = [&ctx, &client](const artifact::Artifact& old) {
    handle::CheckReplaceable(ctx, client.catalog, client.config.snapshots_dir, *client.backend,
                             old);
  };
  if (auto manifest = artifact::ReadManifest(spec.destination)) {
    spec.confirm_replace(
        {.path = spec.destination, .manifest = *std::move(manifest), .member = std::nullopt});
  }
}

// Fills in spec with the description of a snapshot of the sandbox as it is now.
void DescribeSandbox(const vmm::SandboxRecord& sandbox, ManifestForm form,
                     const SnapshotCreateOptions& options, artifact::NewArtifact& spec) {
  spec.manifest = ManifestFor(sandbox, form, options);
  spec.upper = sandbox.upper->path;
  spec.backing = sandbox.backing;
}

// Returns whether a snapshot of a sealable sandbox must be its complete disk: because it would be
// backed by more files than can be booted, or by a file that only the sandbox has.
bool MustBeWhole(const Context& ctx, ClientState& client, const vmm::SandboxRecord& sandbox,
                 const artifact::NewArtifact& spec) {
  if (sandbox.backing.size() >= handle::kMaxBackingFiles) return true;
  handle::SnapshotFinder finder(ctx, client.catalog, client.config.snapshots_dir);
  return !handle::HasBacking(
      finder, client.config.cache_dir, sandbox,
      {.path = spec.destination, .manifest = spec.manifest, .member = std::nullopt});
}

// Creates a snapshot that takes over the sandbox's disk. Takes constant time, unless it must write
// out the complete disk or record its integrity.
artifact::Artifact SealSandbox(const Context& ctx, ClientState& client,
                               const std::string& source_sandbox, ManifestForm form,
                               const SnapshotCreateOptions& options, artifact::NewArtifact spec) {
  std::optional<artifact::StagedArtifact> staged;
  artifact::Artifact artifact;
  const auto describe = [&](const vmm::SandboxRecord& sandbox) -> vmm::SealSpec {
    DescribeSandbox(sandbox, form, options, spec);
    spec.flatten = MustBeWhole(ctx, client, sandbox, spec);
    staged = artifact::StageArtifact(ctx, spec);
    vmm::SealSpec seal{.digest = staged->spec.manifest.digest, .artifact = spec.destination};
    if (spec.flatten) seal.whole_disk = staged->WholeDisk();
    return seal;
  };
  const auto publish = [&](const Disk& sealed) {
    artifact = artifact::PublishArtifact(ctx, *std::exchange(staged, std::nullopt), sealed.path);
  };
  try {
    client.backend->Seal(ctx, source_sandbox, describe, publish);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kSandboxStillRunning) throw;
    Throw(ErrorKind::kSnapshotSandboxRunning, "{}", e.what());
  }
  return artifact;
}

// How many times a snapshot is begun again because its sandbox was replaced or changed meanwhile.
constexpr int kMaxAttempts = 20;

// Returns whether an error of this kind may be due to a disk that was moved or replaced.
bool MayBeOutdated(ErrorKind kind) {
  return kind == ErrorKind::kIO || kind == ErrorKind::kInvalidConfig ||
         kind == ErrorKind::kUnsupportedOperation || kind == ErrorKind::kSnapshotSandboxRunning;
}

// Returns whether two records of a sandbox describe the same disk of the same sandbox.
bool IsSameDisk(const vmm::SandboxRecord& a, const vmm::SandboxRecord& b) {
  return a.created_at == b.created_at && a.upper.has_value() == b.upper.has_value() &&
         (!a.upper || (a.upper->path == b.upper->path && a.upper->format == b.upper->format)) &&
         a.backing.size() == b.backing.size();
}

// Takes over or copies the disk of a sandbox that was just inspected.
artifact::Artifact SnapshotDisk(const Context& ctx, ClientState& client,
                                const std::string& source_sandbox,
                                const vmm::SandboxRecord& sandbox, ManifestForm form,
                                const SnapshotCreateOptions& options, artifact::NewArtifact spec) {
  CheckNotRunning(sandbox);
  DescribeSandbox(sandbox, form, options, spec);
  if (sandbox.sealable) {
    return SealSandbox(ctx, client, source_sandbox, form, options, std::move(spec));
  }
  spec.confirm = [&] { CheckNotRunning(client.backend->Inspect(ctx, source_sandbox)); };
  return artifact::CreateArtifact(ctx, std::move(spec));
}

}  // namespace

SnapshotArtifact internal::CreateSnapshot(const Context& ctx,
                                          const std::shared_ptr<ClientState>& client,
                                          const std::string& source_sandbox,
                                          const SnapshotCreateOptions& options) {
  artifact::NewArtifact spec{.destination = DestinationOf(options, client->catalog.paths())};
  CheckLabels(options.labels);
  ctx.Check();
  client->SweepBeside(ctx, spec.destination);
  vmm::SandboxRecord sandbox = client->backend->Inspect(ctx, source_sandbox);
  CheckNotRunning(sandbox);
  handle::IndexParent(ctx, client->catalog, sandbox);
  const ManifestForm form = FormFor(ctx, *client);
  spec.force = options.force;
  spec.integrity_algorithm = AlgorithmFor(form, options);
  RefuseReplacing(ctx, *client, spec);
  artifact::CheckOutputDirectory(spec.destination);
  std::optional<artifact::Artifact> created;
  for (int attempt = 0; !created; ++attempt) {
    try {
      created = SnapshotDisk(ctx, *client, source_sandbox, sandbox, form, options, spec);
    } catch (const Error& e) {
      // The sandbox may have been removed, replaced or sealed since it was inspected.
      if (!MayBeOutdated(e.kind()) || attempt >= kMaxAttempts) throw;
      vmm::SandboxRecord now = client->backend->Inspect(ctx, source_sandbox);
      if (IsSameDisk(sandbox, now)) throw;
      sandbox = std::move(now);
    }
  }
  // From here on the snapshot exists, so neither a cancellation nor the index may make this fail.
  client->catalog.RecordPublished(ctx, *created);
  return ArtifactState::Wrap(client, *std::move(created));
}

artifact::OpenedArtifact internal::OpenSnapshot(const Context& ctx, ClientState& client,
                                                const std::string& path_or_name) {
  ctx.Check();
  const std::filesystem::path& snapshots_dir = client.config.snapshots_dir;
  artifact::OpenedArtifact opened =
      artifact::IsPath(path_or_name)
          ? artifact::OpenAt(ctx, client.catalog.paths().PathOf(path_or_name))
          : artifact::OpenNamed(ctx, snapshots_dir, path_or_name);
  const artifact::Artifact& artifact = opened.artifact;
  const std::filesystem::path& place =
      artifact.member ? artifact.member->group_path : artifact.path;
  if (place.parent_path() == snapshots_dir) client.catalog.Record(ctx, artifact);
  return opened;
}

artifact::DiskChain internal::OpenDisk(const Context& ctx, ClientState& client,
                                       artifact::OpenedArtifact snapshot) {
  handle::SnapshotFinder finder(ctx, client.catalog, client.config.snapshots_dir);
  return handle::OpenDisk(finder, client.config.cache_dir, std::move(snapshot));
}

handle::Catalog::Users internal::UsersUnless(bool force, const Context& ctx, ClientState& client) {
  if (force) return {};
  return [sandboxes = client.backend->List(ctx)](std::string_view digest) {
    return handle::SandboxesBackedBy(sandboxes, digest);
  };
}

SnapshotArtifact Snapshot::Create(const Context& ctx, const std::string& source_sandbox,
                                  const SnapshotCreateOptions& options, const Client& client) {
  const base::CallScope scope;
  internal::CheckSandboxName(source_sandbox);
  return internal::CreateSnapshot(ctx, ClientState::Of(client), source_sandbox, options);
}

SnapshotArtifact Snapshot::Open(const Context& ctx, const std::string& path_or_name,
                                const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return ArtifactState::Wrap(state, internal::OpenSnapshot(ctx, *state, path_or_name).artifact);
}

SnapshotHandle Snapshot::Get(const Context& ctx, const std::string& name_or_digest,
                             const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return HandleState::Wrap(state, state->catalog.Get(ctx, name_or_digest));
}

std::vector<SnapshotHandle> Snapshot::List(const Context& ctx, const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  std::vector<SnapshotHandle> handles;
  for (index::Row& row : state->catalog.List(ctx)) {
    handles.push_back(HandleState::Wrap(state, std::move(row)));
  }
  return handles;
}

std::vector<SnapshotArtifact> Snapshot::ListDir(const Context& ctx,
                                                const std::filesystem::path& dir,
                                                const Client& client) {
  const base::CallScope scope;
  ctx.Check();
  const auto state = ClientState::Of(client);
  std::vector<SnapshotArtifact> artifacts;
  artifact::WalkArtifacts(
      ctx, state->DirectoryOrDefault(dir),
      [&](artifact::Artifact artifact) {
        artifacts.push_back(ArtifactState::Wrap(state, std::move(artifact)));
      },
      [&](const Error& error) { state->Log(error.what()); });
  return artifacts;
}

void Snapshot::Remove(const Context& ctx, const std::string& path_or_name, bool force,
                      const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  state->catalog.Remove(ctx, path_or_name, force, internal::UsersUnless(force, ctx, *state));
}

std::uint32_t Snapshot::Reindex(const Context& ctx, const std::filesystem::path& dir,
                                const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return state->catalog.Reindex(ctx, state->DirectoryOrDefault(dir));
}

SnapshotArtifact Snapshot::Squash(const Context& ctx, const std::string& name_or_path,
                                  const SnapshotCreateOptions& destination, const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  artifact::NewArtifact spec{.destination = DestinationOf(destination, state->catalog.paths())};
  CheckLabels(destination.labels);
  artifact::OpenedArtifact source = internal::OpenSnapshot(ctx, *state, name_or_path);
  handle::CheckBootable(source.artifact);
  spec.manifest = SquashedManifest(source.artifact.manifest, FormFor(ctx, *state), destination);
  spec.force = destination.force;
  spec.integrity_algorithm = AlgorithmFor(spec.manifest.form, destination);
  RefuseReplacing(ctx, *state, spec);
  artifact::DiskChain chain = internal::OpenDisk(ctx, *state, std::move(source));
  state->SweepBeside(ctx, spec.destination);
  artifact::CheckOutputDirectory(spec.destination);
  artifact::Artifact artifact = artifact::CreateArtifact(
      ctx, std::move(spec), [&](artifact::NewArtifact& described, int stage) {
        artifact::SquashDisk(ctx, std::move(chain), described, stage);
      });
  // From here on the snapshot exists, so neither a cancellation nor the index may make this fail.
  state->catalog.RecordPublished(ctx, artifact);
  return ArtifactState::Wrap(state, std::move(artifact));
}

}  // namespace msb
