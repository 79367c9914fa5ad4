#include "src/vmm/directory_backend.h"

#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/qcow2_header.h"
#include "src/vmm/directory_disk.h"

namespace msb::vmm {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;
using base::UniqueFd;

constexpr std::size_t kMaxRecordBytes = 1 << 20;
// What a sandbox that is replaced has to shut down.
constexpr auto kReplaceTimeout = std::chrono::seconds(10);

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
std::optional<DirectoryRecord> ReadRecord(int sandbox, const std::filesystem::path& path) {
  const Entry entry = base::OpenEntryAt(sandbox, std::string(kRecordFile));
  if (entry.type != EntryType::kRegularFile) return std::nullopt;
  const auto json = base::ReadAll(entry.fd.get(), kMaxRecordBytes);
  if (!json) {
    Throw(ErrorKind::kInvalidConfig, "the record of sandbox {} is too long", path.native());
  }
  return DirectoryRecord::Parse(*json, path);
}

// True for a directory with a record, sound or not: what Remove and replace may delete.
bool HoldsSandbox(const std::filesystem::path& path) {
  const UniqueFd dir = base::TryOpenDirectory(path);
  return dir &&
         base::OpenEntryAt(dir.get(), std::string(kRecordFile)).type == EntryType::kRegularFile;
}

// Writes the record of a new sandbox into its stage, if it is one that can be read again.
void WriteRecord(DirectoryRecord& record, const base::Stage& stage,
                 const std::filesystem::path& path) {
  const std::string& image = record.sandbox.image->ref;
  if (!base::IsUtf8(image)) {
    Throw(ErrorKind::kInvalidArgument, "the image's path '{}' is not UTF-8", base::Quoted(image));
  }
  const std::string json = record.Write();
  // Half, for it grows with what the sandbox stands on.
  if (json.size() > kMaxRecordBytes / 2) {
    Throw(ErrorKind::kInvalidArgument, "labels make the record of {} longer than {} bytes",
          path.native(), kMaxRecordBytes / 2);
  }
  DirectoryRecord::Parse(json, path);
  base::WriteNewFileAt(stage.fd(), std::string(kRecordFile), json, 0666);
}

bool IsRunning(const DirectoryRecord& record) {
  return record.sandbox.status == SandboxStatus::kRunning;
}

// The snapshot or one of its parents may have been replaced, by force, between being opened and
// being copied.
void CheckUnreplaced(const SnapshotSource& snapshot) {
  for (const BackingFile& file : snapshot.backing) artifact::CheckUnreplaced(file);
  const std::string now = artifact::OpenArtifactAt(snapshot.artifact).manifest.digest;
  if (now == snapshot.digest) return;
  Throw(ErrorKind::kSnapshotNotFound, "{} was replaced while it was copied: expected {}, found {}",
        snapshot.artifact.native(), snapshot.digest, now);
}

}  // namespace

DirectoryBackend::DirectoryBackend(std::filesystem::path sandboxes_dir,
                                   const std::filesystem::path& cache_dir,
                                   std::optional<DiskFormat> upper_format,
                                   std::function<void(std::string_view message)> log)
    : dir_(std::move(sandboxes_dir)),
      upper_format_(upper_format),
      log_(std::move(log)),
      images_(cache_dir) {}

UniqueFd DirectoryBackend::LockSandbox(const Context& ctx, const std::string& name) const {
  for (;;) {
    UniqueFd fd = OpenSandbox(dir_, name);
    if (!fd || !HoldsSandbox(dir_ / name)) NotFound(name);
    base::Lock(ctx, fd.get());
    // It may have been removed or replaced while its lock was awaited.
    const UniqueFd now = OpenSandbox(dir_, name);
    if (now && base::StampOf(now.get()).inode == base::StampOf(fd.get()).inode) return fd;
  }
}

std::optional<DirectoryRecord> DirectoryBackend::Read(int sandbox, const std::string& name) const {
  auto record = ReadRecord(sandbox, dir_ / name);
  if (record && record->sandbox.status == SandboxStatus::kCrashed && record->backend == Name()) {
    record->sandbox.status = StatusOfEnded(sandbox);
  }
  return record;
}

