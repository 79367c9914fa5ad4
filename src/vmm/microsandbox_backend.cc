// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/microsandbox_backend.h"

#include <array>
#include <chrono>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

#include "src/base/file.h"
#include "src/base/fork.h"
#include "src/base/json.h"
#include "src/base/process.h"
#include "src/base/sqlite.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/time.h"
#include "src/base/writers.h"
#include "src/disk/disk_names.h"
#include "src/vmm/directory_record.h"

namespace msb::vmm {
namespace {

using base::Database;
using base::Json;
using base::Statement;
using base::Throw;

constexpr std::array<std::pair<std::string_view, SandboxStatus>, 7> kStatuses = {{
    {"Created", SandboxStatus::kCreated},
    {"Starting", SandboxStatus::kStarting},
    {"Running", SandboxStatus::kRunning},
    {"Draining", SandboxStatus::kDraining},
    {"Paused", SandboxStatus::kPaused},
    {"Stopped", SandboxStatus::kStopped},
    {"Crashed", SandboxStatus::kCrashed},
}};

SandboxStatus ParseStatus(const std::string& name, const std::string& status) {
  for (const auto& [text, value] : kStatuses) {
    if (text == status) return value;
  }
  Throw(ErrorKind::kUnsupportedOperation,
        "sandbox '{}' has the unknown status '{}'; use the runtime that recorded it",
        base::Quoted(name), base::Quoted(status));
}

bool HasProcess(SandboxStatus status) {
  return status == SandboxStatus::kStarting || status == SandboxStatus::kRunning ||
         status == SandboxStatus::kDraining || status == SandboxStatus::kPaused;
}

// The process of the sandbox's last run.
struct RunProcess {
  bool is_gone = false;                                // It has certainly ended.
  std::optional<base::ProcessIdentity> identity = {};  // If it may be alive and can be identified.
  std::chrono::system_clock::time_point started_at = {};
};

// Returns the process of the sandbox's last run. The database records its pid and when it was
// started. A process with that pid that started later is another one, unless the clock was set
// meanwhile. So it counts as another one only if it is also another program.
RunProcess ProcessOf(const Database& db, std::int64_t sandbox_id) {
  constexpr auto kClockSlack = std::chrono::seconds(10);
  Statement run(db,
                "SELECT pid, started_at FROM run WHERE sandbox_id = ?1 ORDER BY id DESC LIMIT 1");
  run.Bind(1, sandbox_id);
  if (!run.Step()) return {};
  const auto started = base::ParseIndexTime(run.Text(1));
  RunProcess result;
  if (started) result.started_at = started->ToTimePoint();
  const auto pid = run.OptionalInteger(0);
  if (!pid) return result;
  if (*pid > 0 && *pid <= std::numeric_limits<pid_t>::max()) {
    result.identity = base::ProcessIdentity::Of(static_cast<pid_t>(*pid));
  }
  const auto& process = result.identity;
  const bool is_another = process && process->start_ticks != 0 &&
                          !process->program.starts_with("msb") && started &&
                          process->StartTime() > result.started_at + kClockSlack;
  result.is_gone = !process || is_another;
  if (is_another || (process && process->start_ticks == 0)) result.identity.reset();
  return result;
}

// Returns true if a process, possibly in another container, has a disk of the sandbox open for
// writing. The pid that the runtime records does not identify a process of another container.
bool IsDiskInUse(const std::filesystem::path& sandboxes_dir, const std::string& name) {
  if (!base::IsPlainFileName(name)) return false;
  const base::UniqueFd parent = base::OpenDirectoryUnlessAbsent(sandboxes_dir);
  const base::Entry dir = parent ? base::OpenEntryAt(parent.get(), name) : base::Entry{};
  if (dir.type != base::EntryType::kDirectory) return false;
  for (const base::DirectoryEntry& entry : base::ListDirectory(dir.fd.get())) {
    const std::string extension = std::filesystem::path(entry.name).extension();
    if (entry.type != base::EntryType::kRegularFile ||
        (extension != ".ext4" && extension != ".qcow2" && extension != ".raw")) {
      continue;
    }
    const base::Entry disk = base::OpenEntryAt(dir.fd.get(), entry.name);
    if (disk.fd && base::HasWriter(disk.fd.get()).value_or(false)) return true;
  }
  return false;
}

// Returns object.key, or null if object is not an object or has no such key.
const Json& Member(const Json& object, const char* key) {
  static constinit base::Lazy<Json> null;
  if (!object.is_object()) return null.Get();
  const auto found = object.find(key);
  return found == object.end() ? null.Get() : *found;
}

constexpr std::size_t kMaxConfigBytes = 1 << 20;

// The file in which releases from 0.7 on record the files of the root disk, the lowest layer first.
// Absent before the first boot. Its paths are those at the time of that boot.
constexpr std::string_view kRootDiskFile = "runtime/root-disk.json";

// Sets upper and backing of the record to the files of the root disk, if kRootDiskFile exists. A
// sandbox that was restored from a snapshot writes to a qcow2 overlay that is backed by upper.ext4.
// Throws kInvalidConfig if the file is malformed.
void ReadRootDisk(const std::filesystem::path& dir, SandboxRecord& record) {
  const std::filesystem::path path = dir / kRootDiskFile;
  if (!base::StampOf(path)) return;
  const auto refuse = [&](std::string_view why) {
    Throw(ErrorKind::kInvalidConfig, "cannot determine the root disk of sandbox '{}': {} {}",
          base::Quoted(record.name), path.native(), why);
  };
  const base::UniqueFd parent = base::OpenDirectory(path.parent_path());
  const base::Entry entry = base::OpenEntryAt(parent.get(), path.filename());
  const auto text = entry.type == base::EntryType::kRegularFile
                        ? base::ReadAll(entry.fd.get(), kMaxConfigBytes)
                        : std::nullopt;
  if (!text) refuse(fmt::format("must be a regular file of at most {} bytes", kMaxConfigBytes));
  Json journal;
  try {
    journal = base::ParseJson(*text);
  } catch (const std::invalid_argument& e) {
    refuse(fmt::format("is malformed: {}", e.what()));
  }
  const Json& layers = Member(journal, "layers");
  if (!layers.is_array() || layers.empty()) refuse("lists no layers");
  record.upper.reset();
  record.backing.clear();
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    const Json& file = Member(*layer, "path");
    const Json& format = Member(*layer, "format");
    if (!file.is_string() || (format != "raw" && format != "qcow2")) {
      refuse("has a layer without a path or with an unknown format");
    }
    std::filesystem::path place = file.get<std::string>();
    const std::string name = place.filename();
    if (!base::IsPlainFileName(name)) refuse("has a layer whose path names no file");
    // The home may have been moved since.
    if (place.parent_path().filename() == dir.filename()) place = dir / name;
    const Disk disk{place, format == "raw" ? DiskFormat::kRaw : DiskFormat::kQcow2, "ext4"};
    if (record.upper) {
      record.backing.push_back({name, disk});
    } else {
      record.upper = disk;
    }
  }
}

// Reads the image, the root disk and the labels from the configuration JSON into the record.
void ReadConfig(const Json& config, const std::filesystem::path& dir, SandboxRecord& record) {
  const Json& oci = Member(Member(config, "image"), "Oci");
  const Json& reference = oci.is_string() ? oci : Member(oci, "reference");
  const Json& digest = Member(config, "manifest_digest");
  if (reference.is_string() && digest.is_string()) {
    record.image = Image{reference.get<std::string>(), digest.get<std::string>()};
  }
  const Json& kind = Member(Member(oci, "root_disk"), "kind");
  if (!oci.is_null() && (kind.is_null() || kind == "managed")) {
    record.upper = Disk{dir / disk::kRawUpperFile, DiskFormat::kRaw, "ext4"};
    ReadRootDisk(dir, record);
  }
  const Json& labels = Member(config, "labels");
  if (!labels.is_object()) return;
  for (const auto& [key, value] : labels.items()) {
    if (value.is_string()) record.labels.emplace(key, value.get<std::string>());
  }
}

constexpr const char* kSelect =
    "SELECT id, name, status, config, created_at, updated_at FROM sandbox ";

SandboxRecord ReadRow(const Database& db, const Statement& row,
                      const std::filesystem::path& sandboxes_dir) {
  SandboxRecord record;
  record.name = row.Text(1);
  record.status = ParseStatus(record.name, row.Text(2));
  if (HasProcess(record.status)) {
    const RunProcess run = ProcessOf(db, row.Integer(0));
    if (run.is_gone && !IsDiskInUse(sandboxes_dir, record.name)) {
      record.status = SandboxStatus::kCrashed;
    }
    record.started_at = run.started_at;
  }
  record.config_json = row.Text(3);
  if (record.config_json.size() > kMaxConfigBytes) {
    Throw(ErrorKind::kInvalidConfig,
          "the configuration of sandbox '{}' has more than {} bytes; remove the sandbox with 'msb "
          "remove --force'",
          base::Quoted(record.name), kMaxConfigBytes);
  }
  record.created_at = base::ParseIndexTime(row.Text(4)).value_or(base::UtcTime{}).ToTimePoint();
  record.updated_at = base::ParseIndexTime(row.Text(5)).value_or(base::UtcTime{}).ToTimePoint();
  // The name becomes part of a path, so only a plain file name is used.
  if (!base::IsPlainFileName(record.name)) return record;
  try {
    ReadConfig(base::ParseJson(record.config_json), sandboxes_dir / record.name, record);
  } catch (const std::invalid_argument& e) {
    Throw(ErrorKind::kInvalidConfig,
          "the configuration of sandbox '{}' is malformed: {}; remove the sandbox with 'msb remove "
          "--force'",
          base::Quoted(record.name), e.what());
  }
  return record;
}

[[noreturn]] void NotFound(const std::string& name, const std::filesystem::path& database) {
  Throw(ErrorKind::kSandboxNotFound, "no sandbox '{}' in {}", base::Quoted(name),
        database.native());
}

void RefuseRunning(const std::string& name, SandboxStatus status) {
  if (!HasProcess(status)) return;
  Throw(ErrorKind::kSandboxStillRunning, "sandbox '{}' is {}; stop it first", base::Quoted(name),
        ToString(status));
}

// How long a sandbox that is being replaced may take to shut down.
constexpr auto kReplacedSandboxTimeout = std::chrono::seconds(10);
// How long the kernel and the runtime may take to finish with a sandbox that was ended.
constexpr auto kEndGrace = std::chrono::seconds(30);
// How long a VM that is being booted may take until it has a process.
constexpr auto kBootPatience = std::chrono::seconds(2);
constexpr auto kPollInterval = std::chrono::milliseconds(20);

// Returns true if the directory holds a sandbox of the local or qemu backend.
bool HasDirectoryRecord(int dir) {
  return base::TypeAt(dir, std::string(kRecordFile)) != base::EntryType::kAbsent;
}

}  // namespace

