// The vmdk of an OCI image: a text that joins the image's files, which are file systems, to the one
// disk that a guest sees.
//
// The runtimes write it alike from 0.6.6 to 0.7.2, and name the files by absolute paths. Their VMM
// opens whatever path it reads there, so a text from outside is never kept as it is: it is read,
// compared with the files that it must name, and written anew.

#ifndef MSB_SRC_ARCHIVE_VMDK_H_
#define MSB_SRC_ARCHIVE_VMDK_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace msb::archive {

// Longer texts are refused, bytes.
inline constexpr std::size_t kMaxVmdkBytes = 1 << 20;

// A part of the disk, in sectors of 512 bytes.
struct VmdkExtent {
  std::string file;                // "fsmeta/FILE" or "layers/FILE" of the cache; empty: zeros.
  std::uint64_t sectors = 0;       // Not 0.
  std::uint64_t first_sector = 0;  // In the file.

  bool operator==(const VmdkExtent&) const = default;
};

// A file that a vmdk names.
struct JoinedFile {
  std::string file;
  std::uint64_t bytes = 0;
};

// The extents of a text in which every line is of a form that the runtimes write and all paths are
// of one cache, wherever that is. Throws std::invalid_argument, naming the line.
std::vector<VmdkExtent> ParseVmdk(std::string_view text);

// Throws std::invalid_argument unless the extents are these files, each whole, in this order, with
// nothing but zeros between them. A file may be there twice, as a layer may.
void CheckVmdk(const std::vector<VmdkExtent>& extents, const std::vector<JoinedFile>& files);

// The text, as the runtimes write it, for the cache in cache_dir, an absolute path.
// kUnsupportedOperation: a vmdk cannot name files there.
std::string FormatVmdk(const std::filesystem::path& cache_dir,
                       const std::vector<VmdkExtent>& extents);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_VMDK_H_
