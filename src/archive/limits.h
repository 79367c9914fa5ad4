// SPDX-License-Identifier: Apache-2.0
//
// The limits on an archive, which keep hostile archives from exhausting memory and time. Import
// refuses archives that exceed them, and Export does not write such archives.

#ifndef MSB_SRC_ARCHIVE_LIMITS_H_
#define MSB_SRC_ARCHIVE_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace msb::archive {

// The maximum number of entries in an archive; a chain of 8,000 snapshots has 16,001.
inline constexpr std::size_t kMaxEntries = 1 << 14;
// The maximum number of image files in an archive. An OCI image has at most 127 layers, and a few
// more files.
inline constexpr std::size_t kMaxImageFiles = 1 << 11;
// The maximum size of an inventory, in bytes. This is enough for the sparse map of a disk with 2^18
// ranges, or for as many entries as an archive may have.
inline constexpr std::size_t kMaxInventoryBytes = 16 << 20;
// The maximum total size, in bytes, of manifests, image metadata and vmdks, which are held in
// memory.
inline constexpr std::uint64_t kMaxMetadataBytes = 48 << 20;
// The maximum total size, in bytes, of the files that are hashed with SHA-256. Their holes count,
// because SHA-256 hashes them as zeros.
inline constexpr std::uint64_t kMaxHashedBytes = std::uint64_t{1} << 40;

// An ArchiveBudget counts what an archive contains. Each function returns nullopt, or a description
// of the limit that the archive exceeds now, to follow the name of the entry: "exceeds the limit of
// 16384 entries".
class ArchiveBudget {
 public:
  using Excess = std::optional<std::string>;

  Excess AddEntry();
  Excess AddImageFile();
  // Counts a manifest, image metadata or a vmdk of this size in bytes.
  Excess AddMetadata(std::uint64_t bytes);
  // Counts a file that is hashed with this algorithm (artifact::Integrity), unless that skips
  // holes.
  Excess AddHashed(std::uint64_t bytes, std::string_view algorithm);

 private:
  std::size_t entries_ = 0;
  std::size_t image_files_ = 0;
  std::uint64_t metadata_bytes_ = 0;
  std::uint64_t hashed_bytes_ = 0;
};

// Returns true if the image file, "KIND/FILE", counts as metadata.
bool IsImageMetadata(std::string_view file);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_LIMITS_H_
