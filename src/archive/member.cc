// SPDX-License-Identifier: Apache-2.0

#include "src/archive/member.h"

#include <algorithm>

#include "src/archive/image_files.h"
#include "src/artifact/manifest.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

// A directory of the legacy layout has this prefix and the first hex digits of a digest.
constexpr std::string_view kLegacyPrefix = "sha256-";
constexpr std::size_t kLegacyDigits = 16;
constexpr std::string_view kSnapshotIdPrefix = "snap_";
constexpr std::size_t kMaxIdBytes = 128;

// Removes prefix from text. Returns false if text does not begin with it.
bool Skip(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// Removes the first component of path, with its '/', and returns it. Returns nothing if path has no
// '/'.
std::optional<std::string_view> TakeDirectory(std::string_view& path) {
  const std::size_t slash = path.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const std::string_view directory = path.substr(0, slash);
  path.remove_prefix(slash + 1);
  return directory;
}

bool IsId(std::string_view text) {
  return !text.empty() && text.size() <= kMaxIdBytes &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  c == '_' || c == '-';
         });
}

bool IsSnapshotId(std::string_view text) {
  return IsId(text) && text.starts_with(kSnapshotIdPrefix) &&
         text.size() > kSnapshotIdPrefix.size();
}

// Returns true if an archive may have an upper of this name, which has no directories.
bool IsUpperFile(std::string_view name) {
  return base::IsPlainFileName(name) && base::IsUtf8(name) && !base::HasControlCharacter(name) &&
         name.find('\\') == std::string_view::npos && !artifact::IsReservedFile(name);
}

// Parses the part of a path after "cache/" or "images/".
std::optional<MemberPath> ParseImage(std::string_view file, MemberPath path) {
  if (!IsImageFile(file)) return std::nullopt;
  path.kind =
      file.starts_with("manifests/") ? MemberKind::kImageMetadata : MemberKind::kImageObject;
  path.file = file;
  return path;
}

// Parses the part after "sha256-".
std::optional<MemberPath> ParseLegacy(std::string_view rest) {
  const auto hex = TakeDirectory(rest);
  if (!hex || !base::IsHex(*hex, kLegacyDigits)) return std::nullopt;
  MemberPath path{.in_legacy = true, .snapshot = std::string(kLegacyPrefix) + std::string(*hex)};
  if (rest == "manifest.json") return path;
  if (!IsUpperFile(rest)) return std::nullopt;
  path.kind = MemberKind::kPayload;
  path.file = rest;
  return path;
}

// Parses the part after "snapshots/".
std::optional<MemberPath> ParseSnapshot(std::string_view rest) {
  const auto directory = TakeDirectory(rest);
  if (!directory) return std::nullopt;
  MemberPath path{.in_inventory = base::IsHex(*directory, base::Digest::kHexDigits),
                  .in_layered = IsSnapshotId(*directory),
                  .snapshot = std::string(*directory)};
  if (!path.in_inventory && !path.in_layered) return std::nullopt;
  if (rest == "snapshot.json") return path;
  if (rest != "metadata.json" || !path.in_layered) return std::nullopt;
  path.kind = MemberKind::kMetadata;
  return path;
}

// Parses the part after "files/".
std::optional<MemberPath> ParseFile(std::string_view rest) {
  const auto hex = TakeDirectory(rest);
  if (!hex || !base::IsHex(*hex, base::Digest::kHexDigits) || !IsUpperFile(rest))
    return std::nullopt;
  return MemberPath{.in_inventory = true,
                    .kind = MemberKind::kPayload,
                    .snapshot = std::string(*hex),
                    .file = std::string(rest)};
}

// Parses the part after "layers/".
std::optional<MemberPath> ParseLayer(std::string_view name) {
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos || !IsId(name.substr(0, dot))) return std::nullopt;
  const std::string_view format = name.substr(dot + 1);
  if (format != "raw" && format != "qcow2") return std::nullopt;
  return MemberPath{
      .in_layered = true, .kind = MemberKind::kPayload, .file = "layers/" + std::string(name)};
}

}  // namespace

std::string_view KindName(MemberKind kind) {
  switch (kind) {
    case MemberKind::kManifest:
      return "snapshot-descriptor";
    case MemberKind::kMetadata:
      return "snapshot-metadata";
    case MemberKind::kPayload:
      return "file-payload";
    case MemberKind::kImageMetadata:
      return "image-metadata";
    case MemberKind::kImageObject:
      return "image-object";
    case MemberKind::kInventory:
      break;
  }
  base::Throw(ErrorKind::kInternal, "the inventory {} must not list itself", kInventoryPath);
}

std::string DirectoryOf(Layout layout, const base::Digest& digest) {
  if (layout != Layout::kLegacy) return digest.hex();
  return std::string(kLegacyPrefix) + digest.hex().substr(0, kLegacyDigits);
}

std::optional<MemberPath> ParseMemberPath(std::string_view path) {
  if (path == kInventoryPath) {
    return MemberPath{.in_inventory = true, .in_layered = true, .kind = MemberKind::kInventory};
  }
  if (Skip(path, kLegacyPrefix)) return ParseLegacy(path);
  if (Skip(path, "cache/")) return ParseImage(path, {.in_legacy = true});
  if (Skip(path, "images/")) return ParseImage(path, {.in_inventory = true, .in_layered = true});
  if (Skip(path, "snapshots/")) return ParseSnapshot(path);
  if (Skip(path, "files/")) return ParseFile(path);
  if (Skip(path, "layers/")) return ParseLayer(path);
  return std::nullopt;
}

std::string ManifestPath(Layout layout, std::string_view snapshot) {
  if (layout == Layout::kLegacy) return fmt::format("{}/manifest.json", snapshot);
  return fmt::format("snapshots/{}/snapshot.json", snapshot);
}

std::string PayloadPath(Layout layout, std::string_view snapshot, std::string_view file) {
  switch (layout) {
    case Layout::kLegacy:
      return fmt::format("{}/{}", snapshot, file);
    case Layout::kInventory:
      return fmt::format("files/{}/{}", snapshot, file);
    case Layout::kLayered:
      break;
  }
  return std::string(file);
}

std::string ImagePath(Layout layout, std::string_view file) {
  return fmt::format("{}/{}", layout == Layout::kLegacy ? "cache" : "images", file);
}

}  // namespace msb::archive
