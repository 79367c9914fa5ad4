// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/create.h"

#include "src/artifact/flatten.h"
#include "src/base/fields.h"
#include "src/base/file.h"
#include "src/base/file_system.h"
#include "src/base/regular_file.h"
#include "src/base/remove_tree.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/writers.h"
#include "src/disk/disk_names.h"
#include "src/disk/qcow2_header.h"
#include "src/disk/sparse_copy.h"

namespace msb::artifact {
namespace {

using base::EntryType;
using base::Throw;
using base::UniqueFd;

[[noreturn]] void RefuseExisting(const std::filesystem::path& path, EntryType type) {
  if (type == EntryType::kDirectory && HoldsArtifact(path)) {
    Throw(ErrorKind::kSnapshotAlreadyExists, "{} exists; remove it, or set force to replace it",
          path.native());
  }
  Throw(ErrorKind::kSnapshotAlreadyExists,
        "{} exists and is {}, not a snapshot, so it is not replaced; choose another name",
        path.native(), base::Describe(type));
}

EntryType TypeOf(const std::filesystem::path& path) {
  const UniqueFd parent = base::TryOpenDirectory(path.parent_path());
  return parent ? base::TypeAt(parent.get(), path.filename()) : EntryType::kAbsent;
}

void CopyContent(const Context& ctx, NewArtifact& spec, int source, int target,
                 std::uint64_t size) {
  if (!spec.integrity_algorithm) return disk::CopySparse(ctx, source, target, size);
  const auto hasher = MakeIntegrityHasher(ctx, *spec.integrity_algorithm, size);
  disk::CopySparse(ctx, source, target, size, hasher->consumer());
  spec.manifest.layers.at(0).integrity = {*spec.integrity_algorithm, hasher->Finish()};
}

UniqueFd OpenUpper(const NewArtifact& spec) {
  return base::OpenRegularFile(spec.upper, ErrorKind::kIO);
}

// Completes the manifest's layer except for its integrity. The backing file of a qcow2 upper, if it
// has one, must be a disk that the manifest names: only that one is found when the snapshot is
// opened.
void DescribeLayer(NewArtifact& spec, int source, std::uint64_t size) {
  if (size > base::kMaxJsonInteger) {
    Throw(ErrorKind::kUnsupportedOperation, "{} has {} bytes, but at most 2^53 - 1 are supported",
          spec.upper.native(), size);
  }
  Manifest& manifest = spec.manifest;
  Layer& layer = manifest.layers.at(0);
  layer.file_bytes = size;
  manifest.size_bytes = size;
  if (layer.format == DiskFormat::kRaw) return;
  const std::string backing = disk::ReadQcow2Header(source, spec.upper.native()).backing_file;
  if (backing.empty() || IsBelow(manifest, backing)) return;
  Throw(ErrorKind::kInvalidConfig,
        "{} is backed by '{}', which is neither the snapshot nor the image that its sandbox was "
        "created from; rebase it to one of them with 'qemu-img rebase'",
        spec.upper.native(), base::Quoted(backing));
}

[[noreturn]] void RefuseWriter(const NewArtifact& spec) {
  base::RefuseWriter(ErrorKind::kSnapshotSandboxRunning, spec.upper.native());
}

void CheckUnchanged(const NewArtifact& spec, const base::FileStamp& before,
                    const base::FileStamp& now) {
  base::CheckUnchanged(before, now, ErrorKind::kSnapshotSandboxRunning, spec.upper.native(),
                       "copied");
}

// Begins to watch the upper. Throws kSnapshotSandboxRunning if a process has it open for writing.
base::WriteWatch WatchUpper(const Context& ctx, const NewArtifact& spec, int upper) {
  const base::WriteWatch watch(ctx, upper);
  if (watch.had_writer()) RefuseWriter(spec);
  return watch;
}

// Returns true if the upper has not changed since the watch began, and false if this is not known,
// so that it must be read again. Throws kSnapshotSandboxRunning if it changed.
bool IsUndisturbed(const Context& ctx, const NewArtifact& spec, const base::WriteWatch& watch,
                   int upper) {
  CheckUnchanged(spec, watch.stamp(), base::FreshStampOf(upper));
  CheckUnchanged(spec, watch.stamp(), base::StampOf(spec.upper).value_or(base::FileStamp{}));
  return watch.Undisturbed(ctx);
}

// Calls read with the open upper and its stamp, and checks that nothing wrote to the upper
// meanwhile. Calls read again if only its change time (ctime) has changed, which may be due to a
// write or to a new hard link. Returns the stamp. Throws kSnapshotSandboxRunning if the upper
// changed.
using ReadUpper = std::function<void(const UniqueFd& upper, const base::FileStamp& stamp)>;
base::FileStamp ReadUndisturbed(const Context& ctx, NewArtifact& spec, const ReadUpper& read) {
  constexpr int kMaxAttempts = 3;
  const Layer layer = spec.manifest.layers.at(0);
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    spec.manifest.layers[0] = layer;
    const UniqueFd upper = OpenUpper(spec);
    const base::WriteWatch watch = WatchUpper(ctx, spec, upper.get());
    bool is_undisturbed = false;
    base::ReadUnchanged([&] { is_undisturbed = IsUndisturbed(ctx, spec, watch, upper.get()); },
                        [&] { read(upper, watch.stamp()); });
    if (is_undisturbed) return watch.stamp();
  }
  if (base::HasWriter(OpenUpper(spec).get()).value_or(false)) RefuseWriter(spec);
  Throw(ErrorKind::kSnapshotSandboxRunning,
        "{} kept changing while it was copied: its change time (ctime) differed after each of {} "
        "attempts; stop the program that writes to it, links it or changes its mode, and try again",
        spec.upper.native(), kMaxAttempts);
}

// Returns true if the upper must be flattened: if spec.flatten is set, or if it has backing files
// and the manifest does not name the nearest one.
bool MustFlatten(const NewArtifact& spec, int source) {
  if (spec.flatten) return true;
  if (spec.manifest.layers.at(0).format == DiskFormat::kRaw || spec.backing.empty()) return false;
  const std::string backing = disk::ReadQcow2Header(source, spec.upper.native()).backing_file;
  return !backing.empty() && !IsBelow(spec.manifest, backing);
}

// Creates dir/name as an empty file, replacing one that an earlier attempt left.
UniqueFd CreateAnew(int dir, const std::string& name, mode_t mode) {
  base::RemoveTreeAt(dir, name);
  return base::CreateFileAt(dir, name, mode);
}

// Writes the open upper into the stage as one raw file. Returns that file.
UniqueFd FlattenUpper(const Context& ctx, NewArtifact& spec, const UniqueFd& upper, mode_t mode,
                      int stage) {
  Layer& layer = spec.manifest.layers.at(0);
  std::vector<disk::ImageFile> files;
  files.push_back({base::Duplicate(upper.get()), layer.format, spec.upper});
  for (const BackingFile& file : spec.backing) {
    files.push_back({base::OpenRegularFile(file.disk.path, ErrorKind::kSnapshotIntegrity),
                     file.disk.format, file.name});
  }
  layer.format = DiskFormat::kRaw;
  layer.file = disk::UpperFileName(layer.format);
  UniqueFd target = CreateAnew(stage, layer.file, mode & 0666);
  WriteDisk(ctx, std::move(files), layer.format, target.get(), ErrorKind::kSnapshotSandboxRunning);
  return target;
}

// Copies or flattens the upper into the stage, and completes the manifest's layer.
void CopyUpper(const Context& ctx, NewArtifact& spec, int stage) {
  UniqueFd flat;
  ReadUndisturbed(ctx, spec, [&](const UniqueFd& upper, const base::FileStamp& stamp) {
    flat = UniqueFd();
    if (MustFlatten(spec, upper.get())) {
      flat = FlattenUpper(ctx, spec, upper, stamp.mode, stage);
      return;
    }
    DescribeLayer(spec, upper.get(), stamp.size);
    const UniqueFd target = CreateAnew(stage, spec.manifest.layers[0].file, stamp.mode & 0666);
    CopyContent(ctx, spec, upper.get(), target.get(), stamp.size);
  });
  if (flat) CompleteLayer(ctx, spec, flat.get());
}

// Returns the manifest's bytes after checking that they can be parsed again, since a backend may
// have supplied values that are not valid in a manifest.
std::string CheckedManifest(NewArtifact& spec) {
  std::string bytes = EncodeManifest(spec.manifest);
  try {
    ParseManifest(spec.manifest.form, bytes, "of the new snapshot");
  } catch (const Error& e) {
    Throw(ErrorKind::kInvalidConfig, "the snapshot cannot be described: {}", e.what());
  }
  return bytes;
}

// Returns whether force may replace the locked directory at the destination.
bool MayReplace(const NewArtifact& spec, int dir, const std::filesystem::path& path) {
  if (!HoldsArtifact(dir, path)) return false;
  if (!spec.confirm_replace) return true;
  if (auto manifest = ReadManifest(dir, path)) {
    spec.confirm_replace({.path = path, .manifest = *std::move(manifest), .member = std::nullopt});
  }
  return true;
}

void WriteManifest(const NewArtifact& spec, std::string_view bytes, int stage) {
  base::WriteNewFileAt(stage, std::string(ManifestFileName(spec.manifest.form)), bytes, 0666);
}

Artifact Publish(const Context& ctx, const NewArtifact& spec, base::Stage& stage) {
  if (spec.confirm) spec.confirm();
  ctx.Check();
  const std::string name = spec.destination.filename().native();
  const auto may_replace = [&](int dir, const std::filesystem::path& path) {
    return MayReplace(spec, dir, path);
  };
  const DirectoryId directory = IdOf(stage.fd());  // Read now: nothing may fail after publishing.
  const bool published =
      spec.force ? stage.PublishOver(ctx, name, may_replace) : stage.Publish(name);
  if (!published) RefuseExisting(spec.destination, TypeOf(spec.destination));
  return {.path = spec.destination, .manifest = spec.manifest, .directory = directory};
}

}  // namespace

