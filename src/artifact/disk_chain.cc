// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/disk_chain.h"

#include <algorithm>
#include <utility>

#include "src/base/progress.h"
#include "src/base/regular_file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"
#include "src/disk/scan.h"

namespace msb::artifact {
namespace {

using base::Throw;

std::uint64_t CountData(const Context& ctx, const std::vector<DiskFile>& files) {
  if (!base::ProgressMeter::Wanted(ctx)) return 0;
  std::uint64_t total = 0;
  for (const DiskFile& file : files) {
    if (!file.integrity) continue;
    total += disk::CountDataBytes(ctx, file.file.fd.get(), file.file.stamp.size);
  }
  return total;
}

void CheckUnchanged(const DiskFile& file) {
  base::CheckUnchanged(file.file.stamp, base::StampOf(file.file.fd.get()),
                       ErrorKind::kSnapshotIntegrity, file.disk.path.native(), "verified");
}

void VerifyFile(const Context& ctx, const DiskFile& file, base::ProgressMeter& meter) {
  const int fd = file.file.fd.get();
  const std::string& path = file.disk.path.native();
  Integrity found;
  base::ReadUnchanged([&] { CheckUnchanged(file); },
                      [&] {
                        found = ComputeIntegrity(ctx, fd, file.file.stamp.size,
                                                 file.integrity->algorithm, meter);
                      });
  if (found == *file.integrity) return;
  Throw(
      ErrorKind::kSnapshotIntegrity,
      "{} is damaged: expected {} {}, as recorded, but found {}; replace it with an undamaged copy",
      path, file.integrity->algorithm, file.integrity->digest, found.digest);
}

}  // namespace

std::vector<BackingFile> DiskChain::Backing() const {
  std::vector<BackingFile> backing;
  for (std::size_t i = 1; i < files.size(); ++i) backing.push_back({files[i].name, files[i].disk});
  return backing;
}

bool DiskChain::IsReplaced() const {
  return std::any_of(files.begin(), files.end(), [](const DiskFile& file) {
    const auto now = base::StampOf(file.disk.path);
    return !now || now->device != file.file.stamp.device || now->inode != file.file.stamp.inode;
  });
}

void DiskChain::CloseFiles() {
  for (DiskFile& file : files) file.file.fd.Reset(-1);
}

std::vector<disk::ImageFile> DiskChain::TakeFiles() && {
  std::vector<disk::ImageFile> images;
  images.reserve(files.size());
  for (DiskFile& file : files) {
    images.push_back({std::move(file.file.fd), file.disk.format, file.name});
  }
  return images;
}

DiskFile FileOfLayer(OpenedArtifact& opened, std::size_t index) {
  const Manifest& manifest = opened.artifact.manifest;
  const Layer& layer = manifest.layers.at(index);
  return {.digest = manifest.digest,
          .name = disk::DiskFileName(manifest.digest, layer.format),
          .disk = {opened.artifact.path / layer.file, layer.format, manifest.fstype},
          .file = std::move(opened.layers.at(index)),
          .integrity = layer.integrity};
}

DiskFile OpenImageFile(const std::filesystem::path& path, const Image& image, DiskFormat format,
                       const std::string& fstype, const std::string& origin) {
  DiskFile file{.digest = image.manifest_digest,
                .name = path.filename(),
                .disk = {path, format, fstype},
                .file = {},
                .integrity = Integrity{std::string(kSha256), image.manifest_digest}};
  try {
    file.file.fd = base::OpenRegularFile(path, ErrorKind::kSnapshotImageMissing);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kSnapshotImageMissing) throw;
    Throw(ErrorKind::kSnapshotImageMissing,
          "{} is backed by the image '{}', which cannot be opened: {}; or import the snapshot with "
          "its image",
          origin, base::Quoted(image.ref), e.what());
  }
  file.file.stamp = base::StampOf(file.file.fd.get());
  return file;
}

std::vector<std::optional<Integrity>> VerifyFiles(const Context& ctx,
                                                  const std::vector<DiskFile>& files) {
  base::ProgressMeter meter(ctx, "verify", CountData(ctx, files));
  std::vector<std::optional<Integrity>> found;
  for (const DiskFile& file : files) {
    ctx.Check();  // Reading checks ctx, but a file that is one hole is not read.
    if (file.integrity) VerifyFile(ctx, file, meter);
    found.push_back(file.integrity);
  }
  meter.Finish();
  for (const DiskFile& file : files) CheckUnchanged(file);
  return found;
}

}  // namespace msb::artifact