DirectoryBackend::Locked DirectoryBackend::ReadLocked(int dir, const std::string& name) const {
  auto record = Read(dir, name);
  if (!record) NotFound(name);
  if (IsRunning(*record) && record->backend != Name()) {
    Throw(ErrorKind::kUnsupportedOperation, "sandbox '{}' runs under the {} backend; use that",
          name, base::Quoted(record->backend));
  }
  return {dir, UniqueFd(), dir_ / name, *std::move(record)};
}

DirectoryBackend::Locked DirectoryBackend::OpenLocked(const Context& ctx,
                                                      const std::string& name) const {
  UniqueFd fd = LockSandbox(ctx, name);
  Locked sandbox = ReadLocked(fd.get(), name);
  sandbox.fd = std::move(fd);
  return sandbox;
}

DirectoryBackend::Locked DirectoryBackend::OpenIdle(const Context& ctx,
                                                    const std::string& name) const {
  Locked sandbox = OpenLocked(ctx, name);
  if (IsRunning(sandbox.record)) {
    Throw(ErrorKind::kSandboxStillRunning, "sandbox '{}' runs; stop it first", name);
  }
  Recover(ctx, sandbox);
  return sandbox;
}

void DirectoryBackend::Recover(const Context& ctx, Locked& sandbox) const {
  if (EndSeal(sandbox.dir, sandbox.path, sandbox.record)) Save(sandbox);
  Tidy(ctx, sandbox.dir, sandbox.path, sandbox.record);
}

void DirectoryBackend::Save(Locked& sandbox) const {
  const std::string json = sandbox.record.Write();
  if (json.size() > kMaxRecordBytes) {
    Throw(ErrorKind::kInvalidConfig, "the record of sandbox {} would be too long",
          sandbox.path.native());
  }
  base::ReplaceFileAt(sandbox.dir, std::string(kRecordFile), json, 0666);
}

SandboxRecord DirectoryBackend::Inspect(const Context& ctx, const std::string& name) {
  ctx.Check();
  const UniqueFd fd = OpenSandbox(dir_, name);
  if (!fd) NotFound(name);
  auto record = Read(fd.get(), name);
  if (!record) NotFound(name);
  if (!record->seal) return std::move(record->sandbox);
  // A seal goes on, or was cut off: its end decides which file is the upper.
  Locked sandbox = OpenLocked(ctx, name);
  if (IsRunning(sandbox.record)) return std::move(sandbox.record.sandbox);
  Recover(ctx, sandbox);
  return std::move(ReadLocked(sandbox.dir, name).record.sandbox);
}

std::vector<SandboxRecord> DirectoryBackend::List(const Context& ctx) {
  std::vector<SandboxRecord> sandboxes;
  const UniqueFd dir = base::TryOpenDirectory(dir_);
  if (!dir) return sandboxes;
  for (const base::DirectoryEntry& entry : base::ListDirectory(dir.get())) {
    ctx.Check();
    if (entry.type != EntryType::kDirectory || entry.name.starts_with('.')) continue;
    try {
      const UniqueFd fd = OpenSandbox(dir_, entry.name);
      if (!fd) continue;
      if (auto record = Read(fd.get(), entry.name)) {
        sandboxes.push_back(std::move(record->sandbox));
      }
    } catch (const Error& e) {
      log_(e.what());
    }
  }
  return sandboxes;
}

DiskSource DirectoryBackend::SourceOf(const Context& ctx, const SandboxSpec& spec,
                                      SandboxRecord& record) {
  if (spec.snapshot) {
    const SnapshotSource& snapshot = *spec.snapshot;
    record.image = snapshot.image;
    record.snapshot_digest = snapshot.digest;
    return {artifact::DiskFileName(snapshot.digest, snapshot.upper.format), snapshot.upper,
            snapshot.backing};
  }
  PinnedImage pinned = images_.Pin(ctx, spec.image);
  record.image = std::move(pinned.image);
  return {pinned.disk.path.filename(), std::move(pinned.disk), {}};
}