void CheckDestination(const NewArtifact& spec) {
  const EntryType type = TypeOf(spec.destination);
  if (type == EntryType::kAbsent) return;
  if (spec.force && type == EntryType::kDirectory && HoldsArtifact(spec.destination)) return;
  RefuseExisting(spec.destination, type);
}

void CopyIntoLayer(const Context& ctx, NewArtifact& spec, int source, int target,
                   std::uint64_t size) {
  DescribeLayer(spec, source, size);
  CopyContent(ctx, spec, source, target, size);
}

void CompleteLayer(const Context& ctx, NewArtifact& spec, int disk) {
  const std::uint64_t size = base::StampOf(disk).size;
  DescribeLayer(spec, disk, size);
  if (!spec.integrity_algorithm) return;
  spec.manifest.layers.at(0).integrity =
      ComputeIntegrity(ctx, disk, size, *spec.integrity_algorithm);
}

Artifact CreateArtifact(const Context& ctx, NewArtifact spec) {
  return CreateArtifact(ctx, std::move(spec), [&](NewArtifact& described, int stage) {
    CopyUpper(ctx, described, stage);
  });
}

Artifact CreateArtifact(const Context& ctx, NewArtifact spec, const DiskWriter& write_disk) {
  ctx.Check();
  CheckDestination(spec);
  base::Stage stage(spec.destination.parent_path(), base::Stage::Parents::kMake);
  write_disk(spec, stage.fd());
  WriteManifest(spec, CheckedManifest(spec), stage.fd());
  return Publish(ctx, spec, stage);
}

