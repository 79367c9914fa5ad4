// SPDX-License-Identifier: Apache-2.0
//
// Parses, checks and writes the vmdk of an OCI image: a text that joins the image's files, which
// are file systems, into the one disk that a guest sees.
//
// All runtimes from 0.6.6 to 0.7.2 write the vmdk in the same way, and name the files by absolute
// paths. Their VMM opens any path that it finds in a vmdk, so a vmdk from outside is never used as
// it is: it is parsed, compared with the files that it must name, and written anew.

#ifndef MSB_SRC_ARCHIVE_VMDK_H_
#define MSB_SRC_ARCHIVE_VMDK_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace msb::archive {

// The longest vmdk that is accepted, in bytes.
inline constexpr std::size_t kMaxVmdkBytes = 1 << 20;

// A VmdkExtent is a part of the disk, in sectors of 512 bytes.
struct VmdkExtent {
  std::string file;                // "fsmeta/FILE" or "layers/FILE" in the cache; empty: zeros.
  std::uint64_t sectors = 0;       // Greater than 0.
  std::uint64_t first_sector = 0;  // The first sector in the file.

  bool operator==(const VmdkExtent&) const = default;
};

// A JoinedFile is a file that a vmdk names.
struct JoinedFile {
  std::string file;
  std::uint64_t bytes = 0;
};

// Returns the extents that a vmdk lists. All paths must be in the same cache, whose path does not
// matter.
// Throws std::invalid_argument if the text is longer than kMaxVmdkBytes, is not UTF-8, lists no
// extents, or has a line that the runtimes do not write; the message names that line.
std::vector<VmdkExtent> ParseVmdk(std::string_view text);

// Throws std::invalid_argument unless the extents cover exactly these files, each completely and in
// this order, with no other data in between. A file may occur twice, since an image may have a
// layer twice.
void CheckVmdk(const std::vector<VmdkExtent>& extents, const std::vector<JoinedFile>& files);

// Returns the text as the runtimes write it, for the cache in cache_dir, an absolute path.
// Throws kUnsupportedOperation if a vmdk cannot name files in that directory.
std::string FormatVmdk(const std::filesystem::path& cache_dir,
                       const std::vector<VmdkExtent>& extents);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_VMDK_H_
