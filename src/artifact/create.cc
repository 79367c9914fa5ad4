#include "src/artifact/create.h"

#include "src/artifact/flatten.h"
#include "src/base/fields.h"
#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/qcow2_header.h"
#include "src/disk/sparse_copy.h"

namespace msb::artifact {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;
using base::UniqueFd;

bool Exists(const std::filesystem::path& path) {
  const UniqueFd parent = base::OpenDirectory(path.parent_path());
  return base::OpenEntryAt(parent.get(), path.filename()).type != EntryType::kAbsent;
}

[[noreturn]] void RefuseExisting(const std::filesystem::path& path) {
  const bool artifact = HoldsArtifact(path);
  Throw(ErrorKind::kSnapshotAlreadyExists, "{} exists{}", path.native(),
        artifact ? "; remove it, or create with force" : " and is no snapshot");
}

void CheckDestination(const NewArtifact& spec) {
  if (Exists(spec.destination) && !(spec.force && HoldsArtifact(spec.destination))) {
    RefuseExisting(spec.destination);
  }
}

void CopyContent(const Context& ctx, NewArtifact& spec, int source, int target,
                 std::uint64_t size) {
  if (!spec.integrity_algorithm) return disk::CopySparse(ctx, source, target, size);
  const auto hasher = MakeIntegrityHasher(ctx, *spec.integrity_algorithm, size);
  disk::CopySparse(ctx, source, target, size, hasher->consumer());
  spec.manifest.layers.at(0).integrity = {*spec.integrity_algorithm, hasher->Finish()};
}

Entry OpenUpper(const NewArtifact& spec) {
  const UniqueFd dir = base::OpenDirectory(spec.upper.parent_path());
  Entry source = base::OpenEntryAt(dir.get(), spec.upper.filename());
  if (source.type != EntryType::kRegularFile) {
    Throw(ErrorKind::kIO, "the sandbox's disk {} must be a regular file, but is {}",
          spec.upper.native(), base::Describe(source.type));
  }
  return source;
}

// Completes the manifest's layer, but for its integrity. A qcow2 upper may stand on nothing, or on
// what the manifest names: whoever opens the snapshot finds that, and nothing else.
void DescribeLayer(NewArtifact& spec, int source, std::uint64_t size) {
  if (size > base::kMaxJsonInteger) {
    Throw(ErrorKind::kUnsupportedOperation, "{} is larger than 2^53 - 1 bytes",
          spec.upper.native());
  }
  Manifest& manifest = spec.manifest;
  Layer& layer = manifest.layers.at(0);
  layer.file_bytes = size;
  manifest.size_bytes = size;
  if (layer.format == DiskFormat::kRaw) return;
  const std::string backing = disk::ReadQcow2Header(source, spec.upper.native()).backing_file;
  if (backing.empty() || IsBelow(manifest, backing)) return;
  Throw(ErrorKind::kInvalidConfig,
        "{} stands on '{}', which is neither the snapshot nor the image that its sandbox was made "
        "from",
        spec.upper.native(), base::Quoted(backing));
}

void CheckUnchanged(const NewArtifact& spec, const base::FileStamp& before,
                    const base::FileStamp& now) {
  if (before.SameContent(now)) return;
  Throw(ErrorKind::kSnapshotSandboxRunning,
        "{} changed while it was copied; stop what writes to it and try again",
        spec.upper.native());
}

// True for an upper that is to be flattened, also because no artifact could name what it stands on.
bool MustFlatten(const NewArtifact& spec, int source) {
  if (spec.manifest.layers.at(0).format == DiskFormat::kRaw || spec.backing.empty()) return false;
  if (spec.flatten) return true;
  const std::string backing = disk::ReadQcow2Header(source, spec.upper.native()).backing_file;
  return !backing.empty() && !IsBelow(spec.manifest, backing);
}

// Writes the disk out into the stage as one raw file, and completes the manifest's layer.
void FlattenUpper(const Context& ctx, NewArtifact& spec, UniqueFd source, int stage) {
  const base::FileStamp before = base::StampOf(source.get());
  Layer& layer = spec.manifest.layers.at(0);
  std::vector<disk::ImageFile> files;
  files.push_back({std::move(source), layer.format, spec.upper.filename()});
  for (const vmm::BackingFile& file : spec.backing) {
    files.push_back({OpenBacking(file), file.disk.format, file.name});
  }
  layer.format = DiskFormat::kRaw;
  layer.file = UpperFileName(layer.format);
  const UniqueFd target = base::CreateFileAt(stage, layer.file, before.mode & 0666);
  WriteDisk(ctx, std::move(files), layer.format, target.get(), ErrorKind::kSnapshotSandboxRunning);
  CheckUnchanged(spec, before, base::StampOf(spec.upper).value_or(base::FileStamp{}));
  const std::uint64_t size = base::StampOf(target.get()).size;
  DescribeLayer(spec, target.get(), size);
  if (!spec.integrity_algorithm) return;
  layer.integrity = ComputeIntegrity(ctx, target.get(), size, *spec.integrity_algorithm);
}

// Copies the upper into the stage, and completes the manifest's layer.
void CopyUpper(const Context& ctx, NewArtifact& spec, int stage) {
  Entry source = OpenUpper(spec);
  if (MustFlatten(spec, source.fd.get())) {
    return FlattenUpper(ctx, spec, std::move(source.fd), stage);
  }
  const base::FileStamp before = base::StampOf(source.fd.get());
  DescribeLayer(spec, source.fd.get(), before.size);
  const auto check_unchanged = [&] {
    CheckUnchanged(spec, before, base::StampOf(spec.upper).value_or(base::FileStamp{}));
    CheckUnchanged(spec, before, base::StampOf(source.fd.get()));
  };
  const UniqueFd target =
      base::CreateFileAt(stage, spec.manifest.layers[0].file, before.mode & 0666);
  try {
    CopyContent(ctx, spec, source.fd.get(), target.get(), before.size);
  } catch (const Error& e) {
    // A file that shrinks cannot be read to what was its end.
    if (e.kind() == ErrorKind::kIO) check_unchanged();
    throw;
  }
  check_unchanged();
}

// The manifest's bytes, if they can be read again: a backend may have said what no manifest can.
std::string Seal(NewArtifact& spec) {
  std::string bytes = SealManifest(spec.manifest);
  try {
    ParseManifest(spec.manifest.form, bytes, "to be written");
  } catch (const Error& e) {
    Throw(ErrorKind::kInvalidConfig, "the sandbox cannot be described: {}", e.what());
  }
  return bytes;
}

// HoldsArtifact, with what cannot be read counted as none.
bool MayReplace(const std::filesystem::path& path) {
  try {
    return HoldsArtifact(path);
  } catch (const Error&) {
    return false;
  }
}

void WriteManifest(const NewArtifact& spec, std::string_view bytes, int stage) {
  base::WriteNewFileAt(stage, std::string(ManifestFileName(spec.manifest.form)), bytes, 0666);
}

Artifact Publish(const Context& ctx, const NewArtifact& spec, base::Stage& stage) {
  if (spec.confirm) spec.confirm();
  ctx.Check();
  const std::string name = spec.destination.filename().native();
  if (spec.force) CheckDestination(spec);  // Again: copying took a while.
  const bool published = spec.force ? stage.PublishOver(name, MayReplace) : stage.Publish(name);
  if (!published) RefuseExisting(spec.destination);
  return {.path = spec.destination, .manifest = spec.manifest, .member = std::nullopt};
}

}  // namespace