Disk StagedArtifact::WholeDisk() const {
  const Layer& layer = spec.manifest.layers.at(0);
  return {stage->path() / layer.file, layer.format, spec.manifest.fstype};
}

StagedArtifact StageArtifact(const Context& ctx, NewArtifact given) {
  ctx.Check();
  CheckDestination(given);
  OpenUpper(given);  // Throws before anything is created.
  StagedArtifact staged{.spec = std::move(given), .stage = nullptr, .upper = {}};
  NewArtifact& spec = staged.spec;
  staged.stage =
      std::make_unique<base::Stage>(spec.destination.parent_path(), base::Stage::Parents::kMake);
  if (spec.flatten) {
    CopyUpper(ctx, spec, staged.stage->fd());
  } else {
    const auto read = [&](const UniqueFd& upper, const base::FileStamp& /*stamp*/) {
      CompleteLayer(ctx, spec, upper.get());
    };
    staged.upper = ReadUndisturbed(ctx, spec, read);
  }
  WriteManifest(spec, CheckedManifest(spec), staged.stage->fd());
  return staged;
}

Artifact PublishArtifact(const Context& ctx, StagedArtifact staged,
                         const std::filesystem::path& sealed) {
  const NewArtifact& spec = staged.spec;
  base::Stage& stage = *staged.stage;
  if (spec.flatten) return Publish(ctx, spec, stage);
  const std::string& file = spec.manifest.layers[0].file;
  const UniqueFd dir = base::OpenDirectory(sealed.parent_path());
  const auto check_staged = [&](const base::FileStamp& now) {
    if (!now.SameContentLinked(staged.upper, base::IsLocalFileSystem(dir.get()))) {
      CheckUnchanged(spec, staged.upper, now);
    }
  };
  check_staged(base::StampOf(sealed).value_or(base::FileStamp{}));
  if (!base::TryLinkFile(sealed, stage.fd(), file)) {
    // The file cannot be linked, for example because it is on another file system: copy it.
    NewArtifact source = spec;
    source.upper = sealed;
    ReadUndisturbed(ctx, source, [&](const UniqueFd& upper, const base::FileStamp& stamp) {
      check_staged(stamp);
      const UniqueFd copy = CreateAnew(stage.fd(), file, stamp.mode & 0444);
      disk::CopySparse(ctx, upper.get(), copy.get(), stamp.size);
    });
  }
  return Publish(ctx, spec, stage);
}

}  // namespace msb::artifact
