#include "src/vmm/local_backend.h"

#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/sparse_copy.h"
#include "src/vmm/local_record.h"

namespace msb::vmm {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;
using base::UniqueFd;

constexpr std::size_t kMaxRecordBytes = 1 << 20;
constexpr std::uint64_t kMiB = 1 << 20;

[[noreturn]] void NotFound(const std::string& name) {
  Throw(ErrorKind::kSandboxNotFound, "no sandbox '{}'", base::Quoted(name));
}

// The sandbox's directory; an empty descriptor if there is none.
UniqueFd OpenSandbox(const std::filesystem::path& dir, const std::string& name) {
  const UniqueFd parent = base::TryOpenDirectory(dir);
  if (!parent || !base::IsPlainFileName(name) || name.starts_with('.')) return UniqueFd();
  Entry entry = base::OpenEntryAt(parent.get(), name);
  return entry.type == EntryType::kDirectory ? std::move(entry.fd) : UniqueFd();
}

// Nothing if the directory is not one of this backend's.
std::optional<LocalRecord> ReadRecord(int sandbox, const std::filesystem::path& path) {
  const Entry entry = base::OpenEntryAt(sandbox, std::string(kLocalRecordFile));
  if (entry.type != EntryType::kRegularFile) return std::nullopt;
  const auto json = base::ReadAll(entry.fd.get(), kMaxRecordBytes);
  if (!json) {
    Throw(ErrorKind::kInvalidConfig, "the record of sandbox {} is too long", path.native());
  }
  return LocalRecord::Parse(*json, path);
}

// True for a directory with a record, sound or not: what Remove and replace may delete.
bool HoldsSandbox(const std::filesystem::path& path) {
  const UniqueFd dir = base::TryOpenDirectory(path);
  return dir && base::OpenEntryAt(dir.get(), std::string(kLocalRecordFile)).type ==
                    EntryType::kRegularFile;
}

// Writes the record of a new sandbox into its stage, if it is one that can be read again.
void WriteRecord(LocalRecord& record, const base::Stage& stage, const std::filesystem::path& path) {
  const std::string& image = record.sandbox.image->ref;
  if (!base::IsUtf8(image)) {
    Throw(ErrorKind::kInvalidArgument, "the image's path '{}' is not UTF-8", base::Quoted(image));
  }
  const std::string json = record.Write();
  if (json.size() > kMaxRecordBytes) {
    Throw(ErrorKind::kInvalidArgument, "labels make the record of {} longer than {} bytes",
          path.native(), kMaxRecordBytes);
  }
  LocalRecord::Parse(json, path);
  base::WriteNewFileAt(stage.fd(), std::string(kLocalRecordFile), json, 0666);
}

bool IsRunning(const LocalRecord& record) {
  return record.sandbox.status == SandboxStatus::kRunning;
}

// Copies a disk to a new file in the stage, which its owner may write.
void CopyDisk(const Context& ctx, const Disk& disk, int stage, const SandboxSpec& spec,
              const std::string& file) {
  const UniqueFd dir = base::OpenDirectory(disk.path.parent_path());
  const Entry source = base::OpenEntryAt(dir.get(), disk.path.filename());
  if (source.type != EntryType::kRegularFile) {
    Throw(ErrorKind::kIO, "{} must be a regular file, but is {}", disk.path.native(),
          base::Describe(source.type));
  }
  const base::FileStamp stamp = base::StampOf(source.fd.get());
  const std::uint64_t size = spec.upper_size_mib ? *spec.upper_size_mib * kMiB : stamp.size;
  if (size != stamp.size && disk.format != DiskFormat::kRaw) {
    Throw(ErrorKind::kUnsupportedOperation, "the size of a qcow2 disk cannot be changed");
  }
  if (size < stamp.size) {
    Throw(ErrorKind::kInvalidArgument, "an upper of {} MiB is smaller than its source, {} bytes",
          *spec.upper_size_mib, stamp.size);
  }
  const UniqueFd upper = base::CreateFileAt(stage, file, (stamp.mode & 0444) | 0200);
  disk::CopySparse(ctx, source.fd.get(), upper.get(), stamp.size);
  if (size == stamp.size) return;
  base::Resize(upper.get(), size);
  base::Sync(upper.get());
}

// The snapshot may have been replaced, by force, between being opened and being copied.
void CheckUnreplaced(const SnapshotSource& snapshot) {
  const std::string now = artifact::OpenArtifactAt(snapshot.artifact).manifest.digest;
  if (now == snapshot.digest) return;
  Throw(ErrorKind::kSnapshotNotFound, "{} was replaced while it was copied: expected {}, found {}",
        snapshot.artifact.native(), snapshot.digest, now);
}

}  // namespace

