// SPDX-License-Identifier: Apache-2.0
//
// The operations of an actor on snapshots.

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "tests/soak/actor.h"

namespace msb::soak {

namespace fs = std::filesystem;

void Actor::Create() {
  const std::string sandbox = SandboxName();
  OwnSandbox* own = OwnOf(sandbox);
  if (own == nullptr) return CreateOf(sandbox, "?");
  // Nothing changes the disk while this lock is held.
  const std::shared_lock lock(own->mutex);
  if (own->state) CreateOf(sandbox, own->state->ToString());
}

void Actor::CreateOf(const std::string& sandbox, const std::string& state) {
  const std::uint64_t id = shared_.next_id++;
  SnapshotCreateOptions options;
  options.force = Chance(0.5);
  options.record_integrity = Chance(0.5);
  options.labels = Labels(id, state, options.record_integrity);
  const std::string key = SnapshotKey();
  const fs::path path = key;
  std::string name = key;
  if (path.is_absolute()) {
    options.path = key;
    name = path.filename();
    if (path.parent_path() == worker_.places.outside) name = "@" + name;
  } else {
    options.name = key;
  }
  Attempt({.op = Op::kCreate, .name = name, .id = id, .forced = options.force},
          [&](const Context& ctx) {
            const auto made = Snapshot::Create(ctx, sandbox, options, AnyClient());
            return made.Digest();
          });
}

void Actor::Squash() {
  const std::uint64_t id = shared_.next_id++;
  SnapshotCreateOptions options;
  options.force = Chance(0.5);
  options.record_integrity = Chance(0.5);
  options.labels = Labels(id, "?", options.record_integrity);
  options.name = SnapshotName();
  Attempt({.op = Op::kSquash, .name = options.name, .id = id, .forced = options.force},
          [&](const Context& ctx) {
            return Snapshot::Squash(ctx, SnapshotKey(), options, AnyClient()).Digest();
          });
}

void Actor::Open() {
  const std::string key = SnapshotKey();
  Attempt({.op = Op::kOpen, .name = key}, [&](const Context& ctx) {
    const auto artifact = Snapshot::Open(ctx, key, AnyClient());
    return artifact.Digest();
  });
}

void Actor::Get() {
  const std::string key = SnapshotKey();
  std::optional<SnapshotHandle> handle;
  Attempt({.op = Op::kGet, .name = key}, [&](const Context& ctx) {
    handle = Snapshot::Get(ctx, key, AnyClient());
    return std::string();
  });
  if (!handle || Chance(0.5)) return;
  Attempt({.op = Op::kOpen, .name = handle->Path(), .digest = handle->Digest()},
          [&](const Context& ctx) {
            std::ignore = handle->Open(ctx);
            return std::string();
          });
}

void Actor::List() {
  Attempt({.op = Op::kList}, [&](const Context& ctx) {
    std::ignore = Snapshot::List(ctx, AnyClient());
    return std::string();
  });
}

void Actor::ListDir() {
  const std::string dir = Chance(0.8) ? "" : worker_.places.outside.native();
  Attempt({.op = Op::kListDir, .name = dir}, [&](const Context& ctx) {
    std::ignore = Snapshot::ListDir(ctx, dir, AnyClient());
    return std::string();
  });
}

void Actor::Verify() {
  const std::string key = SnapshotKey();
  std::optional<SnapshotArtifact> artifact;
  Attempt({.op = Op::kOpen, .name = key}, [&](const Context& ctx) {
    artifact = Snapshot::Open(ctx, key, AnyClient());
    return std::string();
  });
  if (!artifact) return;
  Attempt({.op = Op::kVerify, .name = key, .digest = artifact->Digest()}, [&](const Context& ctx) {
    const auto report = artifact->Verify(ctx);
    if (report.digest != artifact->Digest()) Report("another digest was verified");
    return std::string();
  });
}

void Actor::Export() {
  SnapshotExportOptions options;
  options.with_parents = Chance(0.3);
  options.with_image = Chance(0.05);
  options.plain_tar = Chance(0.5);
  options.level = 1;
  options.threads = 1;
  const bool foreign = Chance(0.1);
  const fs::path out =
      worker_.places.out / (foreign ? fmt::format("f{}.tar", Pick(kForeignArchives))
                                    : fmt::format("e{}.tar", Pick(kArchives)));
  const std::string key = SnapshotKey();
  Attempt({.op = Op::kExport, .name = key, .forced = options.with_parents},
          [&](const Context& ctx) {
            Snapshot::Export(ctx, key, out.native(), options, AnyClient());
            return std::string();
          });
}

void Actor::Import() {
  const fs::path archive = worker_.places.out / fmt::format("e{}.tar", Pick(kArchives));
  if (!fs::is_regular_file(archive)) return;
  if (Chance(0.4)) return ImportElsewhere(archive);
  // The name is unknown until the import returns; an interrupted import may have made any name.
  Attempt({.op = Op::kImport}, [&](const Context& ctx) {
    const auto handle = Snapshot::Import(ctx, archive, "", AnyClient());
    const std::uint32_t used = slot_.used.load();
    const fs::path path = handle.Path();
    std::string name = path.filename();
    // The snapshot may exist already, in another directory.
    if (path.parent_path() != worker_.places.home / "snapshots") name = "@" + name;
    SetText(slot_.records[used - 1].name, name);
    return handle.Digest();
  });
}

// Renames the directory before deleting it: other workers find its snapshots in the index, and must
// not see a partly deleted one.
void Actor::RemoveAtOnce(const fs::path& directory) {
  const fs::path gone = directory.native() + ".gone";
  std::error_code ignored;  // The directory is absent, or another worker emptied it.
  fs::remove_all(gone, ignored);
  fs::rename(directory, gone, ignored);
  fs::remove_all(gone, ignored);
}

void Actor::ImportElsewhere(const std::string& archive) {
  const fs::path dest = Scratch(".import");
  std::optional<SnapshotHandle> handle;
  RemoveAtOnce(dest);
  // A separate home has none of the snapshots of the shared home.
  const bool away = Chance(0.4);
  // Its warnings, such as that an image is absent, are not checked.
  Client other({.home = dest, .backend = "local", .log = [](std::string_view) {}});
  Client& client = away ? other : worker_.client;
  Attempt({.op = Op::kImport, .name = "@elsewhere"}, [&](const Context& ctx) {
    handle = Snapshot::Import(ctx, archive, away ? "" : dest.native(), client);
    return std::string();
  });
  if (handle && handle->Path().starts_with(dest.native())) {
    const fs::path disk = Scratch(".flat");
    std::optional<SnapshotArtifact> artifact;
    const Op op = away ? Op::kFlattenAway : Op::kFlatten;
    const Outcome outcome = Attempt({.op = op, .name = handle->Path()}, [&](const Context& ctx) {
      artifact = handle->Open(ctx);
      Snapshot::Flatten(ctx, handle->Path(), disk.native(), {}, client);
      return std::string();
    });
    if (outcome == kSuccess) CheckDisk(disk, DiskFormat::kRaw, artifact);
  }
  RemoveAtOnce(dest);
}

void Actor::Remove() {
  Attempted what{.op = Op::kRemove, .forced = Chance(0.5)};
  std::string key;
  if (Chance(0.5)) {
    // Pick any snapshot, imported ones included.
    std::vector<SnapshotHandle> all;
    Attempt({.op = Op::kList}, [&](const Context& ctx) {
      all = Snapshot::List(ctx, AnyClient());
      return std::string();
    });
    // Skip scratch homes: if one is deleted during the call, the call fails, and rightly so.
    std::erase_if(all, [&](const SnapshotHandle& handle) {
      return !handle.Path().starts_with(worker_.places.root.native()) ||
             handle.Path().starts_with((worker_.places.root / "scratch").native()) ||
             handle.Path().find("labelled") != std::string::npos ||
             handle.Path().find("/snap_") != std::string::npos || handle.Format().empty();
    });
    if (all.empty()) return;
    const SnapshotHandle& handle =
        all[static_cast<std::size_t>(Pick(static_cast<int>(all.size())))];
    key = Chance(0.5) ? handle.Digest() : handle.Path();
    if (key == handle.Digest()) {
      what.digest = key;
    } else {
      const fs::path path = key;
      what.name = path.filename();
      if (path.parent_path() != worker_.places.home / "snapshots") what.name = "@" + what.name;
    }
  } else {
    key = what.name = SnapshotName();
  }
  Attempt(what, [&](const Context& ctx) {
    Snapshot::Remove(ctx, key, what.forced, AnyClient());
    return std::string();
  });
}

void Actor::Reindex() {
  const std::string dir = Chance(0.8) ? "" : worker_.places.outside.native();
  Attempt({.op = Op::kReindex, .name = dir}, [&](const Context& ctx) {
    Snapshot::Reindex(ctx, dir, AnyClient());
    return std::string();
  });
}

void Actor::Usage() {
  Attempt({.op = Op::kUsage}, [&](const Context& ctx) {
    std::ignore = Snapshot::Usage(ctx, AnyClient());
    return std::string();
  });
}

void Actor::Flatten() {
  const std::string key = SnapshotKey();
  const auto format = Chance(0.9) ? DiskFormat::kRaw : DiskFormat::kQcow2;
  const fs::path disk = Scratch(".flat");
  std::optional<SnapshotArtifact> before;
  Attempt({.op = Op::kOpen, .name = key}, [&](const Context& ctx) {
    before = Snapshot::Open(ctx, key, worker_.client);
    return std::string();
  });
  const Outcome outcome = Attempt({.op = Op::kFlatten, .name = key}, [&](const Context& ctx) {
    Snapshot::Flatten(ctx, key, disk.native(), {.format = format}, AnyClient());
    return std::string();
  });
  if (outcome != kSuccess) return;
  std::optional<SnapshotArtifact> after;
  Attempt({.op = Op::kOpen, .name = key}, [&](const Context& ctx) {
    after = Snapshot::Open(ctx, key, worker_.client);
    return std::string();
  });
  // The label can be compared only if the snapshot was not replaced meanwhile.
  if (!before || !after || before->Digest() != after->Digest()) before.reset();
  CheckDisk(disk, format, before);
  fs::remove(disk);
}

}  // namespace msb::soak
