// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/image_store.h"

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <optional>

#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/remove_tree.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/writers.h"
#include "src/disk/content_sha256.h"
#include "src/disk/disk_names.h"
#include "src/disk/image_probe.h"
#include "src/disk/qcow2_check.h"
#include "src/disk/sparse_copy.h"

namespace msb::vmm {
namespace {

using base::FileStamp;
using base::Throw;
using base::UniqueFd;

// The name of the copy of an image in its stage.
constexpr const char* kCopy = "image";

// Returns the part of a pin file that identifies the file for which the pin is valid. The digest
// follows it.
std::string StampLine(const FileStamp& stamp) {
  return fmt::format("{} {} {} {} {} ", stamp.device, stamp.inode, stamp.size, stamp.mtime_ns,
                     stamp.ctime_ns);
}

// Returns false if the file was modified within the last second, so that another write might not
// change its times.
bool IsSettled(const FileStamp& stamp) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return now - std::chrono::nanoseconds(stamp.mtime_ns) > std::chrono::seconds(1);
}

UniqueFd OpenImageFile(const std::filesystem::path& path, const std::string& reference) {
  // The path is the user's own, so symbolic links in it are followed.
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  if (error && error != std::errc::no_such_file_or_directory &&
      error != std::errc::not_a_directory && error != std::errc::filename_too_long &&
      error != std::errc::too_many_symbolic_link_levels) {
    base::ThrowErrno("look up", path.native(), error.value());
  }
  const UniqueFd dir = base::TryOpenDirectory(real.parent_path());
  base::Entry entry;
  if (!error && dir && real.has_filename()) entry = base::OpenEntryAt(dir.get(), real.filename());
  if (entry.type != base::EntryType::kRegularFile) {
    const std::string step = entry.type == base::EntryType::kAbsent
                                 ? base::NextStep(error ? error.value() : ENOENT, path.native())
                                 : "give the path of a file";
    Throw(ErrorKind::kImageNotFound,
          "image '{}' must be the path of a disk image file, but {} is {}; {}",
          base::Quoted(reference), path.native(), base::Describe(entry.type), step);
  }
  return std::move(entry.fd);
}

struct ImageCopy {
  FileStamp stamp;  // The stamp of the file that was copied.
  std::string digest;
};

// Copies the open file source, whose path is path, to dir/image. Copies it again if only its change
// time (ctime) has changed, which may be due to a write or to a new hard link. Throws kIO if it
// changed.
ImageCopy CopyImage(const Context& ctx, int source, const std::filesystem::path& path, int dir) {
  constexpr int kMaxAttempts = 3;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    const base::WriteWatch watch(ctx, source);
    const FileStamp& before = watch.stamp();
    base::RemoveTreeAt(dir, kCopy);  // The previous attempt.
    const UniqueFd copy = base::CreateFileAt(dir, kCopy, before.mode & 0444);
    disk::ContentSha256 hasher(ctx, before.size);
    disk::CopySparse(ctx, source, copy.get(), before.size, hasher);
    // A program that has the file open for writing, but has not written to it, does no harm.
    const FileStamp after = base::StampOf(source);
    if (after.IsUntouched(before)) return {before, hasher.Finish()};
    if (!after.SameContent(before)) break;
  }
  Throw(ErrorKind::kIO,
        "image {} changed while it was copied: wait until it is complete and try again",
        path.native());
}

// Returns the image with this digest in the cache directory dir, or nullopt if it is absent.
std::optional<PinnedImage> FindCached(const std::filesystem::path& dir,
                                      const std::string& reference, const std::string& digest) {
  const UniqueFd parent = base::OpenDirectoryUnlessAbsent(dir);
  if (!parent) return std::nullopt;
  for (const DiskFormat format : {DiskFormat::kRaw, DiskFormat::kQcow2}) {
    const std::string name = disk::DiskFileName(digest, format);
    const base::Entry entry = base::OpenEntryAt(parent.get(), name);
    if (entry.type != base::EntryType::kRegularFile) continue;
    const std::string fstype =
        format == DiskFormat::kRaw ? disk::ProbeFileSystem(entry.fd.get()) : "unknown";
    return PinnedImage{{reference, digest}, {dir / name, format, fstype}};
  }
  return std::nullopt;
}

}  // namespace

PinnedImage ImageStore::Pin(const Context& ctx, const std::string& reference) {
  if (!base::IsDigest(reference, "sha256")) return PinFile(ctx, reference);
  auto cached = FindCached(dir_, reference, reference);
  if (!cached) {
    Throw(ErrorKind::kImageNotFound, "no image {} in {}; give the path of the image file",
          reference, dir_.native());
  }
  return *std::move(cached);
}

PinnedImage ImageStore::PinFile(const Context& ctx, const std::string& reference) {
  const std::filesystem::path path = base::AbsolutePath(reference);
  const UniqueFd source = OpenImageFile(path, reference);
  const DiskFormat format = disk::ProbeImage(ctx, source.get(), path);
  const FileStamp stamp = base::StampOf(source.get());
  const UniqueFd pins = base::MakeDirectory(pins_dir_);
  const std::string pin_name = base::Sha256Hex(path.native());
  if (const base::Entry pin = base::OpenEntryAt(pins.get(), pin_name);
      pin.type == base::EntryType::kRegularFile) {
    const std::string line = base::ReadAll(pin.fd.get(), 4096).value_or("");
    const std::string expected = StampLine(stamp);
    if (line.starts_with(expected) && base::IsDigest(line.substr(expected.size()), "sha256")) {
      if (auto cached = FindCached(dir_, reference, line.substr(expected.size()))) return *cached;
    }
  }
  if (format == DiskFormat::kQcow2) disk::CheckQcow2(ctx, source.get(), path.native());
  base::SweepStages(ctx, dir_, log_);
  base::Stage stage(dir_);
  const auto [before, digest] = CopyImage(ctx, source.get(), path, stage.fd());
  if (!FindCached(dir_, reference, digest)) {
    stage.PublishFile(kCopy, disk::DiskFileName(digest, format));
  }
  if (IsSettled(before)) {
    // Written through the stage, which is swept after a crash, so that no temporary file is left
    // among the pins.
    base::ReplaceFileAt(pins.get(), pin_name, StampLine(before) + digest, 0666, stage.fd());
  }
  auto pinned = FindCached(dir_, reference, digest);
  if (!pinned) {
    Throw(ErrorKind::kIO,
          "another program removed image {} from {}: stop that program and try again", digest,
          dir_.native());
  }
  return *std::move(pinned);
}

}  // namespace msb::vmm
