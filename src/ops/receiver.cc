// SPDX-License-Identifier: Apache-2.0

#include "src/ops/receiver.h"

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "src/artifact/output_directory.h"
#include "src/artifact/store.h"
#include "src/ops/open.h"

namespace msb::ops {

archive::IntakeSpec ReceiverAt(const Context& ctx, ClientState& client,
                               handle::SnapshotFinder& finder, const std::filesystem::path& dest,
                               const std::string& name) {
  if (!name.empty()) artifact::CheckSnapshotName(name);
  archive::IntakeSpec spec{.destination = client.DirectoryOrDefault(dest),
                           .cache_dir = client.home.cache_dir()};
  if (!name.empty()) spec.name = name;
  artifact::CheckOutputPath(client.home, spec.destination);
  client.SweepBeside(ctx, spec.destination / "");
  artifact::CheckOutputDirectory(spec.destination / "");
  const std::filesystem::path destination = spec.destination;
  const std::filesystem::path snapshots_dir = client.home.snapshots_dir();
  // An explicit destination gets its own copy of snapshots that the home has.
  const bool copies = destination.lexically_normal() != snapshots_dir.lexically_normal();
  spec.find_present = [=, &client, &finder](const std::string& digest) {
    // An unrelated artifact that cannot be read must not make the call fail.
    const auto warn = [&](const Error& e) {
      client.Log(fmt::format("receiving snapshot {}, although it may already exist: {}", digest,
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
      // The image may be added later.
      if (e.kind() != ErrorKind::kSnapshotImageMissing) throw;
      client.Log(e.what());
    }
    return artifact;
  };
  spec.log = [&client](std::string_view message) { client.Log(message); };
  return spec;
}

}  // namespace msb::ops