Artifact CreateArtifact(const Context& ctx, NewArtifact spec) {
  ctx.Check();
  CheckDestination(spec);
  base::Stage stage(spec.destination.parent_path());
  CopyUpper(ctx, spec, stage.fd());
  WriteManifest(spec, Seal(spec), stage.fd());
  return Publish(ctx, spec, stage);
}

DescribedArtifact DescribeArtifact(const Context& ctx, NewArtifact spec) {
  ctx.Check();
  CheckDestination(spec);
  const Entry upper = OpenUpper(spec);
  DescribedArtifact described{std::move(spec), {}, base::StampOf(upper.fd.get())};
  NewArtifact& described_spec = described.spec;
  DescribeLayer(described_spec, upper.fd.get(), described.stamp.size);
  if (described_spec.integrity_algorithm) {
    described_spec.manifest.layers[0].integrity = ComputeIntegrity(
        ctx, upper.fd.get(), described.stamp.size, *described_spec.integrity_algorithm);
    CheckUnchanged(described_spec, described.stamp, base::StampOf(upper.fd.get()));
  }
  described.manifest_bytes = Seal(described_spec);
  return described;
}

Artifact LinkArtifact(const Context& ctx, const DescribedArtifact& described,
                      const std::filesystem::path& sealed) {
  const NewArtifact& spec = described.spec;
  const std::string& file = spec.manifest.layers[0].file;
  CheckUnchanged(spec, described.stamp, base::StampOf(sealed).value_or(base::FileStamp{}));
  base::Stage stage(spec.destination.parent_path());
  if (!base::TryLinkFile(sealed, stage.fd(), file)) {
    // Another file system: then it costs what a copy costs.
    const UniqueFd dir = base::OpenDirectory(sealed.parent_path());
    const Entry source = base::OpenEntryAt(dir.get(), sealed.filename());
    const UniqueFd copy = base::CreateFileAt(stage.fd(), file, described.stamp.mode & 0444);
    disk::CopySparse(ctx, source.fd.get(), copy.get(), described.stamp.size);
  }
  WriteManifest(spec, described.manifest_bytes, stage.fd());
  return Publish(ctx, spec, stage);
}

}  // namespace msb::artifact
