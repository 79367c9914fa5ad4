// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/directory_record.h"

#include <fmt/core.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "src/base/fields.h"
#include "src/base/json.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/time.h"

namespace msb::vmm {
namespace {

using base::Fields;
using base::Json;
using base::Malformed;
using base::MalformedType;

constexpr const char* kSchema = "msb.sandbox/1";

std::string FormatTime(std::chrono::system_clock::time_point time) {
  return base::FormatDescriptorTime(base::UtcTime::From(time));
}

std::chrono::system_clock::time_point ReadTime(const Fields& fields, std::string_view field) {
  const std::string text = fields.Text(field);
  const auto time = base::ParseRfc3339(text);
  if (!time) {
    Malformed(fields.PathOf(field),
              fmt::format("must be an RFC 3339 time, but is '{}'", base::Quoted(text)));
  }
  return time->ToTimePoint();
}

std::string TooLarge(std::uint64_t value, std::uint64_t max) {
  return fmt::format("must be at most {}, but is {}", max, value);
}

std::uint32_t ReadCount(const Fields& fields, std::string_view field) {
  constexpr std::uint32_t kMax = std::numeric_limits<std::uint32_t>::max();
  const std::uint64_t value = fields.Size(field);
  if (value > kMax) Malformed(fields.PathOf(field), TooLarge(value, kMax));
  return static_cast<std::uint32_t>(value);
}

void CheckFileName(const std::string& field, const std::string& name) {
  if (base::IsPlainFileName(name)) return;
  Malformed(field, fmt::format("must be a plain file name, but is '{}'", base::Quoted(name)));
}

// Records of earlier releases have only the required fields of a process.
std::optional<Runner> ReadProcess(const Fields& root) {
  if (root.IsNull("process")) return std::nullopt;
  const Fields process(root.At("process"), "process", {"pid", "start_ticks", "boot_id"},
                       Fields::Others::kIgnore, {"pid_namespace", "host", "lock", "lock_domain"});
  const std::uint64_t pid = process.Size("pid");
  constexpr std::uint64_t kMaxPid = std::numeric_limits<pid_t>::max();
  if (pid > kMaxPid) Malformed(process.PathOf("pid"), TooLarge(pid, kMaxPid));
  Runner runner;
  runner.pid = static_cast<pid_t>(pid);
  runner.start_ticks = process.Size("start_ticks");
  runner.boot_id = process.AnyText("boot_id");
  if (process.Has("pid_namespace")) runner.pid_namespace = process.Size("pid_namespace");
  if (process.Has("host")) runner.host = process.Text("host");
  if (process.Has("lock")) {
    runner.lock_file = process.Text("lock");
    CheckFileName(process.PathOf("lock"), runner.lock_file);
    if (process.Has("lock_domain")) runner.lock_domain = process.Text("lock_domain");
  }
  return runner;
}

Json WriteProcess(const Runner& runner) {
  Json json = {
      {"pid", runner.pid}, {"start_ticks", runner.start_ticks}, {"boot_id", runner.boot_id}};
  if (runner.pid_namespace != 0) json["pid_namespace"] = runner.pid_namespace;
  if (!runner.host.empty()) json["host"] = runner.host;
  if (!runner.lock_file.empty()) {
    json["lock"] = runner.lock_file;
    if (!runner.lock_domain.empty()) json["lock_domain"] = runner.lock_domain;
  }
  return json;
}

std::string ReadFile(const Fields& fields) {
  std::string file = fields.Text("file");
  CheckFileName(fields.PathOf("file"), file);
  return file;
}

Disk ReadUpper(const Fields& root, const std::filesystem::path& dir) {
  const Fields upper(root.At("upper"), "upper", {"file", "format", "fstype"},
                     Fields::Others::kIgnore);
  return {dir / ReadFile(upper), upper.Format("format"), upper.Text("fstype")};
}

std::vector<BackingFile> ReadBacking(const Fields& parent, const std::filesystem::path& dir) {
  const Json& list = parent.At("backing");
  if (!list.is_array()) MalformedType(parent.PathOf("backing"), "an array", list);
  std::vector<BackingFile> backing;
  for (const Json& element : list) {
    const Fields fields(element, parent.PathOf("backing"), {"file", "format"},
                        Fields::Others::kIgnore);
    const std::string file = ReadFile(fields);
    backing.push_back({file, {dir / file, fields.Format("format"), {}}});
  }
  return backing;
}

std::optional<PendingSeal> ReadSeal(const Fields& root, const std::filesystem::path& dir) {
  if (root.IsNull("seal")) return std::nullopt;
  const Fields fields(root.At("seal"), "seal", {"file", "digest", "artifact"},
                      Fields::Others::kIgnore);
  PendingSeal seal{.file = ReadFile(fields),
                   .digest = fields.Digest("digest", "sha256"),
                   .artifact = fields.Text("artifact")};
  if (fields.Has("backing")) seal.backing = ReadBacking(fields, dir);
  return seal;
}

std::optional<PendingSwitch> ReadSwitch(const Fields& root) {
  if (!root.Has("live") || root.IsNull("live")) return std::nullopt;
  const Fields fields(root.At("live"), "live", {"overlay"}, Fields::Others::kIgnore,
                      {"digest", "artifact", "file"});
  PendingSwitch pending{.overlay = fields.Text("overlay")};
  CheckFileName(fields.PathOf("overlay"), pending.overlay);
  if (fields.Has("digest")) {
    pending.digest = fields.Digest("digest", "sha256");
    pending.artifact = fields.Text("artifact");
    pending.file = ReadFile(fields);
  }
  return pending;
}

// Refuses a pending switch that does not fit the rest of the record.
void CheckSwitch(const PendingSwitch& pending, const std::string& upper,
                 const std::optional<PendingSeal>& seal) {
  if (seal) Malformed("live", "must be absent if a seal is pending");
  const bool is_upper = pending.overlay == upper;
  if (is_upper == !pending.digest.empty()) return;
  Malformed("live.overlay", fmt::format("must {}be the upper, but is '{}'", is_upper ? "not " : "",
                                        pending.overlay));
}

Json WriteBacking(const std::vector<BackingFile>& backing) {
  Json list = Json::array();
  for (const BackingFile& file : backing) {
    list.push_back({{"file", file.name}, {"format", ToString(file.disk.format)}});
  }
  return list;
}

Json WriteSeal(const PendingSeal& seal) {
  Json json = {{"file", seal.file}, {"digest", seal.digest}, {"artifact", seal.artifact.native()}};
  if (seal.backing) json["backing"] = WriteBacking(*seal.backing);
  return json;
}

Json WriteSwitch(const PendingSwitch& pending) {
  Json json = {{"overlay", pending.overlay}};
  if (pending.digest.empty()) return json;
  json["digest"] = pending.digest;
  json["artifact"] = pending.artifact.native();
  json["file"] = pending.file;
  return json;
}

// Returns an optional field, empty if it is missing. Rejects a NUL, since the text becomes an
// argument of a program.
std::string OptionalText(const Fields& fields, std::string_view field) {
  std::string text = fields.Has(field) ? fields.Text(field) : std::string();
  if (text.find('\0') != std::string::npos) {
    Malformed(fields.PathOf(field), "must not contain a NUL byte");
  }
  return text;
}

// Returns an optional absolute path, which is valid for a process in any directory.
std::filesystem::path ReadPath(const Fields& fields, std::string_view field) {
  std::filesystem::path path = OptionalText(fields, field);
  if (!path.empty() && !path.is_absolute()) {
    Malformed(fields.PathOf(field),
              fmt::format("must be an absolute path, but is '{}'", base::Quoted(path.native())));
  }
  return path;
}

std::vector<std::string> ReadTexts(const Fields& fields, std::string_view field) {
  if (!fields.Has(field)) return {};
  std::vector<std::string> texts = fields.TextList(field);
  for (const std::string& text : texts) {
    if (text.find('\0') != std::string::npos) {
      Malformed(fields.PathOf(field), "must not contain a NUL byte");
    }
  }
  return texts;
}

// Records of earlier releases have no machine settings.
QemuConfig ReadMachine(const Fields& root, const std::string& field) {
  QemuConfig machine;
  if (!root.Has(field)) return machine;
  const Fields fields(root.At(field), field, {}, Fields::Others::kIgnore,
                      {"kernel", "initrd", "append", "cpus", "memory_mib", "extra_arguments"});
  machine.kernel = ReadPath(fields, "kernel");
  machine.initrd = ReadPath(fields, "initrd");
  machine.append = OptionalText(fields, "append");
  if (fields.Has("memory_mib")) machine.memory_mib = ReadCount(fields, "memory_mib");
  if (fields.Has("cpus")) machine.cpus = ReadCount(fields, "cpus");
  machine.extra_arguments = ReadTexts(fields, "extra_arguments");
  return machine;
}

// Returns an object with the settings that are set.
Json WriteMachine(const QemuConfig& machine) {
  Json object = Json::object();
  if (!machine.kernel.empty()) object["kernel"] = machine.kernel.native();
  if (!machine.initrd.empty()) object["initrd"] = machine.initrd.native();
  if (!machine.append.empty()) object["append"] = machine.append;
  if (machine.memory_mib != 0) object["memory_mib"] = machine.memory_mib;
  if (machine.cpus != 0) object["cpus"] = machine.cpus;
  if (!machine.extra_arguments.empty()) object["extra_arguments"] = machine.extra_arguments;
  return object;
}

DirectoryRecord Read(const Json& document, const std::filesystem::path& dir) {
  const Fields root(
      document, "",
      {"schema", "status", "backend", "process", "image", "upper", "backing", "snapshot", "seal",
       "labels", "cpus", "memory_mib", "created_at", "started_at", "updated_at"},
      Fields::Others::kIgnore, {"machine", "machine_defaults", "snapshot_path", "live"});
  root.Expect("schema", kSchema);
  const Fields image(root.At("image"), "image", {"ref", "manifest_digest"},
                     Fields::Others::kIgnore);
  DirectoryRecord record;
  SandboxRecord& sandbox = record.sandbox;
  sandbox.name = dir.filename().native();
  const std::string status = root.Text("status");
  if (status != "running" && status != "stopped" && status != "crashed") {
    Malformed("status", fmt::format("must be running, stopped or crashed, but is '{}'",
                                    base::Quoted(status)));
  }
  sandbox.status = status == "running"   ? SandboxStatus::kRunning
                   : status == "stopped" ? SandboxStatus::kStopped
                                         : SandboxStatus::kCrashed;
  record.process = ReadProcess(root);
  sandbox.image = Image{image.Text("ref"), image.Text("manifest_digest")};
  sandbox.upper = ReadUpper(root, dir);
  sandbox.backing = ReadBacking(root, dir);
  sandbox.sealable = sandbox.upper->format == DiskFormat::kQcow2;
  record.seal = ReadSeal(root, dir);
  record.live = ReadSwitch(root);
  if (record.live) CheckSwitch(*record.live, sandbox.upper->path.filename(), record.seal);
  record.backend = root.Text("backend");
  sandbox.snapshot_digest = root.OptionalDigest("snapshot", "sha256");
  sandbox.snapshot_path = ReadPath(root, "snapshot_path");
  sandbox.labels = root.TextMap("labels");
  record.cpus = ReadCount(root, "cpus");
  record.memory_mib = ReadCount(root, "memory_mib");
  record.machine = ReadMachine(root, "machine");
  record.machine_defaults = ReadMachine(root, "machine_defaults");
  sandbox.created_at = ReadTime(root, "created_at");
  sandbox.started_at = ReadTime(root, "started_at");
  sandbox.updated_at = ReadTime(root, "updated_at");
  return record;
}

}  // namespace

void CheckArtifactPath(const std::filesystem::path& artifact) {
  if (base::IsUtf8(artifact.native())) return;
  base::Throw(ErrorKind::kInvalidArgument, "snapshot path '{}' is not UTF-8",
              base::Quoted(artifact.native()));
}

void SetSnapshotPath(SandboxRecord& sandbox, const base::Home& home,
                     const std::filesystem::path& artifact) {
  const bool is_outside = !base::IsBeneath(artifact, home.path());
  // JSON holds UTF-8 only.
  sandbox.snapshot_path.clear();
  if (is_outside && base::IsUtf8(artifact.native())) sandbox.snapshot_path = artifact;
}

void DirectoryRecord::Judge(int dir) {
  if (sandbox.status != SandboxStatus::kRunning || !process) return;
  if (StateOf(*process, dir, sandbox.upper->path.filename()) == RunState::kEnded) {
    sandbox.status = SandboxStatus::kCrashed;
  } else {
    sandbox.runs_on = Describe(*process);
  }
}

std::string DirectoryRecord::Write() {
  sandbox.updated_at = std::chrono::system_clock::now();
  Json document = {
      {"schema", kSchema},
      {"status", ToString(sandbox.status)},
      {"backend", backend},
      {"process", nullptr},
      {"image", {{"ref", sandbox.image->ref}, {"manifest_digest", sandbox.image->manifest_digest}}},
      {"upper",
       {{"file", sandbox.upper->path.filename().native()},
        {"format", ToString(sandbox.upper->format)},
        {"fstype", sandbox.upper->fstype}}},
      {"backing", WriteBacking(sandbox.backing)},
      {"snapshot", nullptr},
      {"seal", nullptr},
      {"labels", sandbox.labels},
      {"cpus", cpus},
      {"memory_mib", memory_mib},
      {"created_at", FormatTime(sandbox.created_at)},
      {"started_at", FormatTime(sandbox.started_at)},
      {"updated_at", FormatTime(sandbox.updated_at)}};
  if (process) document["process"] = WriteProcess(*process);
  if (sandbox.snapshot_digest) document["snapshot"] = *sandbox.snapshot_digest;
  if (!sandbox.snapshot_path.empty()) document["snapshot_path"] = sandbox.snapshot_path.native();
  if (seal) document["seal"] = WriteSeal(*seal);
  if (live) document["live"] = WriteSwitch(*live);
  for (const auto& [field, settings] :
       {std::pair("machine", &machine), std::pair("machine_defaults", &machine_defaults)}) {
    if (Json object = WriteMachine(*settings); !object.empty()) document[field] = std::move(object);
  }
  std::string json;
  base::AppendCanonicalJson(json, document);
  return json;
}

DirectoryRecord DirectoryRecord::Parse(std::string_view json, const std::filesystem::path& dir) {
  try {
    DirectoryRecord record = Read(base::ParseJson(json), dir);
    record.sandbox.config_json = json;
    return record;
  } catch (const std::invalid_argument& e) {
    base::Throw(
        ErrorKind::kInvalidConfig,
        "malformed record of sandbox {}: {}; restore its sandbox.json, or remove the sandbox",
        dir.native(), e.what());
  }
}

}  // namespace msb::vmm
