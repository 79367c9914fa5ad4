// SPDX-License-Identifier: Apache-2.0
//
// DirectoryBackend::Restore. The new disk is made beside the former one, under a name of its own.
// Replacing the record is the switch: before it, the sandbox has the former disk, and from then on
// the new one. The files of the other disk, which a crash may leave, are removed by the next
// operation on the sandbox (Sweep in directory_disk.h).

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "src/base/regular_file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"
#include "src/disk/qcow2_header.h"
#include "src/vmm/directory_backend.h"
#include "src/vmm/directory_disk.h"
#include "src/vmm/record_file.h"
#include "src/vmm/same_image.h"

namespace msb::vmm {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;

// Returns the size of a sandbox's disk as its guest sees it, in bytes. Returns 0 if the disk is
// absent or damaged, since a sandbox in this state can be restored too.
std::uint64_t SizeOfUpper(int dir, const Disk& upper) {
  const Entry entry = base::OpenEntryAt(dir, upper.path.filename());
  if (entry.type != EntryType::kRegularFile) return 0;
  if (upper.format == DiskFormat::kRaw) return base::StampOf(entry.fd.get()).size;
  try {
    return disk::ReadQcow2Header(entry.fd.get(), upper.path.native()).virtual_size;
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kIO) throw;
    return 0;
  }
}

// Returns the name of a temporary file, which Sweep removes.
std::string HiddenName() { return fmt::format(".{}.{}", kRecordFile, base::RandomSuffix()); }

// The new disk of a sandbox, whose directory the caller has locked.
class NewDisk {
 public:
  NewDisk(int dir, const DirectoryRecord& former) : dir_(dir), former_(former.sandbox) {}

  // Makes the disk, and describes it in record.
  void Make(const Context& ctx, const std::filesystem::path& path, const DiskSource& source,
            SandboxRecord& record);
  // Keeps the former record under a hidden name, so that it can be put back even if the file system
  // is full. Returns that name, or an empty string if the file system has no hard links.
  std::string KeepRecord(const std::filesystem::path& path);
  // Gives their names to the backing files that could not get them as long as the former disk was
  // in use.
  void NameBackingFiles() const;
  // Removes the files that Make has created.
  void Remove(const std::filesystem::path& path) const;

 private:
  void AddBacking(const Context& ctx, const std::filesystem::path& file, const std::string& name);

  const int dir_;
  const SandboxRecord& former_;
  std::vector<std::string> created_;
  std::vector<std::pair<std::string, std::string>> hidden_;  // A hidden name, and the final name.
};

void NewDisk::Make(const Context& ctx, const std::filesystem::path& path, const DiskSource& source,
                   SandboxRecord& record) {
  const Disk& former = *former_.upper;
  const std::uint64_t former_size = SizeOfUpper(dir_, former);
  const std::string name = NewUpperName(former.format);
  created_.push_back(name);
  MakeUpper(
      ctx, source,
      {.format = former.format,
       .name = name,
       .dir = dir_,
       .place = path,
       .size_for = [&](std::uint64_t size) { return std::max(size, former_size); },
       .add_backing = [&](const auto& file, const std::string& as) { AddBacking(ctx, file, as); }},
      record);
}

// The former disk may be backed by a file of this name. As a rule it is the same file. If it is a
// copy, the snapshot's file takes its place when the former disk is no longer in use.
void NewDisk::AddBacking(const Context& ctx, const std::filesystem::path& file,
                         const std::string& name) {
  Entry present = base::OpenEntryAt(dir_, name);
  if (present.type == EntryType::kAbsent) {
    created_.push_back(name);
    return LinkOrCopy(ctx, file, dir_, name);
  }
  const std::filesystem::path path = former_.upper->path.parent_path() / name;
  if (path == former_.upper->path) {
    Throw(ErrorKind::kUnsupportedOperation,
          "cannot restore sandbox '{}': its own disk has the file name that the snapshot's disk "
          "needs: {}; create a snapshot of the sandbox first",
          former_.name, path.native());
  }
  const base::UniqueFd fd = base::RequireRegularFile(std::move(present), path, ErrorKind::kIO);
  const auto wanted = base::StampOf(file);
  if (wanted && wanted->SameContent(base::StampOf(fd.get()))) return;
  hidden_.emplace_back(HiddenName(), name);
  created_.push_back(hidden_.back().first);
  LinkOrCopy(ctx, file, dir_, hidden_.back().first);
}

std::string NewDisk::KeepRecord(const std::filesystem::path& path) {
  const std::string name = HiddenName();
  created_.push_back(name);
  return base::TryLinkFile(path / kRecordFile, dir_, name) ? name : std::string();
}

void NewDisk::NameBackingFiles() const {
  for (const auto& [hidden, name] : hidden_) base::RenameOverAt(dir_, hidden, name);
}

void NewDisk::Remove(const std::filesystem::path& path) const {
  for (const std::string& name : created_) base::RemoveFile(path / name);
}

}  // namespace

// Save may have failed after it had replaced the record on disk.
void DirectoryBackend::TakeBackRecord(Locked& sandbox, const DirectoryRecord& before,
                                      const std::string& kept) const {
  const std::filesystem::path restored = sandbox.record.sandbox.upper->path;
  const auto saved = ReadRecord(sandbox.dir, sandbox.path);
  sandbox.record = before;
  if (!saved || saved->sandbox.upper->path != restored) return;
  if (kept.empty()) return Save(sandbox);
  base::RenameOverAt(sandbox.dir, kept, std::string(kRecordFile));
}

SandboxRecord DirectoryBackend::Restore(const Context& ctx, const std::string& name,
                                        const SnapshotSource& snapshot) {
  Warnings warnings(log_);
  Locked sandbox = OpenStopped(ctx, name);
  RecoverForReading(sandbox, warnings);
  SandboxRecord& record = sandbox.record.sandbox;
  RefuseWriter(ctx, sandbox.dir, record);
  CheckSameImage(record, snapshot);
  const DirectoryRecord before = sandbox.record;
  sandbox.record.live.reset();  // Only set if it cannot be resolved; its overlay is replaced.
  NewDisk disk(sandbox.dir, before);
  std::optional<std::string> kept;
  try {
    disk.Make(ctx, sandbox.path, vmm::SourceOf(snapshot), record);
    queries_.check_unreplaced(snapshot);
    record.snapshot_digest = snapshot.digest;
    SetSnapshotPath(record, home_, snapshot.artifact);
    std::string former = disk.KeepRecord(sandbox.path);
    base::Sync(sandbox.dir);
    ctx.Check();
    kept = std::move(former);
    Save(sandbox);
  } catch (...) {
    try {
      if (kept) TakeBackRecord(sandbox, before, *kept);
      disk.Remove(sandbox.path);
    } catch (const Error& e) {
      warnings.Add(e.what());  // The next operation removes the disk that the record does not name.
    }
    throw;
  }
  try {
    disk.NameBackingFiles();
    Sweep(sandbox.dir, sandbox.path, record);
  } catch (const Error& e) {
    warnings.Add(e.what());
  }
  return Booted(sandbox);
}

}  // namespace msb::vmm
