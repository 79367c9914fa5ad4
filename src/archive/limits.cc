// SPDX-License-Identifier: Apache-2.0

#include "src/archive/limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "src/artifact/integrity.h"

namespace msb::archive {
namespace {

// Adds bytes to total. Saturates, because an archive may contain arbitrary sizes.
void AddTo(std::uint64_t& total, std::uint64_t bytes) {
  total += std::min(bytes, std::numeric_limits<std::uint64_t>::max() - total);
}

}  // namespace

ArchiveBudget::Excess ArchiveBudget::AddEntry() {
  if (++entries_ <= kMaxEntries) return std::nullopt;
  return fmt::format("exceeds the limit of {} entries", kMaxEntries);
}

ArchiveBudget::Excess ArchiveBudget::AddImageFile() {
  if (++image_files_ <= kMaxImageFiles) return std::nullopt;
  return fmt::format("exceeds the limit of {} image files", kMaxImageFiles);
}

ArchiveBudget::Excess ArchiveBudget::AddMetadata(std::uint64_t bytes) {
  AddTo(metadata_bytes_, bytes);
  if (metadata_bytes_ <= kMaxMetadataBytes) return std::nullopt;
  return fmt::format("exceeds the limit of {} bytes of manifests and image metadata",
                     kMaxMetadataBytes);
}

ArchiveBudget::Excess ArchiveBudget::AddHashed(std::uint64_t bytes, std::string_view algorithm) {
  if (algorithm == artifact::kFileMerkle) return std::nullopt;
  AddTo(hashed_bytes_, bytes);
  if (hashed_bytes_ <= kMaxHashedBytes) return std::nullopt;
  return fmt::format("exceeds the limit of {} bytes to hash with SHA-256", kMaxHashedBytes);
}

bool IsImageMetadata(std::string_view file) {
  return file.starts_with("manifests/") || file.starts_with("vmdk/");
}

}  // namespace msb::archive
