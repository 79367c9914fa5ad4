#include "msb/snapshot.h"

#include <chrono>
#include <utility>

#include "src/archive/export.h"
#include "src/archive/import.h"
#include "src/artifact/create.h"
#include "src/artifact/flatten.h"
#include "src/artifact/store.h"
#include "src/base/digest.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/client_state.h"
#include "src/handle/lineage.h"

namespace msb {
namespace {

using artifact::ManifestForm;
using base::Throw;
using internal::ArtifactState;
using internal::ClientState;
using internal::HandleState;

// Of zstd; those above 19 need windows that Import refuses.
constexpr int kMinLevel = 1;
constexpr int kMaxLevel = 19;

// How long a new snapshot waits for an index that others use.
constexpr auto kIndexTimeout = std::chrono::seconds(10);

std::filesystem::path DestinationOf(const SnapshotCreateOptions& options, const Config& config) {
  if (options.name.empty() == options.path.empty()) {
    Throw(ErrorKind::kInvalidArgument, "set exactly one of name and path");
  }
  if (!options.path.empty()) {
    std::filesystem::path path = base::AbsolutePath(options.path);
    if (!path.has_filename()) {
      Throw(ErrorKind::kInvalidArgument, "{} is no place for an artifact", path.native());
    }
    return path;
  }
  base::CheckBareName("snapshot", options.name, internal::kMaxSnapshotName);
  return config.snapshots_dir / options.name;
}

std::filesystem::path DirectoryOrDefault(const std::string& dir, const ClientState& client) {
  return dir.empty() ? client.config.snapshots_dir : base::AbsolutePath(dir);
}

void CheckLabels(const std::map<std::string, std::string>& labels) {
  std::size_t bytes = 0;
  for (const auto& [key, value] : labels) {
    if (!base::IsUtf8(key) || !base::IsUtf8(value)) {
      Throw(ErrorKind::kInvalidArgument, "label '{}' is not UTF-8", base::Quoted(key));
    }
    bytes += key.size() + value.size();
  }
  // Escaped, a byte may become six.
  if (bytes > artifact::kMaxManifestBytes / 8) {
    Throw(ErrorKind::kInvalidArgument, "labels of {} bytes are more than a manifest can hold",
          bytes);
  }
}

void CheckNotRunning(const vmm::SandboxRecord& sandbox) {
  if (sandbox.status == SandboxStatus::kCreated || sandbox.status == SandboxStatus::kStopped ||
      sandbox.status == SandboxStatus::kCrashed) {
    return;
  }
  Throw(ErrorKind::kSnapshotSandboxRunning, "sandbox '{}' is {}; stop it first", sandbox.name,
        ToString(sandbox.status));
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
    Throw(ErrorKind::kInvalidConfig, "the image of sandbox '{}' is not pinned by a SHA-256: '{}'",
          sandbox.name, base::Quoted(sandbox.image->manifest_digest));
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

// The new snapshot would stand on what it replaces.
void CheckNotBelow(const std::filesystem::path& destination, const vmm::SandboxRecord& sandbox) {
  const auto old = artifact::ReadManifest(destination);
  if (!old) return;
  for (const vmm::BackingFile& file : sandbox.backing) {
    if (file.name != artifact::DiskFileName(old->digest, file.disk.format)) continue;
    Throw(ErrorKind::kSnapshotHasChildren,
          "{} is what the disk of sandbox '{}' stands on, and cannot be replaced by its child; "
          "choose another name, or flatten it",
          destination.native(), sandbox.name);
  }
}

// The snapshot takes the upper over, which costs the same for any size.
artifact::Artifact SealSandbox(const Context& ctx, ClientState& client,
                               const std::string& source_sandbox, artifact::NewArtifact spec) {
  const artifact::DescribedArtifact described = artifact::DescribeArtifact(ctx, std::move(spec));
  artifact::Artifact artifact;
  try {
    client.backend->Seal(
        ctx, source_sandbox,
        {.digest = described.spec.manifest.digest, .artifact = described.spec.destination},
        [&](const vmm::Disk& sealed) {
          artifact = artifact::LinkArtifact(ctx, described, sealed.path);
        });
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kSandboxStillRunning) throw;
    Throw(ErrorKind::kSnapshotSandboxRunning, "{}", e.what());
  }
  return artifact;
}

}  // namespace

SnapshotArtifact internal::CreateSnapshot(const Context& ctx,
                                          const std::shared_ptr<ClientState>& client,
                                          const std::string& source_sandbox,
                                          const SnapshotCreateOptions& options) {
  artifact::NewArtifact spec{.destination = DestinationOf(options, client->config)};
  CheckLabels(options.labels);
  ctx.Check();
  const vmm::SandboxRecord sandbox = client->backend->Inspect(ctx, source_sandbox);
  CheckNotRunning(sandbox);
  const ManifestForm form = FormFor(ctx, *client);
  spec.manifest = ManifestFor(sandbox, form, options);
  spec.upper = sandbox.upper->path;
  spec.backing = sandbox.backing;
  spec.force = options.force;
  if (options.record_integrity) {
    spec.integrity_algorithm =
        form == ManifestForm::kManifest ? artifact::kSparseSha256 : artifact::kFileMerkle;
  }
  if (options.path.empty()) base::MakeDirectory(client->config.snapshots_dir);
  artifact::Artifact artifact;
  // No snapshot stands on more than can be booted; one that would is the whole disk.
  spec.flatten = sandbox.backing.size() >= handle::kMaxBackingFiles;
  if (sandbox.sealable && !spec.flatten) {
    if (options.force) CheckNotBelow(spec.destination, sandbox);
    artifact = SealSandbox(ctx, *client, source_sandbox, std::move(spec));
  } else {
    spec.confirm = [&] { CheckNotRunning(client->backend->Inspect(ctx, source_sandbox)); };
    artifact = artifact::CreateArtifact(ctx, std::move(spec));
  }
  // From here on the snapshot exists, so neither a cancellation nor the index may make this fail.
  client->catalog.Record(Context::Background().WithTimeout(kIndexTimeout), artifact);
  return ArtifactState::Wrap(client, std::move(artifact));
}

artifact::Artifact internal::OpenSnapshot(const Context& ctx, ClientState& client,
                                          const std::string& path_or_name) {
  ctx.Check();
  const std::filesystem::path& snapshots_dir = client.config.snapshots_dir;
  artifact::Artifact artifact = artifact::OpenArtifact(snapshots_dir, path_or_name);
  const std::filesystem::path& place =
      artifact.member ? artifact.member->group_path : artifact.path;
  if (place.parent_path() == snapshots_dir) client.catalog.Record(ctx, artifact);
  return artifact;
}

SnapshotArtifact Snapshot::Create(const Context& ctx, const std::string& source_sandbox,
                                  const SnapshotCreateOptions& options, Client& client) {
  return internal::CreateSnapshot(ctx, ClientState::Of(client), source_sandbox, options);
}

SnapshotArtifact Snapshot::Open(const Context& ctx, const std::string& path_or_name,
                                Client& client) {
  const auto state = ClientState::Of(client);
  return ArtifactState::Wrap(state, internal::OpenSnapshot(ctx, *state, path_or_name));
}

SnapshotHandle Snapshot::Get(const Context& ctx, const std::string& name_or_digest,
                             Client& client) {
  const auto state = ClientState::Of(client);
  return HandleState::Wrap(state, state->catalog.Get(ctx, name_or_digest));
}

std::vector<SnapshotHandle> Snapshot::List(const Context& ctx, Client& client) {
  const auto state = ClientState::Of(client);
  std::vector<SnapshotHandle> handles;
  for (index::Row& row : state->catalog.List(ctx)) {
    handles.push_back(HandleState::Wrap(state, std::move(row)));
  }
  return handles;
}

std::vector<SnapshotArtifact> Snapshot::ListDir(const Context& ctx, const std::string& dir,
                                                Client& client) {
  ctx.Check();
  const auto state = ClientState::Of(client);
  std::vector<SnapshotArtifact> artifacts;
  artifact::WalkArtifacts(
      ctx, DirectoryOrDefault(dir, *state),
      [&](artifact::Artifact artifact) {
        artifacts.push_back(ArtifactState::Wrap(state, std::move(artifact)));
      },
      [&](std::string_view message) { state->Log(message); });
  return artifacts;
}

void Snapshot::Remove(const Context& ctx, const std::string& path_or_name, bool force,
                      Client& client) {
  ClientState::Of(client)->catalog.Remove(ctx, path_or_name, force);
}

std::uint32_t Snapshot::Reindex(const Context& ctx, const std::string& dir, Client& client) {
  const auto state = ClientState::Of(client);
  return state->catalog.Reindex(ctx, DirectoryOrDefault(dir, *state));
}

void Snapshot::Export(const Context& ctx, const std::string& name_or_path,
                      const std::string& out_path, const SnapshotExportOptions& options,
                      Client& client) {
  const auto state = ClientState::Of(client);
  if (options.level < kMinLevel || options.level > kMaxLevel) {
    Throw(ErrorKind::kInvalidArgument, "compression level {} is not one of {} to {}", options.level,
          kMinLevel, kMaxLevel);
  }
  archive::ExportSpec spec{.chain = {},
                           .cache_dir = state->config.cache_dir,
                           .out = base::AbsolutePath(out_path),
                           .options = options};
  artifact::Artifact head = internal::OpenSnapshot(ctx, *state, name_or_path);
  if (options.with_parents) {
    spec.chain =
        handle::LineageOf(ctx, state->catalog, state->config.snapshots_dir, std::move(head));
  } else {
    spec.chain.push_back(std::move(head));
  }
  archive::ExportArchive(ctx, spec);
}

void Snapshot::Flatten(const Context& ctx, const std::string& name_or_path,
                       const std::string& out_path, const SnapshotFlattenOptions& options,
                       Client& client) {
  const auto state = ClientState::Of(client);
  const Config& config = state->config;
  const artifact::Artifact artifact = internal::OpenSnapshot(ctx, *state, name_or_path);
  const auto backing =
      handle::BackingOf(ctx, state->catalog, config.snapshots_dir, config.cache_dir, artifact);
  artifact::FlattenArtifact(ctx, artifact, backing, options.format, base::AbsolutePath(out_path));
}

SnapshotHandle Snapshot::Import(const Context& ctx, const std::string& archive,
                                const std::string& dest, Client& client) {
  const auto state = ClientState::Of(client);
  const std::vector<artifact::Artifact> imported =
      archive::ImportArchive(ctx, {.archive = base::AbsolutePath(archive),
                                   .destination = DirectoryOrDefault(dest, *state),
                                   .cache_dir = state->config.cache_dir});
  // From here on they exist, so neither a cancellation nor the index may make this fail.
  const Context indexing = Context::Background().WithTimeout(kIndexTimeout);
  index::Row row;
  for (const artifact::Artifact& artifact : imported) {
    row = state->catalog.RecordCopy(indexing, artifact);
  }
  return HandleState::Wrap(state, std::move(row));
}

}  // namespace msb