void DirectoryBackend::BuildInto(const Context& ctx, const SandboxSpec& spec,
                                 const base::Stage& stage, DirectoryRecord& record) {
  const std::filesystem::path place = dir_ / spec.name;
  SandboxRecord& sandbox = record.sandbox;
  const DiskSource source = SourceOf(ctx, spec, sandbox);
  MakeUpper(ctx, spec, source, upper_format_.value_or(source.disk.format), stage.fd(), place,
            sandbox);
  if (spec.snapshot) CheckUnreplaced(*spec.snapshot);
  sandbox.labels = spec.labels;
  sandbox.created_at = std::chrono::system_clock::now();
  sandbox.started_at = sandbox.created_at;
  record.backend = Name();
  record.cpus = spec.cpus;
  record.memory_mib = spec.memory_mib;
  WriteRecord(record, stage, place);
}

// Returns the lock of what is there, which must be held until it is replaced: else it could be
// started again.
UniqueFd DirectoryBackend::StopToReplace(const Context& ctx, const std::string& name) {
  UniqueFd lock;
  try {
    lock = LockSandbox(ctx, name);
    Locked existing = ReadLocked(lock.get(), name);
    End(ctx, existing, kReplaceTimeout);
  } catch (const Error& e) {
    // What is not there, or has a damaged record, need not be stopped.
    if (e.kind() != ErrorKind::kSandboxNotFound && e.kind() != ErrorKind::kInvalidConfig) throw;
    if (lock) RefuseVm(lock.get(), name);
  }
  return lock;
}

SandboxRecord DirectoryBackend::Create(const Context& ctx, const SandboxSpec& spec) {
  ctx.Check();
  const auto refuse_existing = [&] {
    Throw(ErrorKind::kSandboxAlreadyExists, "sandbox '{}' exists", spec.name);
  };
  const UniqueFd parent = base::MakeDirectory(dir_);
  if (!spec.replace && base::OpenEntryAt(parent.get(), spec.name).type != EntryType::kAbsent) {
    refuse_existing();
  }
  DirectoryRecord record;
  base::Stage stage(dir_);
  BuildInto(ctx, spec, stage, record);
  ctx.Check();
  if (!stage.Publish(spec.name)) {
    if (!spec.replace) refuse_existing();
    const UniqueFd existing = StopToReplace(ctx, spec.name);
    if (!stage.PublishOver(spec.name, HoldsSandbox)) refuse_existing();
  }
  // The stage's lock is the sandbox's, and lasts until this returns.
  Locked sandbox{stage.fd(), UniqueFd(), dir_ / spec.name, std::move(record)};
  try {
    Begin(ctx, sandbox, spec.detached);
  } catch (...) {
    // What cannot be ended must not be forgotten.
    if (IsRunning(sandbox.record)) throw;
    if (const auto hidden = base::HideDurably(dir_, spec.name)) base::RemoveTree(*hidden);
    throw;
  }
  return Inspect(Context::Background(), spec.name);
}

void DirectoryBackend::Begin(const Context& ctx, Locked& sandbox, bool detached) {
  const DirectoryRecord before = sandbox.record;
  sandbox.record.backend = Name();
  sandbox.record.process.reset();
  sandbox.record.sandbox.status = SandboxStatus::kRunning;
  sandbox.record.sandbox.started_at = std::chrono::system_clock::now();
  try {
    Boot(ctx, sandbox, detached);
    if (detached) LetGo(sandbox);
  } catch (...) {
    TakeBack(sandbox, before);
    throw;
  }
}

void DirectoryBackend::TakeBack(Locked& sandbox, const DirectoryRecord& before) {
  const bool has_begun = sandbox.record.process.has_value();
  try {
    if (has_begun) Halt(Context::Background(), sandbox, std::chrono::milliseconds::zero());
    sandbox.record = before;
    if (has_begun) Save(sandbox);
  } catch (const Error& e) {
    // The record that was saved says what runs, or ran.
    log_(e.what());
  }
}

SandboxRecord DirectoryBackend::Start(const Context& ctx, const std::string& name, bool detached) {
  Locked sandbox = OpenIdle(ctx, name);
  Begin(ctx, sandbox, detached);
  return Inspect(Context::Background(), name);
}