SandboxRecord MicrosandboxBackend::Inspect(const Context& ctx, const std::string& name) {
  ctx.Check();
  if (!base::StampOf(database_)) NotFound(name, database_);
  // Not read-only: SQLite must be able to recover the write-ahead log of a crashed runtime.
  Database db(database_, Database::Mode::kReadWrite);
  db.Bind(ctx);
  db.RequireTable("sandbox");
  Statement row(db, std::string(kSelect) + "WHERE name = ?1");
  row.Bind(1, std::string_view(name));
  if (!row.Step()) NotFound(name, database_);
  return ReadRow(db, row, sandboxes_dir_);
}

std::vector<SandboxRecord> MicrosandboxBackend::List(const Context& ctx) {
  ctx.Check();
  std::vector<SandboxRecord> sandboxes;
  if (!base::StampOf(database_)) return sandboxes;
  Database db(database_, Database::Mode::kReadWrite);
  db.Bind(ctx);
  db.RequireTable("sandbox");
  for (Statement row(db, kSelect); row.Step();) {
    ctx.Check();
    try {
      sandboxes.push_back(ReadRow(db, row, sandboxes_dir_));
    } catch (const Error& e) {
      log_(e.what());
    }
  }
  return sandboxes;
}

std::optional<MicrosandboxBackend::State> MicrosandboxBackend::TryStateOf(
    const Context& ctx, const std::string& name) const {
  ctx.Check();
  if (!base::StampOf(database_)) return std::nullopt;
  Database db(database_, Database::Mode::kReadWrite);
  db.Bind(ctx);
  db.RequireTable("sandbox");
  Statement row(db, "SELECT id, status FROM sandbox WHERE name = ?1");
  row.Bind(1, std::string_view(name));
  if (!row.Step()) return std::nullopt;
  State state{.status = ParseStatus(name, row.Text(1))};
  if (!HasProcess(state.status)) return state;
  RunProcess process = ProcessOf(db, row.Integer(0));
  if (process.is_gone && !IsDiskInUse(sandboxes_dir_, name)) {
    state.status = SandboxStatus::kCrashed;
  }
  state.process = process.identity;
  return state;
}

