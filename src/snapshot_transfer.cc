// Export, Import and Flatten: snapshots leave a home and come to one.

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "msb/snapshot.h"
#include "src/archive/export.h"
#include "src/archive/import.h"
#include "src/artifact/flatten.h"
#include "src/artifact/output_directory.h"
#include "src/base/call_scope.h"
#include "src/base/digest.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/client_state.h"
#include "src/handle/export_lineage.h"
#include "src/handle/finder.h"
#include "src/handle/lineage.h"

namespace msb {
namespace {

using base::Throw;
using internal::ClientState;
using internal::HandleState;

// Compression levels of zstd. Levels above 19 need windows that Import refuses.
constexpr int kMinLevel = 1;
constexpr int kMaxLevel = 19;

// Returns the digest of the snapshot that SnapshotExportOptions::since names, or nullopt if since
// is empty. If since is a digest, the snapshot need not exist here.
std::optional<std::string> SinceDigest(const Context& ctx, ClientState& client,
                                       const std::string& since) {
  if (since.empty()) return std::nullopt;
  if (base::IsDigest(since, "sha256")) return since;
  return internal::OpenSnapshot(ctx, client, since).artifact.manifest.digest;
}

// Makes an import look in the client's home and in its destination for snapshots that exist
// already.
void FindWith(const Context& ctx, ClientState& client, handle::SnapshotFinder& finder,
              archive::ImportSpec& spec) {
  const std::filesystem::path destination = spec.destination;
  const std::filesystem::path snapshots_dir = client.config.snapshots_dir;
  // An explicit destination gets its own copy of snapshots that the home has.
  const bool copies = destination.lexically_normal() != snapshots_dir.lexically_normal();
  spec.find_present = [=, &client, &finder](const std::string& digest) {
    // An unrelated artifact that cannot be read must not prevent every import.
    const auto warn = [&](const Error& e) {
      client.Log(fmt::format("snapshot {} is imported, although it may already exist: {}", digest,
                             e.what()));
    };
    auto found = copies ? finder.FindIn(digest, {destination}, warn)
                        : finder.Find(digest, {destination}, warn);
    return found ? std::optional(std::move(found->artifact)) : std::nullopt;
  };
  spec.find_backing = [=, &ctx, &client, &finder](const std::string& id) {
    auto found = finder.Find(id, {destination, snapshots_dir}, [](const Error& e) { throw e; });
    std::optional<artifact::Artifact> artifact;
    if (!found) return artifact;
    artifact = found->artifact;
    try {
      internal::OpenDisk(ctx, client, *std::move(found));
    } catch (const Error& e) {
      // The image may be imported later.
      if (e.kind() != ErrorKind::kSnapshotImageMissing) throw;
      client.Log(e.what());
    }
    return artifact;
  };
  spec.log = [&client](std::string_view message) { client.Log(message); };
}

}  // namespace

void Snapshot::Export(const Context& ctx, const std::string& name_or_path,
                      const std::filesystem::path& out_path, const SnapshotExportOptions& options,
                      const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  if (options.level < kMinLevel || options.level > kMaxLevel) {
    Throw(ErrorKind::kInvalidArgument, "compression level {} is invalid: it must be from {} to {}",
          options.level, kMinLevel, kMaxLevel);
  }
  archive::ExportSpec spec{.chain = {},
                           .cache_dir = state->config.cache_dir,
                           .out = base::AbsolutePath(out_path.native()),
                           .with_parents = options.with_parents,
                           .with_image = options.with_image,
                           .plain_tar = options.plain_tar,
                           .sparse = options.sparse,
                           .level = options.level,
                           .threads = options.threads};
  handle::SnapshotFinder finder(ctx, state->catalog, state->config.snapshots_dir);
  handle::ExportLineage lineage =
      handle::LineageForExport(ctx, finder, internal::OpenSnapshot(ctx, *state, name_or_path),
                               options.with_parents, SinceDigest(ctx, *state, options.since));
  spec.chain = std::move(lineage.snapshots);
  if (lineage.needed) spec.needed.push_back(*lineage.needed);
  state->SweepBeside(ctx, spec.out);
  archive::ExportArchive(ctx, spec);
}

void Snapshot::Flatten(const Context& ctx, const std::string& name_or_path,
                       const std::filesystem::path& out_path, const SnapshotFlattenOptions& options,
                       const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  artifact::OpenedArtifact snapshot = internal::OpenSnapshot(ctx, *state, name_or_path);
  handle::CheckBootable(snapshot.artifact);
  artifact::DiskChain disk = internal::OpenDisk(ctx, *state, std::move(snapshot));
  const std::filesystem::path out = base::AbsolutePath(out_path.native());
  state->SweepBeside(ctx, out);
  base::NewDirectory directory = artifact::MakeOutputDirectory(out);
  artifact::FlattenDisk(ctx, std::move(disk), options.format, out);
  directory.Keep();
}

SnapshotHandle Snapshot::Import(const Context& ctx, const std::filesystem::path& archive,
                                const std::filesystem::path& dest,
                                const SnapshotImportOptions& options, const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  archive::ImportSpec spec{.archive = base::AbsolutePath(archive.native()),
                           .destination = state->DirectoryOrDefault(dest),
                           .cache_dir = state->config.cache_dir};
  state->SweepBeside(ctx, spec.destination / "");
  artifact::CheckOutputDirectory(spec.destination / "");
  if (!options.name.empty()) {
    base::CheckBareName("snapshot", options.name, internal::kMaxSnapshotName);
    spec.name = options.name;
  }
  handle::SnapshotFinder finder(ctx, state->catalog, state->config.snapshots_dir);
  FindWith(ctx, *state, finder, spec);
  const std::vector<artifact::Artifact> imported = archive::ImportArchive(ctx, spec);
  // From here on they exist, so neither a cancellation nor the index may make this fail.
  return HandleState::Wrap(state, state->catalog.RecordCopies(ctx, imported));
}

}  // namespace msb
