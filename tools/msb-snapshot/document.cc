// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/document.h"

#include <fmt/format.h>

#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

template <typename T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

std::string Line(std::string_view title, std::string_view value) {
  return fmt::format("{:<16}{}\n", fmt::format("{}:", title), Printable(value));
}

std::string LabelList(const std::map<std::string, std::string>& labels) {
  std::string list;
  for (const auto& [key, value] : labels) {
    list += fmt::format("{}{}={}", list.empty() ? "" : ", ", key, value);
  }
  return list.empty() ? "-" : list;
}

Json StatusDocument(const SnapshotUpperVerifyStatus& status) {
  Json document;
  document["kind"] = status.kind;
  document["algorithm"] = status.kind == "verified" ? Json(status.algorithm) : Json(nullptr);
  document["digest"] = status.kind == "verified" ? Json(status.digest) : Json(nullptr);
  return document;
}

std::string StatusText(const SnapshotUpperVerifyStatus& status) {
  if (status.kind == "verified") {
    return fmt::format("{} ({} {})", Colored(Color::kGreen, "verified"), status.algorithm,
                       status.digest);
  }
  return fmt::format("{} (no content hash is recorded; create snapshots with --integrity)",
                     Colored(Color::kYellow, "not checked"));
}

Json UpperDocument(const SandboxHandle& sandbox) {
  const auto upper = UpperOf(sandbox);
  if (!upper) return nullptr;
  Json document;
  document["path"] = upper->path;
  document["format"] = ToString(upper->format);
  document["fstype"] = upper->fstype;
  document["base_digest"] = upper->base_digest;
  return document;
}

}  // namespace

std::optional<SandboxUpper> UpperOf(const SandboxHandle& sandbox) {
  try {
    return sandbox.Upper();
  } catch (const Error&) {
    return std::nullopt;
  }
}

Json ToJson(const SnapshotHandle& handle) {
  Json document;
  document["name"] = OrNull(handle.Name());
  document["digest"] = handle.Digest();
  document["parent_digest"] = OrNull(handle.ParentDigest());
  document["image_ref"] = handle.ImageRef();
  document["format"] = handle.Format();
  document["size_bytes"] = OrNull(handle.SizeBytes());
  document["created_at"] = Rfc3339(handle.CreatedAt());
  document["artifact_path"] = handle.Path();
  return document;
}

Json ToJson(const SnapshotArtifact& artifact) {
  Json document;
  document["digest"] = artifact.Digest();
  document["artifact_path"] = artifact.Path();
  document["parent_digest"] = OrNull(artifact.Parent());
  document["image_ref"] = artifact.ImageRef();
  document["image_manifest_digest"] = artifact.ImageManifestDigest();
  document["format"] = artifact.Format();
  document["fstype"] = artifact.Fstype();
  document["size_bytes"] = artifact.SizeBytes();
  document["created_at"] = artifact.CreatedAt();
  document["source_sandbox"] = OrNull(artifact.SourceSandbox());
  document["labels"] = Json::object();
  for (const auto& [key, value] : artifact.Labels()) document["labels"][key] = value;
  document["consistency"] = artifact.Consistency().empty() ? Json() : Json(artifact.Consistency());
  document["integrity"] = nullptr;
  if (const auto integrity = artifact.Integrity()) {
    document["integrity"] = {{"algorithm", integrity->algorithm}, {"digest", integrity->digest}};
  }
  return document;
}

Json ToJson(const SnapshotVerifyReport& report) {
  Json document;
  document["digest"] = report.digest;
  document["artifact_path"] = report.path;
  document["upper"] = StatusDocument(report.upper);
  document["backing"] = Json::array();
  for (const SnapshotBackingVerifyStatus& file : report.backing) {
    Json entry;
    entry["digest"] = file.digest;
    entry["path"] = file.path;
    entry["status"] = StatusDocument(file.status);
    document["backing"].push_back(std::move(entry));
  }
  return document;
}

Json ToJson(const SandboxHandle& sandbox) {
  Json document;
  document["name"] = sandbox.Name();
  document["status"] = StatusName(sandbox.Status());
  document["created_at"] = Rfc3339(sandbox.CreatedAt());
  document["updated_at"] = Rfc3339(sandbox.UpdatedAt());
  document["upper"] = UpperDocument(sandbox);
  return document;
}

std::string Details(const SnapshotArtifact& artifact) {
  const auto integrity = artifact.Integrity();
  return Line("Digest", artifact.Digest()) + Line("Path", artifact.Path()) +
         Line("Image", artifact.ImageRef()) +
         Line("Image Manifest", artifact.ImageManifestDigest()) +
         Line("Parent", artifact.Parent().value_or("-")) + Line("Created", artifact.CreatedAt()) +
         Line("Format", artifact.Format()) + Line("Filesystem", artifact.Fstype()) +
         Line("Size", HumanBytes(artifact.SizeBytes())) +
         Line("Integrity",
              integrity ? fmt::format("{} {}", integrity->algorithm, integrity->digest) : "-") +
         Line("Source Sandbox", artifact.SourceSandbox().value_or("-")) +
         Line("Consistency", artifact.Consistency().empty() ? "-" : artifact.Consistency()) +
         Line("Labels", LabelList(artifact.Labels()));
}

std::string Details(const SnapshotVerifyReport& report) {
  std::string text = fmt::format("{:<16}{}\n", "Verification:", StatusText(report.upper));
  for (const SnapshotBackingVerifyStatus& file : report.backing) {
    text +=
        fmt::format("{:<16}{}  {}\n", "  backed by", Printable(file.path), StatusText(file.status));
  }
  return text;
}

std::string_view StatusName(SandboxStatus status) {
  switch (status) {
    case SandboxStatus::kCreated:
      return "created";
    case SandboxStatus::kStarting:
      return "starting";
    case SandboxStatus::kRunning:
      return "running";
    case SandboxStatus::kDraining:
      return "draining";
    case SandboxStatus::kPaused:
      return "paused";
    case SandboxStatus::kStopped:
      return "stopped";
    case SandboxStatus::kCrashed:
      return "crashed";
  }
  return "unknown";
}

}  // namespace msb::program
