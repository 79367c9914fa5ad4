#include "src/vmm/microsandbox_backend.h"

#include <array>
#include <chrono>
#include <limits>
#include <optional>
#include <stdexcept>
#include <utility>

#include "src/artifact/manifest.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/process.h"
#include "src/base/sqlite.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/time.h"

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
  Throw(ErrorKind::kUnsupportedOperation, "sandbox '{}' has a status not known here: '{}'",
        base::Quoted(name), base::Quoted(status));
}

bool HasProcess(SandboxStatus status) {
  return status == SandboxStatus::kStarting || status == SandboxStatus::kRunning ||
         status == SandboxStatus::kDraining || status == SandboxStatus::kPaused;
}

// True if it is certain that the process of the sandbox's last run has ended. The row has its pid
// and when it was started. A process of that pid that is younger is another one, unless the clock
// was set meanwhile; so it must also be another program.
bool IsProcessGone(const Database& db, std::int64_t sandbox_id) {
  constexpr auto kClockSlack = std::chrono::seconds(10);
  Statement run(db,
                "SELECT pid, started_at FROM run WHERE sandbox_id = ?1 ORDER BY id DESC LIMIT 1");
  run.Bind(1, sandbox_id);
  if (!run.Step()) return false;
  const auto pid = run.OptionalInteger(0);
  if (!pid) return false;
  if (*pid <= 0 || *pid > std::numeric_limits<pid_t>::max()) return true;
  const auto process = base::ProcessIdentity::Of(static_cast<pid_t>(*pid));
  if (!process) return true;
  if (process->start_ticks == 0 || process->program.starts_with("msb")) return false;
  const auto started = base::ParseIndexTime(run.Text(1));
  return started && process->StartTime() > started->ToTimePoint() + kClockSlack;
}

// object.key, or null if object is none or has no such key.
const Json& Member(const Json& object, const char* key) {
  static const Json null;
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

// What the config JSON says of the image and the root disk.
void ReadConfig(const Json& config, const std::filesystem::path& dir, SandboxRecord& record) {
  const Json& oci = Member(Member(config, "image"), "Oci");
  const Json& reference = oci.is_string() ? oci : Member(oci, "reference");
  const Json& digest = Member(config, "manifest_digest");
  if (reference.is_string() && digest.is_string()) {
    record.image = Image{reference.get<std::string>(), digest.get<std::string>()};
  }
  const Json& kind = Member(Member(oci, "root_disk"), "kind");
  if (!oci.is_null() && (kind.is_null() || kind == "managed")) {
    record.upper = Disk{dir / artifact::kRawUpperFile, DiskFormat::kRaw, "ext4"};
  }
  const Json& labels = Member(config, "labels");
  if (!labels.is_object()) return;
  for (const auto& [key, value] : labels.items()) {
    if (value.is_string()) record.labels.emplace(key, value.get<std::string>());
  }
}

constexpr std::size_t kMaxConfigBytes = 1 << 20;

constexpr const char* kSelect =
    "SELECT id, name, status, config, created_at, updated_at FROM sandbox ";

SandboxRecord ReadRow(const Database& db, const Statement& row,
                      const std::filesystem::path& sandboxes_dir) {
  SandboxRecord record;
  record.name = row.Text(1);
  record.status = ParseStatus(record.name, row.Text(2));
  if (HasProcess(record.status) && IsProcessGone(db, row.Integer(0))) {
    record.status = SandboxStatus::kCrashed;
  }
  record.config_json = row.Text(3);
  if (record.config_json.size() > kMaxConfigBytes) {
    Throw(ErrorKind::kInvalidConfig, "the configuration of sandbox '{}' has more than {} bytes",
          base::Quoted(record.name), kMaxConfigBytes);
  }
  record.created_at = base::ParseIndexTime(row.Text(4)).value_or(base::UtcTime{}).ToTimePoint();
  record.updated_at = base::ParseIndexTime(row.Text(5)).value_or(base::UtcTime{}).ToTimePoint();
  // A name becomes part of a path.
  if (!base::IsPlainFileName(record.name)) return record;
  try {
    ReadConfig(base::ParseJson(record.config_json), sandboxes_dir / record.name, record);
  } catch (const std::invalid_argument& e) {
    Throw(ErrorKind::kInvalidConfig, "the configuration of sandbox '{}' is malformed: {}",
          base::Quoted(record.name), e.what());
  }
  return record;
}

[[noreturn]] void NotAvailable(std::string_view operation, const std::string& name) {
  Throw(ErrorKind::kUnsupportedOperation,
        "cannot {} sandbox '{}': the microsandbox backend only reads sandboxes so far; use the "
        "msb command",
        operation, base::Quoted(name));
}

}  // namespace

SandboxRecord MicrosandboxBackend::Inspect(const Context& ctx, const std::string& name) {
  ctx.Check();
  if (!base::StampOf(database_)) {
    Throw(ErrorKind::kSandboxNotFound, "no sandbox '{}': there is no {}", base::Quoted(name),
          database_.native());
  }
  // Not read-only: SQLite must be able to recover the write-ahead log of a crashed runtime.
  const Database db(database_, Database::Mode::kReadWrite);
  db.RequireTable("sandbox");
  Statement row(db, std::string(kSelect) + "WHERE name = ?1");
  row.Bind(1, std::string_view(name));
  if (!row.Step()) {
    Throw(ErrorKind::kSandboxNotFound, "no sandbox '{}' in {}", base::Quoted(name),
          database_.native());
  }
  return ReadRow(db, row, sandboxes_dir_);
}

std::vector<SandboxRecord> MicrosandboxBackend::List(const Context& ctx) {
  ctx.Check();
  std::vector<SandboxRecord> sandboxes;
  if (!base::StampOf(database_)) return sandboxes;
  const Database db(database_, Database::Mode::kReadWrite);
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

SandboxRecord MicrosandboxBackend::Create(const Context& /*ctx*/, const SandboxSpec& spec) {
  NotAvailable("create", spec.name);
}

SandboxRecord MicrosandboxBackend::Start(const Context& /*ctx*/, const std::string& name,
                                         bool /*detached*/) {
  NotAvailable("start", name);
}

void MicrosandboxBackend::Stop(const Context& /*ctx*/, const std::string& name,
                               std::chrono::milliseconds /*timeout*/) {
  NotAvailable("stop", name);
}

void MicrosandboxBackend::Kill(const Context& /*ctx*/, const std::string& name) {
  NotAvailable("kill", name);
}

void MicrosandboxBackend::Detach(const Context& /*ctx*/, const std::string& name) {
  NotAvailable("detach", name);
}

void MicrosandboxBackend::Remove(const Context& /*ctx*/, const std::string& name) {
  NotAvailable("remove", name);
}

}  // namespace msb::vmm
