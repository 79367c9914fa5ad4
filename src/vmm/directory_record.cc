#include "src/vmm/directory_record.h"

#include <limits>
#include <stdexcept>

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

constexpr const char* kSchema = "msb.sandbox/1";

std::string FormatTime(std::chrono::system_clock::time_point time) {
  return base::FormatDescriptorTime(base::UtcTime::From(time));
}

std::chrono::system_clock::time_point ReadTime(const Fields& fields, std::string_view field) {
  const auto time = base::ParseRfc3339(fields.Text(field));
  if (!time) Malformed(fields.PathOf(field), "is not RFC 3339");
  return time->ToTimePoint();
}

std::uint32_t ReadCount(const Fields& fields, std::string_view field) {
  const std::uint64_t value = fields.Size(field);
  if (value > std::numeric_limits<std::uint32_t>::max()) {
    Malformed(fields.PathOf(field), "is too large");
  }
  return static_cast<std::uint32_t>(value);
}

std::optional<base::ProcessIdentity> ReadProcess(const Fields& root) {
  if (root.IsNull("process")) return std::nullopt;
  const Fields process(root.At("process"), "process", {"pid", "start_ticks", "boot_id"},
                       Fields::Others::kIgnore);
  const std::uint64_t pid = process.Size("pid");
  if (pid > std::numeric_limits<pid_t>::max()) Malformed(process.PathOf("pid"), "is too large");
  return base::ProcessIdentity{.pid = static_cast<pid_t>(pid),
                               .start_ticks = process.Size("start_ticks"),
                               .boot_id = process.AnyText("boot_id")};
}

std::string ReadFile(const Fields& fields) {
  std::string file = fields.Text("file");
  if (!base::IsPlainFileName(file)) Malformed(fields.PathOf("file"), "is not one plain file name");
  return file;
}

Disk ReadUpper(const Fields& root, const std::filesystem::path& dir) {
  const Fields upper(root.At("upper"), "upper", {"file", "format", "fstype"},
                     Fields::Others::kIgnore);
  return {dir / ReadFile(upper), upper.Format("format"), upper.Text("fstype")};
}

std::vector<BackingFile> ReadBacking(const Fields& root, const std::filesystem::path& dir) {
  const Json& list = root.At("backing");
  if (!list.is_array()) Malformed("backing", "is no array");
  std::vector<BackingFile> backing;
  for (const Json& element : list) {
    const Fields fields(element, "backing", {"file", "format"}, Fields::Others::kIgnore);
    const std::string file = ReadFile(fields);
    backing.push_back({file, {dir / file, fields.Format("format"), {}}});
  }
  return backing;
}

std::optional<PendingSeal> ReadSeal(const Fields& root) {
  if (root.IsNull("seal")) return std::nullopt;
  const Fields seal(root.At("seal"), "seal", {"file", "digest", "artifact"},
                    Fields::Others::kIgnore);
  return PendingSeal{ReadFile(seal), seal.Digest("digest", "sha256"), seal.Text("artifact")};
}

DirectoryRecord Read(const Json& document, const std::filesystem::path& dir) {
  const Fields root(
      document, "",
      {"schema", "status", "backend", "process", "image", "upper", "backing", "snapshot", "seal",
       "labels", "cpus", "memory_mib", "created_at", "started_at", "updated_at"},
      Fields::Others::kIgnore);
  root.Expect("schema", kSchema);
  const Fields image(root.At("image"), "image", {"ref", "manifest_digest"},
                     Fields::Others::kIgnore);
  DirectoryRecord record;
  SandboxRecord& sandbox = record.sandbox;
  sandbox.name = dir.filename().native();
  const std::string status = root.Text("status");
  if (status != "running" && status != "stopped" && status != "crashed") {
    Malformed("status", "is none of running, stopped and crashed");
  }
  sandbox.status = status == "running"   ? SandboxStatus::kRunning
                   : status == "stopped" ? SandboxStatus::kStopped
                                         : SandboxStatus::kCrashed;
  record.process = ReadProcess(root);
  sandbox.image = Image{image.Text("ref"), image.Text("manifest_digest")};
  sandbox.upper = ReadUpper(root, dir);
  sandbox.backing = ReadBacking(root, dir);
  sandbox.sealable = sandbox.upper->format == DiskFormat::kQcow2;
  record.seal = ReadSeal(root);
  record.backend = root.Text("backend");
  sandbox.snapshot_digest = root.OptionalDigest("snapshot", "sha256");
  sandbox.labels = root.TextMap("labels");
  record.cpus = ReadCount(root, "cpus");
  record.memory_mib = ReadCount(root, "memory_mib");
  sandbox.created_at = ReadTime(root, "created_at");
  sandbox.started_at = ReadTime(root, "started_at");
  sandbox.updated_at = ReadTime(root, "updated_at");
  return record;
}

}  // namespace

SandboxStatus DirectoryRecord::CurrentStatus() const {
  const bool gone = process && !process->IsAlive();
  return sandbox.status == SandboxStatus::kRunning && gone ? SandboxStatus::kCrashed
                                                           : sandbox.status;
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
      {"backing", Json::array()},
      {"snapshot", nullptr},
      {"seal", nullptr},
      {"labels", sandbox.labels},
      {"cpus", cpus},
      {"memory_mib", memory_mib},
      {"created_at", FormatTime(sandbox.created_at)},
      {"started_at", FormatTime(sandbox.started_at)},
      {"updated_at", FormatTime(sandbox.updated_at)}};
  if (process) {
    document["process"] = {{"pid", process->pid},
                           {"start_ticks", process->start_ticks},
                           {"boot_id", process->boot_id}};
  }
  if (sandbox.snapshot_digest) document["snapshot"] = *sandbox.snapshot_digest;
  for (const BackingFile& file : sandbox.backing) {
    document["backing"].push_back({{"file", file.name}, {"format", ToString(file.disk.format)}});
  }
  if (seal) {
    document["seal"] = {
        {"file", seal->file}, {"digest", seal->digest}, {"artifact", seal->artifact.native()}};
  }
  std::string json;
  base::AppendCanonicalJson(json, document);
  return json;
}

DirectoryRecord DirectoryRecord::Parse(std::string_view json, const std::filesystem::path& dir) {
  try {
    DirectoryRecord record = Read(base::ParseJson(json), dir);
    record.sandbox.status = record.CurrentStatus();
    record.sandbox.config_json = json;
    return record;
  } catch (const std::invalid_argument& e) {
    base::Throw(ErrorKind::kInvalidConfig, "malformed record of sandbox {}: {}", dir.native(),
                e.what());
  }
}

}  // namespace msb::vmm