// A sandbox's directory, locked against other threads and processes, and its record.
struct LocalBackend::Locked {
  UniqueFd fd;
  LocalRecord record;
};

LocalBackend::LocalBackend(std::filesystem::path sandboxes_dir,
                           const std::filesystem::path& cache_dir,
                           std::optional<DiskFormat> upper_format,
                           std::function<void(std::string_view message)> log)
    : dir_(std::move(sandboxes_dir)),
      upper_format_(upper_format),
      log_(std::move(log)),
      images_(cache_dir) {}

UniqueFd LocalBackend::LockSandbox(const Context& ctx, const std::string& name) const {
  for (;;) {
    UniqueFd fd = OpenSandbox(dir_, name);
    if (!fd || !HoldsSandbox(dir_ / name)) NotFound(name);
    base::Lock(ctx, fd.get());
    // It may have been removed or replaced while its lock was awaited.
    const UniqueFd now = OpenSandbox(dir_, name);
    if (now && base::StampOf(now.get()).inode == base::StampOf(fd.get()).inode) return fd;
  }
}

LocalBackend::Locked LocalBackend::OpenLocked(const Context& ctx, const std::string& name) const {
  UniqueFd fd = LockSandbox(ctx, name);
  auto record = ReadRecord(fd.get(), dir_ / name);
  if (!record) NotFound(name);
  return {std::move(fd), *std::move(record)};
}

void LocalBackend::Save(Locked& sandbox) const {
  base::ReplaceFileAt(sandbox.fd.get(), std::string(kLocalRecordFile), sandbox.record.Write(),
                      0666);
}

SandboxRecord LocalBackend::Inspect(const Context& ctx, const std::string& name) {
  ctx.Check();
  const UniqueFd fd = OpenSandbox(dir_, name);
  if (!fd) NotFound(name);
  auto record = ReadRecord(fd.get(), dir_ / name);
  if (!record) NotFound(name);
  return std::move(record->sandbox);
}

std::vector<SandboxRecord> LocalBackend::List(const Context& ctx) {
  std::vector<SandboxRecord> sandboxes;
  const UniqueFd dir = base::TryOpenDirectory(dir_);
  if (!dir) return sandboxes;
  for (const base::DirectoryEntry& entry : base::ListDirectory(dir.get())) {
    ctx.Check();
    if (entry.type != EntryType::kDirectory || entry.name.starts_with('.')) continue;
    try {
      const UniqueFd fd = OpenSandbox(dir_, entry.name);
      if (!fd) continue;
      if (auto record = ReadRecord(fd.get(), dir_ / entry.name)) {
        sandboxes.push_back(std::move(record->sandbox));
      }
    } catch (const Error& e) {
      log_(e.what());
    }
  }
  return sandboxes;
}

SandboxRecord LocalBackend::OriginOf(const Context& ctx, const SandboxSpec& spec) {
  SandboxRecord origin;
  if (spec.snapshot) {
    origin.image = spec.snapshot->image;
    origin.upper = spec.snapshot->upper;
    origin.snapshot_digest = spec.snapshot->digest;
  } else {
    PinnedImage pinned = images_.Pin(ctx, spec.image);
    origin.image = std::move(pinned.image);
    origin.upper = std::move(pinned.disk);
  }
  if (upper_format_.value_or(origin.upper->format) != origin.upper->format) {
    Throw(ErrorKind::kUnsupportedOperation,
          "the upper of '{}' cannot be {}: what it is made from, {}, is {}", spec.name,
          ToString(*upper_format_), origin.upper->path.native(), ToString(origin.upper->format));
  }
  return origin;
}

