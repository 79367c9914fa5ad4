#include "src/artifact/flatten.h"

#include <memory>

#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/base/throw.h"
#include "src/disk/disk_image.h"
#include "src/disk/image_writer.h"

namespace msb::artifact {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;
using base::UniqueFd;

// A file of the disk, to see at the end that it is what it was.
struct Source {
  int fd;
  base::FileStamp stamp;
  std::string name;
};

void CheckOut(const std::filesystem::path& out) {
  const UniqueFd parent = base::OpenDirectory(out.parent_path());
  const EntryType type = base::OpenEntryAt(parent.get(), out.filename()).type;
  if (!out.has_filename() || HoldsArtifact(out.parent_path()) ||
      (type != EntryType::kAbsent && type != EntryType::kRegularFile)) {
    Throw(ErrorKind::kInvalidArgument,
          "{} is no place for a disk: it is inside a snapshot, or no regular file", out.native());
  }
}

}  // namespace

UniqueFd OpenBacking(const vmm::BackingFile& file) {
  const UniqueFd dir = base::OpenDirectory(file.disk.path.parent_path());
  Entry entry = base::OpenEntryAt(dir.get(), file.disk.path.filename());
  if (entry.type != EntryType::kRegularFile) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} must be a regular file, but is {}",
          file.disk.path.native(), base::Describe(entry.type));
  }
  return std::move(entry.fd);
}

void WriteDisk(const Context& ctx, std::vector<disk::ImageFile> files, DiskFormat format,
               int target, ErrorKind changed) {
  std::vector<Source> sources;
  sources.reserve(files.size());
  for (const disk::ImageFile& file : files) {
    sources.push_back({file.fd.get(), base::StampOf(file.fd.get()), file.name});
  }
  const auto check_unchanged = [&] {
    for (const Source& source : sources) {
      if (source.stamp.SameContent(base::StampOf(source.fd))) continue;
      Throw(changed, "{} changed while it was read", source.name);
    }
  };
  const std::unique_ptr<disk::DiskImage> image = disk::OpenImage(std::move(files));
  try {
    disk::WriteFlat(ctx, *image, format, target);
  } catch (const Error& e) {
    // A file that shrinks cannot be read to what was its end.
    if (e.kind() == ErrorKind::kIO) check_unchanged();
    throw;
  }
  check_unchanged();
}

void FlattenArtifact(const Context& ctx, const Artifact& artifact,
                     const std::vector<vmm::BackingFile>& backing, DiskFormat format,
                     const std::filesystem::path& out) {
  ctx.Check();
  CheckOut(out);
  std::vector<disk::ImageFile> files;
  const Layer& layer = artifact.manifest.layers.at(0);
  files.push_back({OpenLayer(artifact, layer), layer.format,
                   DiskFileName(artifact.manifest.digest, layer.format)});
  for (const vmm::BackingFile& file : backing) {
    files.push_back({OpenBacking(file), file.disk.format, file.name});
    CheckUnreplaced(file);
  }
  base::Stage stage(out.parent_path());
  const auto replaced = base::StampOf(out);
  const UniqueFd target =
      base::CreateFileAt(stage.fd(), out.filename(), replaced ? replaced->mode & 0666 : 0666);
  WriteDisk(ctx, std::move(files), format, target.get(), ErrorKind::kSnapshotIntegrity);
  ctx.Check();
  stage.PublishFile(out.filename(), out.filename());
}

}  // namespace msb::artifact
