#include "src/artifact/create.h"

#include "src/base/fields.h"
#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/base/throw.h"
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

// Copies the upper into the stage, and completes the manifest's layer.
void CopyUpper(const Context& ctx, NewArtifact& spec, int stage) {
  const UniqueFd dir = base::OpenDirectory(spec.upper.parent_path());
  const Entry source = base::OpenEntryAt(dir.get(), spec.upper.filename());
  if (source.type != EntryType::kRegularFile) {
    Throw(ErrorKind::kIO, "the sandbox's disk {} must be a regular file, but is {}",
          spec.upper.native(), base::Describe(source.type));
  }
  const base::FileStamp before = base::StampOf(source.fd.get());
  if (before.size > base::kMaxJsonInteger) {
    Throw(ErrorKind::kUnsupportedOperation, "{} is larger than 2^53 - 1 bytes",
          spec.upper.native());
  }
  const auto check_unchanged = [&] {
    const auto now = base::StampOf(spec.upper);
    if (now && before.SameContent(*now) && before.SameContent(base::StampOf(source.fd.get()))) {
      return;
    }
    Throw(ErrorKind::kSnapshotSandboxRunning,
          "{} changed while it was copied; stop what writes to it and try again",
          spec.upper.native());
  };
  Layer& layer = spec.manifest.layers.at(0);
  const UniqueFd target = base::CreateFileAt(stage, layer.file, before.mode & 0666);
  try {
    CopyContent(ctx, spec, source.fd.get(), target.get(), before.size);
  } catch (const Error& e) {
    // A file that shrinks cannot be read to what was its end.
    if (e.kind() == ErrorKind::kIO) check_unchanged();
    throw;
  }
  check_unchanged();
  layer.file_bytes = before.size;
  spec.manifest.size_bytes = before.size;
}

// Writes the manifest into the stage, if it is one that can be read again: a backend may have said
// what no manifest can.
void WriteManifest(NewArtifact& spec, int stage) {
  const std::string bytes = SealManifest(spec.manifest);
  try {
    ParseManifest(spec.manifest.form, bytes, "to be written");
  } catch (const Error& e) {
    Throw(ErrorKind::kInvalidConfig, "the sandbox cannot be described: {}", e.what());
  }
  base::WriteNewFileAt(stage, std::string(ManifestFileName(spec.manifest.form)), bytes, 0666);
}

// HoldsArtifact, with what cannot be read counted as none.
bool MayReplace(const std::filesystem::path& path) {
  try {
    return HoldsArtifact(path);
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

Artifact CreateArtifact(const Context& ctx, NewArtifact spec) {
  ctx.Check();
  const std::string name = spec.destination.filename().native();
  CheckDestination(spec);
  base::Stage stage(spec.destination.parent_path());
  CopyUpper(ctx, spec, stage.fd());
  WriteManifest(spec, stage.fd());
  if (spec.confirm) spec.confirm();
  ctx.Check();
  if (spec.force) CheckDestination(spec);  // Again: copying took a while.
  const bool published = spec.force ? stage.PublishOver(name, MayReplace) : stage.Publish(name);
  if (!published) RefuseExisting(spec.destination);
  return {.path = spec.destination, .manifest = std::move(spec.manifest), .member = std::nullopt};
}

}  // namespace msb::artifact