void DirectoryBackend::End(const Context& ctx, Locked& sandbox, std::chrono::milliseconds timeout) {
  // One that does not run may have left something too, or what was about to boot it.
  Halt(ctx, sandbox, timeout);
  if (!IsRunning(sandbox.record)) return;
  sandbox.record.sandbox.status = SandboxStatus::kStopped;
  sandbox.record.process.reset();
  Save(sandbox);
}

void DirectoryBackend::Stop(const Context& ctx, const std::string& name,
                            std::chrono::milliseconds timeout) {
  Locked sandbox = OpenLocked(ctx, name);
  End(ctx, sandbox, timeout);
}

void DirectoryBackend::Kill(const Context& ctx, const std::string& name) {
  Stop(ctx, name, std::chrono::milliseconds::zero());
}

void DirectoryBackend::Detach(const Context& ctx, const std::string& name) {
  Locked sandbox = OpenLocked(ctx, name);
  if (!IsRunning(sandbox.record)) return;
  LetGo(sandbox);
  Save(sandbox);
}

void DirectoryBackend::RefuseVm(int dir, const std::string& name) const {
  if (!HasVm(dir)) return;
  Throw(ErrorKind::kSandboxStillRunning,
        "sandbox '{}' has a record that cannot be read, and a VM; end that first", name);
}

void DirectoryBackend::Remove(const Context& ctx, const std::string& name) {
  const UniqueFd fd = LockSandbox(ctx, name);
  try {
    const auto record = Read(fd.get(), name);
    if (record && IsRunning(*record)) {
      Throw(ErrorKind::kSandboxStillRunning, "sandbox '{}' runs; stop it first", name);
    }
  } catch (const Error& e) {
    // What has a damaged record can only be removed.
    if (e.kind() != ErrorKind::kInvalidConfig) throw;
    RefuseVm(fd.get(), name);
  }
  if (const auto hidden = base::HideDurably(dir_, name)) base::RemoveTree(*hidden);
}

void DirectoryBackend::Seal(const Context& ctx, const std::string& name, const SealSpec& spec,
                            const std::function<void(const Disk& sealed)>& publish) {
  Locked sandbox = OpenIdle(ctx, name);
  SandboxRecord& record = sandbox.record.sandbox;
  if (!record.sealable) {
    Throw(ErrorKind::kUnsupportedOperation, "the upper of '{}' is raw, and cannot be sealed", name);
  }
  if (!base::IsUtf8(spec.artifact.native())) {
    Throw(ErrorKind::kInvalidArgument, "the path '{}' is not UTF-8",
          base::Quoted(spec.artifact.native()));
  }
  const std::string old = record.upper->path.filename();
  const BackingFile sealed{artifact::DiskFileName(spec.digest, DiskFormat::kQcow2),
                           {sandbox.path / artifact::DiskFileName(spec.digest, DiskFormat::kQcow2),
                            DiskFormat::kQcow2, record.upper->fstype}};
  {
    const Entry upper = base::OpenEntryAt(sandbox.dir, old);
    base::Sync(upper.fd.get());
    base::SetMode(upper.fd.get(), base::StampOf(upper.fd.get()).mode & 0444);
    base::LinkFile(record.upper->path, sealed.disk.path);
    record.upper->path = sandbox.path / ("upper-" + base::RandomSuffix() + ".qcow2");
    MakeOverlay(sandbox.dir, record.upper->path.filename(),
                disk::ReadQcow2Header(upper.fd.get(), old).virtual_size, sealed);
  }
  record.backing.insert(record.backing.begin(), sealed);
  sandbox.record.seal = PendingSeal{old, spec.digest, spec.artifact};
  Save(sandbox);
  try {
    publish(sealed.disk);
  } catch (...) {
    FinishSeal(sandbox);
    throw;
  }
  FinishSeal(sandbox);
}

void DirectoryBackend::FinishSeal(Locked& sandbox) const {
  try {
    Recover(Context::Background(), sandbox);
  } catch (const Error& e) {
    // Whoever uses the sandbox next does it.
    log_(e.what());
  }
}

}  // namespace msb::vmm
