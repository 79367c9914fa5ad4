#include "src/vmm/local_record.h"

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

std::optional<base::ProcessIdentity> ReadOwner(const Fields& root) {
  if (root.IsNull("owner")) return std::nullopt;
  const Fields owner(root.At("owner"), "owner", {"pid", "start_ticks"}, Fields::Others::kIgnore);
  const std::uint64_t pid = owner.Size("pid");
  if (pid > std::numeric_limits<pid_t>::max()) Malformed(owner.PathOf("pid"), "is too large");
  return base::ProcessIdentity{.pid = static_cast<pid_t>(pid),
                               .start_ticks = owner.Size("start_ticks")};
}

Disk ReadUpper(const Fields& root, const std::filesystem::path& dir) {
  const Fields upper(root.At("upper"), "upper", {"file", "format", "fstype"},
                     Fields::Others::kIgnore);
  const std::string file = upper.Text("file");
  if (!base::IsPlainFileName(file)) Malformed("upper.file", "is not one plain file name");
  return {dir / file, upper.Format("format"), upper.Text("fstype")};
}

LocalRecord Read(const Json& document, const std::filesystem::path& dir) {
  const Fields root(document, "",
                    {"schema", "status", "owner", "image", "upper", "snapshot", "labels", "cpus",
                     "memory_mib", "created_at", "updated_at"},
                    Fields::Others::kIgnore);
  root.Expect("schema", kSchema);
  const Fields image(root.At("image"), "image", {"ref", "manifest_digest"},
                     Fields::Others::kIgnore);
  LocalRecord record;
  SandboxRecord& sandbox = record.sandbox;
  sandbox.name = dir.filename().native();
  const std::string status = root.Text("status");
  if (status != "running" && status != "stopped") {
    Malformed("status", "is neither running nor stopped");
  }
  sandbox.status = status == "running" ? SandboxStatus::kRunning : SandboxStatus::kStopped;
  record.owner = ReadOwner(root);
  sandbox.image = Image{image.Text("ref"), image.Text("manifest_digest")};
  sandbox.upper = ReadUpper(root, dir);
  sandbox.snapshot_digest = root.OptionalDigest("snapshot", "sha256");
  sandbox.labels = root.TextMap("labels");
  record.cpus = ReadCount(root, "cpus");
  record.memory_mib = ReadCount(root, "memory_mib");
  sandbox.created_at = ReadTime(root, "created_at");
  sandbox.updated_at = ReadTime(root, "updated_at");
  return record;
}

}  // namespace

SandboxStatus LocalRecord::CurrentStatus() const {
  const bool owner_gone = owner && !owner->IsAlive();
  return sandbox.status == SandboxStatus::kRunning && owner_gone ? SandboxStatus::kCrashed
                                                                 : sandbox.status;
}

std::string LocalRecord::Write() {
  sandbox.updated_at = std::chrono::system_clock::now();
  Json document = {
      {"schema", kSchema},
      {"status", ToString(sandbox.status)},
      {"owner", nullptr},
      {"image", {{"ref", sandbox.image->ref}, {"manifest_digest", sandbox.image->manifest_digest}}},
      {"upper",
       {{"file", sandbox.upper->path.filename().native()},
        {"format", ToString(sandbox.upper->format)},
        {"fstype", sandbox.upper->fstype}}},
      {"snapshot", nullptr},
      {"labels", sandbox.labels},
      {"cpus", cpus},
      {"memory_mib", memory_mib},
      {"created_at", FormatTime(sandbox.created_at)},
      {"updated_at", FormatTime(sandbox.updated_at)}};
  if (owner) document["owner"] = {{"pid", owner->pid}, {"start_ticks", owner->start_ticks}};
  if (sandbox.snapshot_digest) document["snapshot"] = *sandbox.snapshot_digest;
  std::string json;
  base::AppendCanonicalJson(json, document);
  return json;
}

LocalRecord LocalRecord::Parse(std::string_view json, const std::filesystem::path& dir) {
  try {
    LocalRecord record = Read(base::ParseJson(json), dir);
    record.sandbox.status = record.CurrentStatus();
    record.sandbox.config_json = json;
    return record;
  } catch (const std::invalid_argument& e) {
    base::Throw(ErrorKind::kInvalidConfig, "malformed record of sandbox {}: {}", dir.native(),
                e.what());
  }
}

}  // namespace msb::vmm