MicrosandboxBackend::State MicrosandboxBackend::StateOf(const Context& ctx,
                                                        const std::string& name) const {
  const auto state = TryStateOf(ctx, name);
  if (!state) NotFound(name, database_);
  return *state;
}

SandboxRecord MicrosandboxBackend::Create(const Context& ctx, const SandboxSpec& spec) {
  if (const auto dir = base::TryOpenDirectory(sandboxes_dir_ / spec.name);
      dir && HasDirectoryRecord(dir.get())) {
    Throw(ErrorKind::kSandboxAlreadyExists,
          "{} is a sandbox of another backend, so it is not replaced; choose another name",
          (sandboxes_dir_ / spec.name).native());
  }
  const auto existing = TryStateOf(ctx, spec.name);
  if (existing && !spec.replace) {
    Throw(ErrorKind::kSandboxAlreadyExists,
          "sandbox '{}' already exists; remove it, or replace it with WithReplace",
          base::Quoted(spec.name));
  }
  runtime_.CheckCanCreate(ctx, spec);  // Before the old sandbox is removed.
  if (existing) {
    Stop(ctx, spec.name, kReplacedSandboxTimeout);
    Remove(ctx, spec.name);
  }
  const base::UniqueFd sandboxes = base::OpenDirectoryUnlessAbsent(sandboxes_dir_);
  const bool had_directory =
      sandboxes && base::IsPlainFileName(spec.name) &&
      base::OpenEntryAt(sandboxes.get(), spec.name).type != base::EntryType::kAbsent;
  const std::string mark = base::RandomSuffix();
  try {
    runtime_.Create(ctx, spec, mark);
    return Inspect(ctx, spec.name);
  } catch (const Error& e) {
    // kSandboxAlreadyExists means that another call created the sandbox first: it must stay.
    if (e.kind() != ErrorKind::kSandboxAlreadyExists) Abandon(spec.name, mark, had_directory);
    throw;
  }
}

