#include "src/vmm/image_store.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstring>
#include <optional>
#include <string_view>

#include "src/artifact/manifest.h"
#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/sparse_copy.h"

namespace msb::vmm {
namespace {

using base::FileStamp;
using base::Throw;
using base::UniqueFd;

// True if the file has these bytes at offset.
bool HasMagic(int fd, std::uint64_t offset, std::string_view magic) {
  if (base::StampOf(fd).size < offset + magic.size()) return false;
  std::array<char, 16> found{};
  base::ReadExactly(fd, found.data(), magic.size(), offset);
  return std::string_view(found.data(), magic.size()) == magic;
}

// What a remembered pin is valid for; the digest follows it.
std::string StampLine(const FileStamp& stamp) {
  return fmt::format("{} {} {} {} {} ", stamp.device, stamp.inode, stamp.size, stamp.mtime_ns,
                     stamp.ctime_ns);
}

// False for a file written so lately that one more write might leave its times as they are.
bool IsSettled(const FileStamp& stamp) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return now - std::chrono::nanoseconds(stamp.mtime_ns) > std::chrono::seconds(1);
}

UniqueFd OpenImageFile(const std::filesystem::path& path, const std::string& reference) {
  // The user's own path: links in it are his to make.
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  const UniqueFd dir = base::TryOpenDirectory(real.parent_path());
  base::Entry entry;
  if (!error && dir && real.has_filename()) entry = base::OpenEntryAt(dir.get(), real.filename());
  if (entry.type != base::EntryType::kRegularFile) {
    Throw(ErrorKind::kImageNotFound,
          "image '{}' must be the path of a disk image file, but {} is {}", base::Quoted(reference),
          path.native(), base::Describe(entry.type));
  }
  return std::move(entry.fd);
}

// A disk image in the cache, if it is there.
std::optional<PinnedImage> FindCached(const std::filesystem::path& dir,
                                      const std::string& reference, const std::string& digest) {
  const UniqueFd parent = base::TryOpenDirectory(dir);
  if (!parent) return std::nullopt;
  for (const DiskFormat format : {DiskFormat::kRaw, DiskFormat::kQcow2}) {
    const std::string name = artifact::DiskFileName(digest, format);
    const base::Entry entry = base::OpenEntryAt(parent.get(), name);
    if (entry.type != base::EntryType::kRegularFile) continue;
    const std::string fstype =
        format == DiskFormat::kRaw ? ProbeFileSystem(entry.fd.get()) : "unknown";
    return PinnedImage{{reference, digest}, {dir / name, format, fstype}};
  }
  return std::nullopt;
}

}  // namespace

std::string ProbeFileSystem(int fd) {
  using namespace std::string_view_literals;
  if (HasMagic(fd, 1080, "\x53\xef"sv)) return "ext4";
  if (HasMagic(fd, 0, "XFSB"sv)) return "xfs";
  if (HasMagic(fd, 65600, "_BHRfS_M"sv)) return "btrfs";
  if (HasMagic(fd, 1024, "\xe2\xe1\xf5\xe0"sv)) return "erofs";
  if (HasMagic(fd, 0, "hsqs"sv)) return "squashfs";
  return "unknown";
}

DiskFormat ProbeFormat(int fd) {
  return HasMagic(fd, 0, "QFI\xfb") ? DiskFormat::kQcow2 : DiskFormat::kRaw;
}

PinnedImage ImageStore::Pin(const Context& ctx, const std::string& reference) {
  if (!base::IsDigest(reference, "sha256")) return PinFile(ctx, reference);
  auto cached = FindCached(dir_, reference, reference);
  if (!cached) {
    Throw(ErrorKind::kImageNotFound, "no image {} in {}", reference, dir_.native());
  }
  return *std::move(cached);
}

PinnedImage ImageStore::PinFile(const Context& ctx, const std::string& reference) {
  const std::filesystem::path path = base::AbsolutePath(reference);
  const UniqueFd source = OpenImageFile(path, reference);
  const FileStamp stamp = base::StampOf(source.get());
  const UniqueFd pins = base::MakeDirectory(dir_ / "pins");
  const std::string pin_name = base::Sha256Digest(path.native()).substr(7);
  if (const base::Entry pin = base::OpenEntryAt(pins.get(), pin_name);
      pin.type == base::EntryType::kRegularFile) {
    const std::string line = base::ReadAll(pin.fd.get(), 4096).value_or("");
    const std::string expected = StampLine(stamp);
    if (line.starts_with(expected) && base::IsDigest(line.substr(expected.size()), "sha256")) {
      if (auto cached = FindCached(dir_, reference, line.substr(expected.size()))) return *cached;
    }
  }
  const DiskFormat format = ProbeFormat(source.get());
  base::Stage stage(dir_);
  std::string digest;
  {
    const UniqueFd copy = base::CreateFileAt(stage.fd(), "image", stamp.mode & 0444);
    const auto hasher = artifact::MakeIntegrityHasher(ctx, artifact::kSha256, stamp.size);
    disk::CopySparse(ctx, source.get(), copy.get(), stamp.size, hasher->consumer());
    digest = hasher->Finish();
  }
  if (!stamp.SameContent(base::StampOf(source.get()))) {
    Throw(ErrorKind::kIO, "image {} changed while it was copied", path.native());
  }
  if (!FindCached(dir_, reference, digest)) {
    stage.PublishFile("image", artifact::DiskFileName(digest, format));
  }
  if (IsSettled(stamp)) {
    base::ReplaceFileAt(pins.get(), pin_name, StampLine(stamp) + digest, 0666);
  }
  auto pinned = FindCached(dir_, reference, digest);
  if (!pinned) Throw(ErrorKind::kIO, "{} vanished from the cache", digest);
  return *std::move(pinned);
}

}  // namespace msb::vmm