SandboxRecord LocalBackend::Create(const Context& ctx, const SandboxSpec& spec) {
  ctx.Check();
  const auto refuse_existing = [&] {
    Throw(ErrorKind::kSandboxAlreadyExists, "sandbox '{}' exists", spec.name);
  };
  const UniqueFd parent = base::MakeDirectory(dir_);
  if (!spec.replace && base::OpenEntryAt(parent.get(), spec.name).type != EntryType::kAbsent) {
    refuse_existing();
  }
  LocalRecord record{.sandbox = OriginOf(ctx, spec), .owner = std::nullopt};
  const Disk source = *record.sandbox.upper;
  const std::string file = artifact::UpperFileName(source.format);
  base::Stage stage(dir_);
  CopyDisk(ctx, source, stage.fd(), spec, file);
  if (spec.snapshot) CheckUnreplaced(*spec.snapshot);
  record.sandbox.upper->path = file;
  record.sandbox.status = SandboxStatus::kRunning;
  record.sandbox.labels = spec.labels;
  record.sandbox.created_at = std::chrono::system_clock::now();
  if (!spec.detached) record.owner = base::ProcessIdentity::Self();
  record.cpus = spec.cpus;
  record.memory_mib = spec.memory_mib;
  WriteRecord(record, stage, dir_ / spec.name);
  ctx.Check();
  if (!stage.Publish(spec.name)) {
    const UniqueFd existing = OpenSandbox(dir_, spec.name);
    if (!spec.replace) refuse_existing();
    if (existing) base::Lock(ctx, existing.get());
    if (!stage.PublishOver(spec.name, HoldsSandbox)) refuse_existing();
  }
  return Inspect(Context::Background(), spec.name);
}

SandboxRecord LocalBackend::Start(const Context& ctx, const std::string& name, bool detached) {
  Locked sandbox = OpenLocked(ctx, name);
  if (IsRunning(sandbox.record)) {
    Throw(ErrorKind::kSandboxStillRunning, "sandbox '{}' runs already", name);
  }
  sandbox.record.sandbox.status = SandboxStatus::kRunning;
  sandbox.record.owner.reset();
  if (!detached) sandbox.record.owner = base::ProcessIdentity::Self();
  Save(sandbox);
  return Inspect(Context::Background(), name);
}

void LocalBackend::Stop(const Context& ctx, const std::string& name,
                        std::chrono::milliseconds /*timeout*/) {
  Kill(ctx, name);  // There is no guest to wait for.
}

void LocalBackend::Kill(const Context& ctx, const std::string& name) {
  Locked sandbox = OpenLocked(ctx, name);
  if (!IsRunning(sandbox.record)) return;
  sandbox.record.sandbox.status = SandboxStatus::kStopped;
  sandbox.record.owner.reset();
  Save(sandbox);
}

void LocalBackend::Detach(const Context& ctx, const std::string& name) {
  Locked sandbox = OpenLocked(ctx, name);
  if (!IsRunning(sandbox.record)) return;
  sandbox.record.owner.reset();
  Save(sandbox);
}

void LocalBackend::Remove(const Context& ctx, const std::string& name) {
  const UniqueFd fd = LockSandbox(ctx, name);
  try {
    const auto record = ReadRecord(fd.get(), dir_ / name);
    if (record && IsRunning(*record)) {
      Throw(ErrorKind::kSandboxStillRunning, "sandbox '{}' runs; stop it first", name);
    }
  } catch (const Error& e) {
    // What has a damaged record can only be removed.
    if (e.kind() != ErrorKind::kInvalidConfig) throw;
  }
  if (const auto hidden = base::HideDurably(dir_, name)) base::RemoveTree(*hidden);
}

}  // namespace msb::vmm