bool MicrosandboxBackend::IsOfAnother(const Context& ctx, const std::string& name,
                                      const std::string& mark) const {
  // A VM that is about to boot has no process yet whose environment could be read.
  const Context patience = ctx.WithTimeout(kBootPatience);
  std::optional<State> state = TryStateOf(ctx, name);
  while (state && state->status == SandboxStatus::kStarting && !state->process &&
         !patience.Done()) {
    std::this_thread::sleep_for(kPollInterval);
    state = TryStateOf(ctx, name);
  }
  return state && state->process &&
         !base::HasInEnvironment(*state->process, fmt::format("{}={}", kMark, mark));
}

void MicrosandboxBackend::Abandon(const std::string& name, const std::string& mark,
                                  bool had_directory) {
  const Context ctx = Context::Background().WithTimeout(kEndGrace);
  try {
    if (IsOfAnother(ctx, name, mark)) return;
    if (TryStateOf(ctx, name)) runtime_.ForceRemove(ctx, name);
    if (TryStateOf(ctx, name)) {
      log_(
          fmt::format("sandbox '{}' could not be created completely, and could not be removed; "
                      "remove it with 'msb remove --force'",
                      name));
    } else if (!had_directory && base::IsPlainFileName(name)) {
      // Another backend may have made a sandbox of this name meanwhile.
      auto left = base::LockedDirectory::Open(ctx, sandboxes_dir_, name);
      if (left && !HasDirectoryRecord(left.fd())) {
        left.Hide();
        left.Delete(ctx);
      }
    }
  } catch (const Error& e) {
    log_(fmt::format("sandbox '{}' could not be created, and parts of it remain: {}", name,
                     e.what()));
  }
}

