// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/directory_backend.h"

#include <fmt/format.h>

#include <utility>

#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"
#include "src/vmm/directory_disk.h"
#include "src/vmm/record_file.h"
#include "src/vmm/run_lock.h"

namespace msb::vmm {
namespace {

using base::EntryType;
using base::Throw;
using base::UniqueFd;

constexpr std::uint64_t kMiB = 1 << 20;

// How long a sandbox that is being replaced may take to shut down.
constexpr auto kReplaceTimeout = std::chrono::seconds(10);

[[noreturn]] void NoSandbox(const std::string& name, const std::filesystem::path& dir) {
  Throw(ErrorKind::kSandboxNotFound, "no sandbox '{}' in {}", base::Quoted(name), dir.native());
}

// Returns an empty string or, for example, ", as process 12 on host 'b'", for messages.
std::string WhereItRuns(const DirectoryRecord& record) {
  const std::string& runs_on = record.sandbox.runs_on;
  return runs_on.empty() ? runs_on : ", as " + runs_on;
}

// Releases and removes the run locks of a sandbox whose saved record no longer depends on them.
// runner is the former owner.
void ForgetRun(const std::optional<Runner>& runner, int dir, const std::filesystem::path& path) {
  if (runner) ReleaseRunLock(dir, runner->lock_file);
  RemoveRunLocks(dir, path);
}

// Returns the size of the disk of a new sandbox in bytes.
std::uint64_t SizeFor(const SandboxSpec& spec, std::uint64_t source_size) {
  if (!spec.upper_size_mib) return source_size;
  const std::uint64_t size = *spec.upper_size_mib * kMiB;
  if (size < source_size) {
    Throw(ErrorKind::kInvalidArgument,
          "a disk of {} MiB is too small for sandbox '{}': its image or snapshot has {}; "
          "choose a larger oci_upper_size_mib, or none",
          *spec.upper_size_mib, spec.name, base::Count(source_size, "byte"));
  }
  return size;
}

bool IsRunning(const DirectoryRecord& record) {
  return record.sandbox.status == SandboxStatus::kRunning;
}

}  // namespace

Warnings::~Warnings() {
  for (const std::string& message : messages_) {
    try {
      log_(message);
    } catch (...) {
      // A log callback that throws must not fail the call.
    }
  }
}

DirectoryBackend::DirectoryBackend(base::Home home, std::optional<DiskFormat> upper_format,
                                   SnapshotQueries queries, Log log)
    : home_(std::move(home)),
      upper_format_(upper_format),
      queries_(std::move(queries)),
      log_(std::move(log)),
      images_(home_, log_) {}

base::LockedDirectory DirectoryBackend::LockSandbox(const Context& ctx,
                                                    const std::string& name) const {
  // A directory that is not a sandbox of this backend is refused without waiting for its lock.
  const UniqueFd fd = OpenSandbox(dir_, name);
  if (!fd || !HoldsSandbox(fd.get())) NoSandbox(name, dir_);
  base::LockedDirectory lock = base::LockedDirectory::Open(ctx, dir_, name);
  if (!lock || !HoldsSandbox(lock.fd())) NoSandbox(name, dir_);
  return lock;
}

std::optional<DirectoryRecord> DirectoryBackend::Read(int sandbox, const std::string& name) const {
  auto record = ReadRecord(sandbox, dir_ / name);
  // If the record names no process, it already says how the sandbox ended.
  if (record && record->sandbox.status == SandboxStatus::kCrashed && record->process &&
      record->backend == Name()) {
    record->sandbox.status = StatusOfEnded(sandbox);
  }
  return record;
}

std::optional<DirectoryBackend::Viewed> DirectoryBackend::TryView(const std::string& name) const {
  for (;;) {
    UniqueFd fd = OpenSandbox(dir_, name);
    if (!fd) return std::nullopt;
    auto record = Read(fd.get(), name);
    if (!record && base::LeadsTo(dir_ / name, fd.get())) return std::nullopt;
    if (!record) continue;
    // The sandbox may have been stopped between reading the record and checking the lock. Only an
    // unchanged record means that it has crashed.
    if (record->sandbox.status == SandboxStatus::kCrashed) {
      const auto again = Read(fd.get(), name);
      if (!again || again->sandbox.config_json != record->sandbox.config_json) continue;
    }
    return Viewed{std::move(fd), dir_ / name, *std::move(record)};
  }
}

DirectoryBackend::Viewed DirectoryBackend::View(const std::string& name) const {
  auto viewed = TryView(name);
  if (!viewed) NoSandbox(name, dir_);
  return *std::move(viewed);
}

DirectoryBackend::Locked DirectoryBackend::ReadLocked(int dir, const std::string& name) const {
  auto record = Read(dir, name);
  if (!record) NoSandbox(name, dir_);
  if (IsRunning(*record) && record->backend != Name()) {
    Throw(ErrorKind::kUnsupportedOperation,
          "sandbox '{}' is running under the {} backend; use that backend", name,
          base::Quoted(record->backend));
  }
  return {dir, base::LockedDirectory(), dir_ / name, *std::move(record)};
}

DirectoryBackend::Locked DirectoryBackend::OpenLocked(const Context& ctx,
                                                      const std::string& name) const {
  base::LockedDirectory lock = LockSandbox(ctx, name);
  ctx.Check();  // A free lock is taken without checking ctx.
  Locked sandbox = ReadLocked(lock.fd(), name);
  sandbox.lock = std::move(lock);
  return sandbox;
}

DirectoryBackend::Locked DirectoryBackend::OpenStopped(const Context& ctx,
                                                       const std::string& name) const {
  Locked sandbox = OpenLocked(ctx, name);
  if (!IsRunning(sandbox.record)) return sandbox;
  Throw(ErrorKind::kSandboxStillRunning, "sandbox '{}' is running{}; stop it first", name,
        WhereItRuns(sandbox.record));
}

DirectoryBackend::Locked DirectoryBackend::OpenIdle(const Context& ctx, const std::string& name,
                                                    Warnings& warnings) const {
  Locked sandbox = OpenStopped(ctx, name);
  Recover(sandbox, warnings);
  return sandbox;
}

void DirectoryBackend::Save(Locked& sandbox) const {
  sandbox.record.sandbox.config_json = SaveRecord(sandbox.record, sandbox.dir, sandbox.path);
}

SandboxRecord DirectoryBackend::Inspect(const Context& ctx, const std::string& name) {
  ctx.Check();
  DirectoryRecord record = View(name).record;
  // The VM of a live snapshot that has begun runs on; see PendingSwitch.
  if (!record.seal && (!record.live || IsRunning(record))) return std::move(record.sandbox);
  // A seal is in progress, or was interrupted. How it ends decides which file is the upper.
  Warnings warnings(log_);
  Locked sandbox = OpenLocked(ctx, name);
  if (!IsRunning(sandbox.record)) RecoverForReading(sandbox, warnings);
  return std::move(sandbox.record.sandbox);
}

std::vector<SandboxRecord> DirectoryBackend::List(const Context& ctx) {
  return ListReadable(ctx, [&](const Error& e) { log_(e.what()); });
}

std::vector<SandboxRecord> DirectoryBackend::ListReadable(
    const Context& ctx, const std::function<void(const Error&)>& failed) {
  std::vector<SandboxRecord> sandboxes;
  const UniqueFd dir = base::OpenDirectoryUnlessAbsent(dir_);
  if (!dir) return sandboxes;
  for (const base::DirectoryEntry& entry : base::ListDirectory(dir.get(), ctx)) {
    ctx.Check();
    if (entry.type != EntryType::kDirectory || entry.name.starts_with('.')) continue;
    try {
      if (auto viewed = TryView(entry.name)) {
        sandboxes.push_back(std::move(viewed->record.sandbox));
      }
    } catch (const Error& e) {
      failed(e);
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
    SetSnapshotPath(record, home_, snapshot.artifact);
    return vmm::SourceOf(snapshot);
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
  const DiskFormat format = upper_format_.value_or(source.disk.format);
  const auto link = [&](const std::filesystem::path& file, const std::string& name) {
    LinkOrCopy(ctx, file, stage.fd(), name);
  };
  const auto size_for = [&](std::uint64_t source_size) { return SizeFor(spec, source_size); };
  MakeUpper(ctx, source, {format, disk::UpperFileName(format), stage.fd(), place, size_for, link},
            sandbox);
  if (spec.snapshot) queries_.check_unreplaced(*spec.snapshot);
  sandbox.labels = spec.labels;
  sandbox.created_at = std::chrono::system_clock::now();
  sandbox.started_at = sandbox.created_at;
  record.backend = Name();
  record.cpus = spec.cpus;
  record.memory_mib = spec.memory_mib;
  record.machine = spec.qemu.value_or(QemuConfig{});
  RecordMachine(record);
  WriteNewRecord(record, stage, place);
}

// Stops the sandbox that is about to be replaced. dir is its locked directory.
void DirectoryBackend::StopToReplace(const Context& ctx, int dir, const std::string& name) {
  try {
    Locked existing = ReadLocked(dir, name);
    End(ctx, existing, kReplaceTimeout);
    RefuseWriter(ctx, dir, existing.record.sandbox);
  } catch (const Error& e) {
    // A sandbox with a damaged record cannot be stopped.
    if (e.kind() != ErrorKind::kInvalidConfig) throw;
    RefuseVm(dir, name);
  }
}

void DirectoryBackend::RefuseExisting(const std::string& name) const {
  const UniqueFd existing = OpenSandbox(dir_, name);
  if (existing && HoldsSandbox(existing.get())) {
    Throw(ErrorKind::kSandboxAlreadyExists,
          "sandbox '{}' already exists; remove it, or replace it with WithReplace", name);
  }
  Throw(ErrorKind::kSandboxAlreadyExists,
        "{} exists and is not a sandbox of this backend, so it is not replaced; choose another "
        "name",
        (dir_ / name).native());
}

void DirectoryBackend::Publish(const Context& ctx, const SandboxSpec& spec, base::Stage& stage) {
  const auto may_replace = [&](int dir, const std::filesystem::path& /*path*/) {
    if (!HoldsSandbox(dir)) return false;
    StopToReplace(ctx, dir, spec.name);
    return true;
  };
  const bool published =
      spec.replace ? stage.PublishOver(ctx, spec.name, may_replace) : stage.Publish(spec.name);
  if (!published) RefuseExisting(spec.name);
}

SandboxRecord DirectoryBackend::Create(const Context& ctx, const SandboxSpec& spec) {
  ctx.Check();
  Warnings warnings(log_);
  const UniqueFd parent = base::MakeDirectory(dir_);
  base::SweepStages(ctx, dir_, log_);
  if (base::TypeAt(parent.get(), spec.name) != EntryType::kAbsent) {
    const UniqueFd existing = OpenSandbox(dir_, spec.name);
    if (!spec.replace || !existing || !HoldsSandbox(existing.get())) RefuseExisting(spec.name);
  }
  DirectoryRecord record;
  base::Stage stage(dir_);
  BuildInto(ctx, spec, stage, record);
  ctx.Check();
  Publish(ctx, spec, stage);
  // The stage's lock is now the sandbox's lock, and is held until this function returns.
  Locked sandbox{stage.fd(), base::LockedDirectory(), dir_ / spec.name, std::move(record)};
  try {
    Begin(ctx, sandbox, spec.detached, warnings);
  } catch (...) {
    // A VM that could not be ended keeps its record. Otherwise the new sandbox is withdrawn, which
    // restores a sandbox that it replaced.
    if (!IsRunning(sandbox.record)) stage.Withdraw();
    throw;
  }
  return Booted(sandbox);
}

SandboxRecord DirectoryBackend::Booted(const Locked& sandbox) {
  return DirectoryRecord::Parse(sandbox.record.sandbox.config_json, sandbox.path).sandbox;
}

void DirectoryBackend::Begin(const Context& ctx, Locked& sandbox, bool detached,
                             Warnings& warnings) {
  const DirectoryRecord before = sandbox.record;
  sandbox.record.backend = Name();
  sandbox.record.process.reset();
  sandbox.record.sandbox.status = SandboxStatus::kRunning;
  sandbox.record.sandbox.started_at = std::chrono::system_clock::now();
  try {
    Boot(ctx, sandbox, detached);
    if (detached) LetGo(sandbox);
  } catch (...) {
    TakeBack(sandbox, before, warnings);
    throw;
  }
}

void DirectoryBackend::TakeBack(Locked& sandbox, const DirectoryRecord& before,
                                Warnings& warnings) {
  const auto begun = sandbox.record.process;
  const bool has_begun = begun.has_value();
  try {
    if (has_begun) Halt(Context::Background(), sandbox, std::chrono::milliseconds::zero());
    sandbox.record = before;
    // Save may have failed after it had replaced the record on disk.
    const auto saved = ReadRecord(sandbox.dir, sandbox.path);
    if (has_begun || !saved || IsRunning(*saved)) Save(sandbox);
    ForgetRun(begun, sandbox.dir, sandbox.path);
    ClearEnded(sandbox);
  } catch (const Error& e) {
    // The saved record names the process, which may still be running.
    warnings.Add(e.what());
  }
}

SandboxRecord DirectoryBackend::Start(const Context& ctx, const std::string& name, bool detached) {
  Warnings warnings(log_);
  Locked sandbox = OpenLocked(ctx, name);
  if (IsRunning(sandbox.record)) {
    Throw(ErrorKind::kSandboxStillRunning,
          "sandbox '{}' is already running{}; to boot it again, stop it first", name,
          WhereItRuns(sandbox.record));
  }
  Recover(sandbox, warnings);
  OwnUpper(ctx, sandbox.dir, sandbox.record.sandbox);
  Begin(ctx, sandbox, detached, warnings);
  return Booted(sandbox);
}

void DirectoryBackend::End(const Context& ctx, Locked& sandbox, std::chrono::milliseconds timeout) {
  ctx.Check();  // Nothing has been asked of the guest yet.
  // Even if the sandbox does not run, a failed boot may have left a process.
  Halt(ctx, sandbox, timeout);
  if (!IsRunning(sandbox.record)) return RecordEnd(sandbox);
  sandbox.record.sandbox.status = SandboxStatus::kStopped;
  const auto ended = std::exchange(sandbox.record.process, std::nullopt);
  Save(sandbox);
  ForgetRun(ended, sandbox.dir, sandbox.path);
  ClearEnded(sandbox);
}

// Records how a sandbox ended by itself, because ClearEnded removes the files that show it.
void DirectoryBackend::RecordEnd(Locked& sandbox) {
  try {
    const auto ended = std::exchange(sandbox.record.process, std::nullopt);
    if (ended) Save(sandbox);
    ForgetRun(ended, sandbox.dir, sandbox.path);
    ClearEnded(sandbox);
  } catch (const Error& e) {
    log_(e.what());  // Either the record or these files still show it.
  }
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
  const auto owner = sandbox.record.process;
  LetGo(sandbox);
  Save(sandbox);
  if (!sandbox.record.process) ForgetRun(owner, sandbox.dir, sandbox.path);
}

void DirectoryBackend::RefuseVm(int dir, const std::string& name) const {
  if (!HasVm(dir)) return;
  Throw(ErrorKind::kSandboxStillRunning,
        "sandbox '{}' has a damaged record, but its VM is running; stop the VM first", name);
}

void DirectoryBackend::Remove(const Context& ctx, const std::string& name) {
  base::SweepStages(ctx, dir_, log_);
  base::LockedDirectory sandbox = LockSandbox(ctx, name);
  try {
    const auto record = Read(sandbox.fd(), name);
    if (record && IsRunning(*record)) {
      Throw(ErrorKind::kSandboxStillRunning, "sandbox '{}' is running{}; stop it first", name,
            WhereItRuns(*record));
    }
    if (record) RefuseWriter(ctx, sandbox.fd(), record->sandbox);
  } catch (const Error& e) {
    // A sandbox with a damaged record can only be removed.
    if (e.kind() != ErrorKind::kInvalidConfig) throw;
    RefuseVm(sandbox.fd(), name);
  }
  ctx.Check();
  sandbox.Hide();
  sandbox.Delete(ctx);
}

}  // namespace msb::vmm
