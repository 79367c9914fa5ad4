// SPDX-License-Identifier: Apache-2.0

#include "tests/fuzz/archive_mender.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "msb/error.h"
#include "src/archive/member.h"
#include "src/archive/member_hash.h"
#include "src/artifact/manifest.h"
#include "src/base/digest.h"
#include "src/base/json.h"
#include "src/disk/extents.h"
#include "tests/fuzz/memory_file.h"

namespace msb::fuzz {
namespace {

using archive::MemberKind;
using archive::MemberPath;
using base::Json;

// Size in bytes above which a disk is not mended. fuzz_import.cc has the library refuse such disks.
constexpr std::uint64_t kMaxDiskBytes = 8 << 20;

std::optional<MemberPath> PathOf(const TarPart& part) {
  return archive::ParseMemberPath(part.Name());
}

// Replaces each run of digits that begins with from, anywhere in the text, with as many digits of
// the digest to: some paths have only the first 16.
void ReplaceDigits(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += from.size()) {
    std::size_t length = text.find_first_not_of("0123456789abcdef", at);
    length = std::min(length == std::string::npos ? text.size() : length, at + to.size()) - at;
    text.replace(at, length, to.substr(0, length));
  }
}

void ReplaceEverywhere(std::vector<TarPart>& parts, std::string_view from, std::string_view to) {
  if (to.starts_with(from)) return;
  for (TarPart& part : parts) {
    ReplaceDigits(part.header, from, to);
    const auto path = PathOf(part);
    if (path && path->kind != MemberKind::kPayload) ReplaceDigits(part.content, from, to);
  }
}

std::string_view Digits(std::string_view digest) { return digest.substr(digest.find(':') + 1); }

std::optional<artifact::Manifest> Parse(const TarPart& part, const MemberPath& path) {
  const auto form = path.in_legacy      ? artifact::ManifestForm::kManifest
                    : path.in_inventory ? artifact::ManifestForm::kDescriptor
                                        : artifact::ManifestForm::kLayered;
  try {
    return artifact::ParseManifest(form, part.content, "mended");
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Returns the digest of the file of size bytes that an entry stores. Returns nothing if the map of
// the entry is invalid, or if there is no such algorithm.
std::optional<std::string> DigestOfDisk(const TarPart& part, std::uint64_t size,
                                        const std::string& algorithm) {
  static const MemoryFile file("disk");
  file.Resize(0);
  file.Resize(size);
  std::string_view stored = part.content;
  const auto ranges =
      part.IsSparse() ? part.Ranges() : std::vector<disk::Extent>{{0, stored.size()}};
  for (const disk::Extent& range : ranges) {
    if (range.offset > size || range.length > std::min(size - range.offset, stored.size())) {
      return std::nullopt;
    }
    file.Write(stored.substr(0, range.length), range.offset);
    stored.remove_prefix(range.length);
  }
  try {
    return artifact::ComputeIntegrity(Context::Background(), file.fd(), size, algorithm).digest;
  } catch (const Error&) {
    return std::nullopt;
  }
}

void MendDisk(std::vector<TarPart>& parts, TarPart& part, const artifact::Layer& layer) {
  if (std::max(part.FileSize(), layer.file_bytes.value_or(0)) > kMaxDiskBytes) return;
  if (!part.IsSparse()) part.content.resize(layer.file_bytes.value_or(part.content.size()));
  if (!layer.integrity) return;
  const auto digest = DigestOfDisk(part, part.FileSize(), layer.integrity->algorithm);
  if (digest) ReplaceEverywhere(parts, Digits(layer.integrity->digest), Digits(*digest));
}

void MendSnapshot(std::vector<TarPart>& parts, const TarPart& manifest, const MemberPath& path) {
  const auto parsed = Parse(manifest, path);
  if (!parsed) return;
  for (TarPart& part : parts) {
    const auto disk = PathOf(part);
    if (!disk || disk->kind != MemberKind::kPayload) continue;
    if (!disk->snapshot.empty() && disk->snapshot != path.snapshot) continue;
    for (const artifact::Layer& layer : parsed->layers) {
      if (layer.file == disk->file) MendDisk(parts, part, layer);
    }
  }
  if (path.in_layered) return;  // Its id is not a digest.
  const auto mended = Parse(manifest, path);
  if (!mended) return;
  const std::string_view directory = path.snapshot;
  ReplaceEverywhere(parts, directory.substr(directory.find('-') + 1), Digits(mended->digest));
}

void Put(Json& object, const char* field, Json value) {
  if (object.is_object() && object.contains(field)) object[field] = std::move(value);
}

// Returns a field of object, or a JSON null if it has no such field.
Json& FieldOf(Json& object, const char* field) {
  static Json null;
  null = nullptr;
  return object.is_object() && object.contains(field) ? object[field] : null;
}

const TarPart* FindPath(const std::vector<TarPart>& parts, const Json& path) {
  const auto found = std::find_if(parts.begin(), parts.end(),
                                  [&](const TarPart& part) { return path == part.Name(); });
  return found == parts.end() ? nullptr : &*found;
}

void MendListed(Json& listed, const TarPart& part, MemberKind kind) {
  const std::vector<disk::Extent> ranges = part.Ranges();
  Put(listed, "encoded_size", part.content.size());
  Put(listed, "apparent_size", part.FileSize());
  Json pairs = Json::array();
  for (const disk::Extent& range : ranges) pairs.push_back({range.offset, range.length});
  Put(listed, "sparse_ranges", std::move(pairs));
  // The integrity of a disk was mended together with its manifest.
  if (kind != MemberKind::kPayload) {
    Put(FieldOf(listed, "integrity"), "digest", base::Sha256Digest(part.content));
  }
  archive::MemberHasher hasher(archive::KindName(kind), part.Name(), part.content.size(),
                               part.FileSize(), ranges);
  hasher.Update(std::as_bytes(std::span(part.content)));
  Put(FieldOf(listed, "transport_integrity"), "digest", hasher.Finish());
}

void MendInventory(const std::vector<TarPart>& parts, Json& inventory) {
  std::uint64_t count = 0;
  std::uint64_t encoded = 0;
  std::uint64_t apparent = 0;
  for (Json& listed : FieldOf(inventory, "entries")) {
    const TarPart* part = FindPath(parts, FieldOf(listed, "path"));
    const auto path = part != nullptr ? PathOf(*part) : std::nullopt;
    if (!path || path->kind == MemberKind::kInventory) continue;
    MendListed(listed, *part, path->kind);
    ++count;
    encoded += part->content.size();
    apparent += part->FileSize();
  }
  for (Json& member : FieldOf(inventory, "members")) {
    const TarPart* part = FindPath(parts, FieldOf(member, "descriptor_path"));
    if (part != nullptr) Put(member, "descriptor_digest", base::Sha256Digest(part->content));
  }
  Json& limits = FieldOf(inventory, "limits");
  Put(limits, "entry_count", count);
  Put(limits, "encoded_bytes", encoded);
  Put(limits, "apparent_bytes", apparent);
}

}  // namespace

void MendArchive(std::vector<TarPart>& parts) {
  for (const TarPart& part : parts) {
    const auto path = PathOf(part);
    if (path && path->kind == MemberKind::kManifest) MendSnapshot(parts, part, *path);
  }
  for (TarPart& part : parts) {
    if (part.Name() != archive::kInventoryPath) continue;
    try {
      Json inventory = base::ParseJson(part.content);
      MendInventory(parts, inventory);
      part.content = inventory.dump();
    } catch (const std::invalid_argument&) {
      // Not JSON: left unchanged.
    }
  }
}

}  // namespace msb::fuzz
