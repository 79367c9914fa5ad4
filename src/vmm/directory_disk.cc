// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/directory_disk.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <set>
#include <string_view>

#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/file_system.h"
#include "src/base/owned_descriptor.h"
#include "src/base/regular_file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/writers.h"
#include "src/disk/disk_image.h"
#include "src/disk/disk_names.h"
#include "src/disk/image_writer.h"
#include "src/disk/sparse_copy.h"

namespace msb::vmm {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;
using base::UniqueFd;

constexpr std::uint64_t kDiskSectorBytes = 512;

UniqueFd OpenFile(const std::filesystem::path& path) {
  const UniqueFd dir = base::OpenDirectory(path.parent_path());
  return base::RequireRegularFile(base::OpenEntryAt(dir.get(), path.filename()), path,
                                  ErrorKind::kIO);
}

// Creates the file of an upper. A process that is forked meanwhile does not keep it open for
// writing, which would look as if that process used the disk.
UniqueFd CreateUpper(int dir, const std::string& name, mode_t mode) {
  UniqueFd fd = base::CreateFileAt(dir, name, mode);
  base::NoteOwnedByProcess(fd.get());
  return fd;
}

std::unique_ptr<disk::DiskImage> OpenSource(const Context& ctx, const DiskSource& source) {
  std::vector<disk::ImageFile> files;
  files.push_back({OpenFile(source.disk.path), source.disk.format, source.disk.path});
  for (const BackingFile& file : source.backing) {
    files.push_back({OpenFile(file.disk.path), file.disk.format, file.name});
  }
  return disk::OpenImage(ctx, std::move(files));
}

void MakeRawUpper(const Context& ctx, const DiskSource& source, const NewUpper& upper) {
  const UniqueFd file = OpenFile(source.disk.path);
  const base::FileStamp stamp = base::StampOf(file.get());
  const UniqueFd target = CreateUpper(upper.dir, upper.name, (stamp.mode & 0444) | 0200);
  if (source.disk.format == DiskFormat::kRaw) {
    const std::uint64_t size = upper.size_for(stamp.size);
    disk::CopySparse(ctx, file.get(), target.get(), stamp.size);
    if (size == stamp.size) return;
    base::Resize(target.get(), size);
  } else {
    const auto image = OpenSource(ctx, source);
    const std::uint64_t size = upper.size_for(image->size());
    disk::WriteFlat(ctx, *image, DiskFormat::kRaw, target.get());
    base::Resize(target.get(), size);
  }
  base::Sync(target.get());
}

// Returns true if name is prefix, then this many lower-case hex digits, then suffix.
bool IsHexName(std::string_view name, std::string_view prefix, std::size_t digits,
               std::string_view suffix) {
  if (name.size() != prefix.size() + digits + suffix.size() || !name.starts_with(prefix) ||
      !name.ends_with(suffix)) {
    return false;
  }
  return base::IsHex(name.substr(prefix.size(), digits), digits);
}

// Returns true for file names that this library uses. The directory may also hold files of other
// programs.
bool IsOwn(std::string_view name) {
  return name == disk::kRawUpperFile || name == disk::kQcow2UpperFile ||
         name.starts_with(".sandbox.json.") || IsHexName(name, "run-", 16, ".lock") ||
         IsHexName(name, "upper-", 16, ".qcow2") || IsHexName(name, "upper-", 16, ".ext4") ||
         IsHexName(name, "sha256_", 64, ".raw") || IsHexName(name, "sha256_", 64, ".qcow2");
}

// Replaces the file with a writable copy of itself.
void CopyOver(const Context& ctx, int dir, const std::filesystem::path& path, int file,
              const base::FileStamp& stamp) {
  const std::string copy_name = ".sandbox.json." + base::RandomSuffix();  // Sweep removes it.
  try {
    const UniqueFd copy = CreateUpper(dir, copy_name, (stamp.mode & 0666) | 0600);
    disk::CopySparse(ctx, file, copy.get(), stamp.size);
    base::RenameOverAt(dir, copy_name, path.filename());
  } catch (...) {
    try {
      base::RemoveFile(path.parent_path() / copy_name);
    } catch (const Error&) {
      // The next Sweep removes it.
    }
    throw;
  }
}

}  // namespace

DiskSource SourceOf(const SnapshotSource& snapshot) {
  return {disk::DiskFileName(snapshot.digest, snapshot.upper.format), snapshot.upper,
          snapshot.backing};
}

