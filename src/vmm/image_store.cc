// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/image_store.h"

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <utility>

#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/file_system.h"
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

struct ImageCopy {
  FileStamp stamp;  // The stamp of the file that was copied.
  std::string digest;
  bool had_writer = false;  // A program may have been writing to the file.
};

// Returns the part of a pin file that identifies the file for which the pin is valid. The digest
// follows it.
std::string StampLine(const FileStamp& stamp) {
  return fmt::format("{} {} {} {} {} ", stamp.device, stamp.inode, stamp.size, stamp.mtime_ns,
                     stamp.ctime_ns);
}

// Returns false if the file was modified within the last two seconds, the resolution of the times
// of FAT, so that another write might not change its times.
bool IsSettled(const FileStamp& stamp) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return now - std::chrono::nanoseconds(stamp.mtime_ns) > std::chrono::seconds(2);
}

// Returns true if the digest of the copied file may be remembered for the stamp of that file. A
// writer may change the file without changing the stamp: a system call that writes changes the
// times only when it begins.
bool MayRemember(const ImageCopy& copy, int source) {
  return !copy.had_writer && IsSettled(copy.stamp) && base::TimesFollowStores(source);
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
    const FileStamp after = base::FreshStampOf(source);
    if (after.IsUntouched(before)) return {before, hasher.Finish(), watch.had_writer()};
    if (!after.SameContent(before)) break;
  }
  Throw(ErrorKind::kIO,
        "image {} changed while it was copied: wait until it is complete and try again",
        path.native());
}

// Returns the digest that the directory pins remembers for the open file source, or nullopt if it
// remembers none or the file may have changed since.
std::optional<std::string> RememberedDigest(int pins, const std::string& pin_name, int source) {
  // A stamp that does not follow the content proves nothing, no matter who remembered it.
  if (!base::TimesFollowStores(source)) return std::nullopt;
  const base::Entry pin = base::OpenEntryAt(pins, pin_name);
  if (pin.type != base::EntryType::kRegularFile) return std::nullopt;
  const std::string line = base::ReadAll(pin.fd.get(), 4096).value_or("");
  const std::string expected = StampLine(base::FreshStampOf(source));
  if (!line.starts_with(expected)) return std::nullopt;
  std::string digest = line.substr(expected.size());
  return base::IsDigest(digest, "sha256") ? std::optional(std::move(digest)) : std::nullopt;
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
  const UniqueFd pins = base::MakeDirectory(pins_dir_);
  const std::string pin_name = base::Sha256Hex(path.native());
  if (const auto digest = RememberedDigest(pins.get(), pin_name, source.get())) {
    if (auto cached = FindCached(dir_, reference, *digest)) return *cached;
  }
  if (format == DiskFormat::kQcow2) disk::CheckQcow2(ctx, source.get(), path.native());
  base::SweepStages(ctx, dir_, log_);
  base::Stage stage(dir_);
  const ImageCopy copy = CopyImage(ctx, source.get(), path, stage.fd());
  const std::string& digest = copy.digest;
  if (!FindCached(dir_, reference, digest)) {
    stage.PublishFile(kCopy, disk::DiskFileName(digest, format));
  }
  if (MayRemember(copy, source.get())) {
    // Written through the stage, which is swept after a crash, so that no temporary file is left
    // among the pins.
    base::ReplaceFileAt(pins.get(), pin_name, StampLine(copy.stamp) + digest, 0666, stage.fd());
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
