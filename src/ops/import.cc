// SPDX-License-Identifier: Apache-2.0

#include "src/ops/import.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "src/archive/import.h"
#include "src/artifact/output_directory.h"
#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/handle/finder.h"
#include "src/ops/open.h"

namespace msb::ops {
namespace {

// Makes an import look in the client's home and in its destination for snapshots that exist
// already.
void FindWith(const Context& ctx, ClientState& client, handle::SnapshotFinder& finder,
              archive::IntakeSpec& spec) {
  const std::filesystem::path destination = spec.destination;
  const std::filesystem::path snapshots_dir = client.home.snapshots_dir();
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
      OpenDisk(ctx, client, *std::move(found));
    } catch (const Error& e) {
      // The image may be imported later.
      if (e.kind() != ErrorKind::kSnapshotImageMissing) throw;
      client.Log(e.what());
    }
    return artifact;
  };
  spec.log = [&client](std::string_view message) { client.Log(message); };
}

// Unpacks the archive. Errors name it, whichever part of it they are about.
std::vector<artifact::Artifact> Unpack(const Context& ctx, const std::filesystem::path& archive,
                                       const archive::IntakeSpec& spec) {
  const std::string& path = archive.native();
  try {
    return archive::ImportArchive(ctx, archive, spec);
  } catch (const Error& e) {
    const std::string_view message = e.what();
    if (e.kind() == ErrorKind::kCancelled || message.find(path) != message.npos) throw;
    throw Error(e.kind(), fmt::format("cannot import '{}': {}", base::Quoted(path), message),
                e.os_error());
  }
}

}  // namespace

index::Row ImportSnapshot(const Context& ctx, ClientState& client,
                          const std::filesystem::path& archive, const std::filesystem::path& dest,
                          const SnapshotImportOptions& options) {
  archive::IntakeSpec spec{.destination = client.DirectoryOrDefault(dest),
                           .cache_dir = client.home.cache_dir()};
  client.SweepBeside(ctx, spec.destination / "");
  artifact::CheckOutputDirectory(spec.destination / "");
  if (!options.name.empty()) {
    artifact::CheckSnapshotName(options.name);
    spec.name = options.name;
  }
  handle::SnapshotFinder finder(ctx, client.catalog);
  FindWith(ctx, client, finder, spec);
  const std::vector<artifact::Artifact> imported =
      Unpack(ctx, base::AbsolutePath(archive.native()), spec);
  // From here on they exist, so neither a cancellation nor the index may make this fail.
  return client.catalog.RecordCopies(ctx, imported);
}

}  // namespace msb::ops