std::string NewUpperName(DiskFormat format) {
  const std::string extension = std::filesystem::path(disk::UpperFileName(format)).extension();
  return "upper-" + base::RandomSuffix() + extension;
}

bool HasFile(int dir, const std::string& name) {
  return base::OpenEntryAt(dir, name).type == EntryType::kRegularFile;
}

void MakeUpper(const Context& ctx, const DiskSource& source, const NewUpper& upper,
               SandboxRecord& record) {
  record.upper = Disk{upper.place / upper.name, upper.format, source.disk.fstype};
  record.backing.clear();
  if (upper.format == DiskFormat::kRaw) return MakeRawUpper(ctx, source, upper);
  // Opens the complete chain: a disk that cannot be read should be refused here, not by the VM.
  const std::uint64_t source_size = OpenSource(ctx, source)->size();
  std::uint64_t size = upper.size_for(source_size);
  size = (size + kDiskSectorBytes - 1) / kDiskSectorBytes * kDiskSectorBytes;
  record.backing = {{source.name, source.disk}};
  record.backing.insert(record.backing.end(), source.backing.begin(), source.backing.end());
  for (BackingFile& file : record.backing) {
    upper.add_backing(file.disk.path, file.name);
    file.disk.path = upper.place / file.name;
  }
  MakeOverlay(upper.dir, upper.name, size, record.backing[0]);
}

void MakeOverlay(int dir, const std::string& name, std::uint64_t virtual_size,
                 const BackingFile& backing) {
  const UniqueFd upper = CreateUpper(dir, name, 0666);
  disk::WriteOverlay(upper.get(), {.virtual_size = virtual_size,
                                   .backing_file = backing.name,
                                   .backing_format = backing.disk.format});
}

void LinkOrCopy(const Context& ctx, const std::filesystem::path& path, int dir,
                const std::string& name) {
  const UniqueFd file = OpenFile(path);
  const base::FileStamp stamp = base::StampOf(file.get());
  if (base::TryLinkFile(path, dir, name)) {
    const Entry link = base::OpenEntryAt(dir, name);
    const bool is_local = base::IsLocalFileSystem(dir);
    if (link.fd && base::StampOf(link.fd.get()).SameContentLinked(stamp, is_local)) return;
    Throw(ErrorKind::kIO, "{} was replaced while it was linked: try again", path.native());
  }
  const UniqueFd copy = base::CreateFileAt(dir, name, stamp.mode & 0444);
  disk::CopySparse(ctx, file.get(), copy.get(), stamp.size);
}

void Sweep(int dir, const std::filesystem::path& path, const SandboxRecord& sandbox) {
  std::set<std::string> named = {sandbox.upper->path.filename()};
  for (const BackingFile& file : sandbox.backing) named.insert(file.name);
  for (const base::DirectoryEntry& entry : base::ListDirectory(dir)) {
    if (entry.type != EntryType::kRegularFile || !IsOwn(entry.name)) continue;
    if (!named.contains(entry.name)) base::RemoveFile(path / entry.name);
  }
}

void OwnUpper(const Context& ctx, int dir, const SandboxRecord& sandbox) {
  const std::string name = sandbox.upper->path.filename();
  const UniqueFd upper =
      base::RequireRegularFile(base::OpenEntryAt(dir, name), sandbox.upper->path, ErrorKind::kIO);
  const base::FileStamp stamp = base::StampOf(upper.get());
  if (stamp.links > 1) {
    CopyOver(ctx, dir, sandbox.upper->path, upper.get(), stamp);
  } else if ((stamp.mode & 0200) == 0) {
    base::SetMode(upper.get(), stamp.mode | 0200);
  }
}

void RefuseWriter(const Context& ctx, int dir, const SandboxRecord& sandbox) {
  Entry upper;
  try {
    upper = base::OpenEntryAt(dir, sandbox.upper->path.filename());
  } catch (const Error& e) {
    if (e.os_error() != EACCES && e.os_error() != EPERM) throw;
    return;
  }
  if (upper.type != EntryType::kRegularFile) return;
  if (!base::HasLastingWriter(ctx, upper.fd.get()).value_or(false)) return;
  base::RefuseWriter(
      ErrorKind::kSandboxStillRunning,
      fmt::format("the disk of sandbox '{}', {},", sandbox.name, sandbox.upper->path.native()));
}

}  // namespace msb::vmm
