// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/flatten.h"

#include <memory>

#include "src/base/file.h"
#include "src/base/throw.h"
#include "src/disk/disk_image.h"
#include "src/disk/disk_names.h"
#include "src/disk/image_writer.h"

namespace msb::artifact {
namespace {

using base::UniqueFd;

// A file of the disk and its stamp before it was read, to detect later changes.
struct Source {
  int fd;
  base::FileStamp stamp;
  std::string name;
};

// Copies a raw disk; shares its blocks if the file system can.
void CopyDisk(const Context& ctx, const DiskFile& source, NewArtifact& spec, int target) {
  const int fd = source.file.fd.get();
  const auto check_unchanged = [&] {
    base::CheckUnchanged(source.file.stamp, base::StampOf(fd), ErrorKind::kSnapshotIntegrity,
                         source.disk.path.native(), "read");
  };
  base::ReadUnchanged(check_unchanged,
                      [&] { CopyIntoLayer(ctx, spec, fd, target, source.file.stamp.size); });
}

}  // namespace

void WriteDisk(const Context& ctx, std::vector<disk::ImageFile> files, DiskFormat format,
               int target, ErrorKind changed) {
  std::vector<Source> sources;
  sources.reserve(files.size());
  for (const disk::ImageFile& file : files) {
    sources.push_back({file.fd.get(), base::StampOf(file.fd.get()), file.name});
  }
  const auto check_unchanged = [&] {
    for (const Source& source : sources) {
      base::CheckUnchanged(source.stamp, base::StampOf(source.fd), changed, source.name, "read");
    }
  };
  const std::unique_ptr<disk::DiskImage> image = disk::OpenImage(ctx, std::move(files));
  base::ReadUnchanged(check_unchanged, [&] { disk::WriteFlat(ctx, *image, format, target); });
}

void FlattenDisk(const Context& ctx, DiskChain chain, DiskFormat format, OutputFile& out) {
  ctx.Check();
  WriteDisk(ctx, std::move(chain).TakeFiles(), format, out.Create(), ErrorKind::kSnapshotIntegrity);
  out.Publish(ctx);
}

void SquashDisk(const Context& ctx, DiskChain chain, NewArtifact& spec, int stage) {
  const bool is_raw = chain.files.size() == 1 && chain.files[0].disk.format == DiskFormat::kRaw;
  const base::FileStamp stamp = chain.files[0].file.stamp;
  // A disk that was taken over is read-only; the new one is writable, as Create would make it.
  const UniqueFd target =
      base::CreateFileAt(stage, disk::UpperFileName(DiskFormat::kRaw), (stamp.mode & 0666) | 0200);
  if (is_raw) return CopyDisk(ctx, chain.files[0], spec, target.get());
  WriteDisk(ctx, std::move(chain).TakeFiles(), DiskFormat::kRaw, target.get(),
            ErrorKind::kSnapshotIntegrity);
  CompleteLayer(ctx, spec, target.get());
}

}  // namespace msb::artifact