SandboxRecord MicrosandboxBackend::Start(const Context& ctx, const std::string& name,
                                         bool /*detached*/) {
  RefuseRunning(name, StateOf(ctx, name).status);
  const std::string mark = base::RandomSuffix();
  try {
    runtime_.Start(ctx, name, mark);
    return Inspect(ctx, name);
  } catch (const Error& e) {
    // kSandboxStillRunning means that another call started the sandbox first: it must keep running.
    if (e.kind() != ErrorKind::kSandboxStillRunning) EndFailedStart(name, mark);
    throw;
  }
}

void MicrosandboxBackend::EndFailedStart(const std::string& name, const std::string& mark) {
  const Context ctx = Context::Background().WithTimeout(kEndGrace);
  try {
    if (!IsOfAnother(ctx, name, mark)) Kill(ctx, name);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kSandboxNotFound) return;
    log_(fmt::format("sandbox '{}' could not be started, but may be running: {}", name, e.what()));
  }
}

void MicrosandboxBackend::Stop(const Context& ctx, const std::string& name,
                               std::chrono::milliseconds timeout) {
  const State before = StateOf(ctx, name);
  if (!HasProcess(before.status)) return;
  try {
    if (timeout.count() > 0) {
      runtime_.Stop(ctx, name, timeout);
    } else {
      runtime_.Kill(ctx, name);
    }
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled) throw;
    // The sandbox may have ended by itself, or have been removed, for which StateOf throws. If it
    // still runs, the guest has not shut down in time, or cannot.
    if (HasProcess(StateOf(ctx, name).status)) {
      if (timeout.count() <= 0) throw;
      runtime_.Kill(ctx, name);
    }
  }
  AwaitStopped(ctx, name, before);
}

void MicrosandboxBackend::Kill(const Context& ctx, const std::string& name) {
  Stop(ctx, name, std::chrono::milliseconds::zero());
}

void MicrosandboxBackend::AwaitStopped(const Context& ctx, const std::string& name,
                                       const State& before) const {
  const Context limited = ctx.WithTimeout(kEndGrace);
  const auto check = [&](std::string_view what) {
    ctx.Check();
    if (limited.Done()) {
      Throw(ErrorKind::kIO,
            "the runtime reported that it stopped sandbox '{}', but {}; try again, or kill it",
            base::Quoted(name), what);
    }
  };
  for (;;) {
    const auto now = TryStateOf(ctx, name);
    if (!now || !HasProcess(now->status)) break;
    check(fmt::format("it is still {}", ToString(now->status)));
    std::this_thread::sleep_for(kPollInterval);
  }
  // The status may be recorded before the process ends, and until then it has the disk open.
  const auto process = before.process ? base::ProcessHandle::Open(*before.process) : std::nullopt;
  if (process && !process->AwaitEnd(limited)) {
    check(fmt::format("its process {} is still running", before.process->pid));
  }
}

void MicrosandboxBackend::Detach(const Context& ctx, const std::string& name) {
  StateOf(ctx, name);
}

void MicrosandboxBackend::Remove(const Context& ctx, const std::string& name) {
  RefuseRunning(name, StateOf(ctx, name).status);
  runtime_.Remove(ctx, name);
  if (TryStateOf(Context::Background(), name)) {
    Throw(ErrorKind::kIO,
          "the runtime reported that it removed sandbox '{}', but it still exists; remove it with "
          "'msb remove --force'",
          base::Quoted(name));
  }
}

ExecResult MicrosandboxBackend::Exec(const Context& ctx, const std::string& name,
                                     const std::vector<std::string>& command,
                                     const ExecOptions& options) {
  // The runtime would start a sandbox that does not run.
  const SandboxStatus status = StateOf(ctx, name).status;
  if (status != SandboxStatus::kRunning) {
    Throw(ErrorKind::kIO, "cannot run a command in sandbox '{}', which is {}; start it first",
          base::Quoted(name), ToString(status));
  }
  return runtime_.Exec(ctx, name, command, options);
}

std::filesystem::path MicrosandboxBackend::Console(const Context& ctx, const std::string& name) {
  StateOf(ctx, name);
  if (!base::IsPlainFileName(name)) NotFound(name, database_);
  return sandboxes_dir_ / name / "logs" / "kernel.log";
}

}  // namespace msb::vmm
