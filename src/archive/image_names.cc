// SPDX-License-Identifier: Apache-2.0

#include "src/archive/image_names.h"

#include <fmt/format.h>

#include "src/artifact/manifest.h"
#include "src/base/digest.h"
#include "src/base/home.h"
#include "src/disk/disk_names.h"

namespace msb::archive {
namespace {

// Returns "sha256_HEX" for "sha256:HEX".
std::string Stem(std::string_view digest) {
  return fmt::format("sha256_{}", base::Digest::Require(digest).hex());
}

// Returns true if file is prefix, 64 lower-case hex digits and suffix.
bool IsNamed(std::string_view file, std::string_view prefix, std::string_view suffix) {
  if (!file.starts_with(prefix) || !file.ends_with(suffix) ||
      file.size() < prefix.size() + suffix.size()) {
    return false;
  }
  file.remove_prefix(prefix.size());
  file.remove_suffix(suffix.size());
  return base::IsHex(file, base::Digest::kHexDigits);
}

}  // namespace

bool IsImageFile(std::string_view file) {
  return IsNamed(file, "manifests/", ".json") || IsJoinedFile(file) ||
         IsNamed(file, "vmdk/sha256_", ".vmdk") || IsDiskImageFile(file);
}

bool IsDiskImageFile(std::string_view file) {
  const std::string prefix = fmt::format("{}/sha256_", base::Home::kDisks);
  return IsNamed(file, prefix, ".raw") || IsNamed(file, prefix, ".qcow2");
}

bool IsJoinedFile(std::string_view file) {
  return IsNamed(file, "fsmeta/sha256_", ".erofs") || IsNamed(file, "layers/sha256_", ".erofs");
}

std::string NormalizedReference(std::string_view reference) {
  const std::size_t at = reference.find('@');
  const std::string_view digest = at == std::string_view::npos ? "" : reference.substr(at);
  std::string_view name = reference.substr(0, at);
  std::string_view tag;
  const std::size_t colon = name.rfind(':');
  if (colon != std::string_view::npos && name.find('/', colon) == std::string_view::npos) {
    tag = name.substr(colon);
    name = name.substr(0, colon);
  }
  if (tag.empty() && digest.empty()) tag = ":latest";

  std::string_view domain = "docker.io";
  std::string_view repository = name;
  const std::size_t slash = name.find('/');
  const std::string_view first = name.substr(0, slash);
  if (slash != std::string_view::npos &&
      (first == "localhost" || first.find_first_of(".:") != std::string_view::npos)) {
    if (first != "index.docker.io") domain = first;
    repository = name.substr(slash + 1);
  }
  const bool is_official = domain == "docker.io" && repository.find('/') == std::string_view::npos;
  return fmt::format("{}/{}{}{}{}", domain, is_official ? "library/" : "", repository, tag, digest);
}

std::string MetadataFile(std::string_view reference) {
  return fmt::format("manifests/{}.json", base::Sha256Hex(NormalizedReference(reference)));
}

std::string FsmetaFile(std::string_view manifest_digest) {
  return fmt::format("fsmeta/{}.erofs", Stem(manifest_digest));
}

std::string VmdkFile(std::string_view manifest_digest) {
  return fmt::format("vmdk/{}.vmdk", Stem(manifest_digest));
}

std::string LayerFile(std::string_view diff_id) {
  return fmt::format("layers/{}.erofs", Stem(diff_id));
}

std::string DiskImageFile(std::string_view digest, DiskFormat format) {
  return fmt::format("{}/{}", base::Home::kDisks, disk::DiskFileName(digest, format));
}

}  // namespace msb::archive
