#include "src/vmm/directory_disk.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string_view>

#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/base/throw.h"
#include "src/disk/disk_image.h"
#include "src/disk/image_writer.h"
#include "src/disk/sparse_copy.h"

namespace msb::vmm {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;
using base::UniqueFd;

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kSectorBytes = 512;

UniqueFd OpenFile(const std::filesystem::path& path) {
  const UniqueFd dir = base::OpenDirectory(path.parent_path());
  Entry entry = base::OpenEntryAt(dir.get(), path.filename());
  if (entry.type != EntryType::kRegularFile) {
    Throw(ErrorKind::kIO, "{} must be a regular file, but is {}", path.native(),
          base::Describe(entry.type));
  }
  return std::move(entry.fd);
}

std::unique_ptr<disk::DiskImage> OpenSource(const DiskSource& source) {
  std::vector<disk::ImageFile> files;
  files.push_back({OpenFile(source.disk.path), source.disk.format, source.name});
  for (const BackingFile& file : source.backing) {
    files.push_back({OpenFile(file.disk.path), file.disk.format, file.name});
  }
  return disk::OpenImage(std::move(files));
}

std::uint64_t SizeFor(const SandboxSpec& spec, std::uint64_t source_size) {
  if (!spec.upper_size_mib) return source_size;
  const std::uint64_t size = *spec.upper_size_mib * kMiB;
  if (size < source_size) {
    Throw(ErrorKind::kInvalidArgument, "an upper of {} MiB is smaller than its source, {} bytes",
          *spec.upper_size_mib, source_size);
  }
  return size;
}

void MakeRawUpper(const Context& ctx, const SandboxSpec& spec, const DiskSource& source, int dir,
                  const std::string& name) {
  const UniqueFd file = OpenFile(source.disk.path);
  const base::FileStamp stamp = base::StampOf(file.get());
  const UniqueFd upper = base::CreateFileAt(dir, name, (stamp.mode & 0444) | 0200);
  if (source.disk.format == DiskFormat::kRaw) {
    const std::uint64_t size = SizeFor(spec, stamp.size);
    disk::CopySparse(ctx, file.get(), upper.get(), stamp.size);
    if (size == stamp.size) return;
    base::Resize(upper.get(), size);
  } else {
    const auto image = OpenSource(source);
    const std::uint64_t size = SizeFor(spec, image->size());
    disk::WriteFlat(ctx, *image, DiskFormat::kRaw, upper.get());
    base::Resize(upper.get(), size);
  }
  base::Sync(upper.get());
}

// Gives a file that is not written to any more another name in dir, or makes a copy of it there.
void LinkOrCopy(const Context& ctx, const std::filesystem::path& path, int dir,
                const std::string& name) {
  const UniqueFd file = OpenFile(path);
  const base::FileStamp stamp = base::StampOf(file.get());
  if (base::TryLinkFile(path, dir, name)) {
    const Entry link = base::OpenEntryAt(dir, name);
    if (link.fd && base::StampOf(link.fd.get()).SameContent(stamp)) return;
    Throw(ErrorKind::kIO, "{} was replaced while it was linked", path.native());
  }
  const UniqueFd copy = base::CreateFileAt(dir, name, stamp.mode & 0444);
  disk::CopySparse(ctx, file.get(), copy.get(), stamp.size);
}

std::uint64_t LinksIn(int dir, std::uint64_t inode) {
  std::uint64_t links = 0;
  for (const base::DirectoryEntry& name : base::ListDirectory(dir)) {
    if (name.type != EntryType::kRegularFile) continue;
    const Entry entry = base::OpenEntryAt(dir, name.name);
    if (entry.fd && base::StampOf(entry.fd.get()).inode == inode) ++links;
  }
  return links;
}

// True if the snapshot of a pending seal took the file over.
bool IsTaken(const PendingSeal& seal, int dir, int sealed) {
  // What a crash left of a stage holds a link too, and goes with the next stage there.
  if (base::TryOpenDirectory(seal.artifact.parent_path())) {
    const base::Stage sweep(seal.artifact.parent_path());
  }
  const auto manifest = artifact::ReadManifest(seal.artifact);
  if (manifest && manifest->digest == seal.digest) return true;
  // Somebody may have moved the artifact.
  const base::FileStamp stamp = base::StampOf(sealed);
  return stamp.links > LinksIn(dir, stamp.inode);
}

// True for prefix, so many lower-case hex digits and suffix.
bool IsHexName(std::string_view name, std::string_view prefix, std::size_t digits,
               std::string_view suffix) {
  if (name.size() != prefix.size() + digits + suffix.size() || !name.starts_with(prefix) ||
      !name.ends_with(suffix)) {
    return false;
  }
  name = name.substr(prefix.size(), digits);
  return name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// True for the names that this library gives, beside which there may be files of others.
bool IsOwn(std::string_view name) {
  return name == artifact::kRawUpperFile || name == artifact::kQcow2UpperFile ||
         name.starts_with(".sandbox.json.") || IsHexName(name, "upper-", 16, ".qcow2") ||
         IsHexName(name, "sha256_", 64, ".raw") || IsHexName(name, "sha256_", 64, ".qcow2");
}

// Removes what only a crash can have left.
void Sweep(int dir, const std::filesystem::path& path, const SandboxRecord& sandbox) {
  std::set<std::string> named = {sandbox.upper->path.filename()};
  for (const BackingFile& file : sandbox.backing) named.insert(file.name);
  for (const base::DirectoryEntry& entry : base::ListDirectory(dir)) {
    if (entry.type != EntryType::kRegularFile || !IsOwn(entry.name)) continue;
    if (!named.contains(entry.name)) base::RemoveFile(path / entry.name);
  }
}

// The upper may be the sandbox's alone, and writable.
void OwnUpper(const Context& ctx, int dir, const SandboxRecord& sandbox) {
  const std::string name = sandbox.upper->path.filename();
  const Entry upper = base::OpenEntryAt(dir, name);
  if (upper.type != EntryType::kRegularFile) {
    Throw(ErrorKind::kIO, "the upper {} must be a regular file, but is {}",
          sandbox.upper->path.native(), base::Describe(upper.type));
  }
  const base::FileStamp stamp = base::StampOf(upper.fd.get());
  if (stamp.links > 1) {
    const std::string copy_name = ".sandbox.json." + base::RandomSuffix();  // Sweep knows it.
    const UniqueFd copy = base::CreateFileAt(dir, copy_name, (stamp.mode & 0666) | 0600);
    disk::CopySparse(ctx, upper.fd.get(), copy.get(), stamp.size);
    base::RenameOverAt(dir, copy_name, name);
  } else if ((stamp.mode & 0200) == 0) {
    base::SetMode(upper.fd.get(), stamp.mode | 0200);
  }
}

}  // namespace

void MakeUpper(const Context& ctx, const SandboxSpec& spec, const DiskSource& source,
               DiskFormat format, int dir, const std::filesystem::path& place,
               SandboxRecord& record) {
  const std::string name = artifact::UpperFileName(format);
  record.upper = Disk{place / name, format, source.disk.fstype};
  if (format == DiskFormat::kRaw) return MakeRawUpper(ctx, spec, source, dir, name);
  // Opened as a whole: what cannot be read is better refused here than by the VM.
  const std::uint64_t source_size = OpenSource(source)->size();
  std::uint64_t size = SizeFor(spec, source_size);
  size = (size + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
  record.backing = {{source.name, source.disk}};
  record.backing.insert(record.backing.end(), source.backing.begin(), source.backing.end());
  for (BackingFile& file : record.backing) {
    LinkOrCopy(ctx, file.disk.path, dir, file.name);
    file.disk.path = place / file.name;
  }
  MakeOverlay(dir, name, size, record.backing[0]);
}

void MakeOverlay(int dir, const std::string& name, std::uint64_t virtual_size,
                 const BackingFile& backing) {
  const UniqueFd upper = base::CreateFileAt(dir, name, 0666);
  disk::WriteOverlay(upper.get(), {.virtual_size = virtual_size,
                                   .backing_file = backing.name,
                                   .backing_format = backing.disk.format});
}

bool EndSeal(int dir, const std::filesystem::path& path, DirectoryRecord& record) {
  if (!record.seal) return false;
  SandboxRecord& sandbox = record.sandbox;
  if (sandbox.backing.empty()) {
    Throw(ErrorKind::kInvalidConfig, "the record of {} has a seal, but no sealed file",
          path.native());
  }
  const std::string sealed = sandbox.backing[0].name;
  const Entry entry = base::OpenEntryAt(dir, sealed);
  if (entry.type != EntryType::kRegularFile) {
    Throw(ErrorKind::kIO, "{} must be a regular file, but is {}", (path / sealed).native(),
          base::Describe(entry.type));
  }
  if (IsTaken(*record.seal, dir, entry.fd.get())) {
    sandbox.snapshot_digest = record.seal->digest;
  } else {
    if (base::OpenEntryAt(dir, record.seal->file).type == EntryType::kAbsent) {
      base::LinkFile(path / sealed, path / record.seal->file);
    }
    sandbox.upper->path = path / record.seal->file;
    sandbox.backing.erase(sandbox.backing.begin());
  }
  record.seal.reset();
  return true;
}

void Tidy(const Context& ctx, int dir, const std::filesystem::path& path,
          const DirectoryRecord& record) {
  Sweep(dir, path, record.sandbox);
  OwnUpper(ctx, dir, record.sandbox);
}

}  // namespace msb::vmm
