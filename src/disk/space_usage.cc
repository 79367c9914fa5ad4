// SPDX-License-Identifier: Apache-2.0

#include "src/disk/space_usage.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "src/base/file_system.h"
#include "src/base/throw.h"

namespace msb::disk {
namespace {

using base::EntryType;

constexpr std::uint64_t kBlockUnit = 512;
constexpr std::uint32_t kExtentsAtOnce = 256;

// Returns the extents of an open file from the byte start on, at most kExtentsAtOnce, or an empty
// vector if there are none or the file system does not report them.
std::vector<fiemap_extent> ReadExtents(int fd, std::uint64_t start) {
  auto head = fiemap();  // Not {}: a list would initialize its array of no length.
  head.fm_start = start;
  head.fm_length = FIEMAP_MAX_OFFSET - start;
  head.fm_extent_count = kExtentsAtOnce;
  std::vector<std::byte> buffer(sizeof(head) + kExtentsAtOnce * sizeof(fiemap_extent));
  std::memcpy(buffer.data(), &head, sizeof(head));
  if (ioctl(fd, FS_IOC_FIEMAP, buffer.data()) != 0) {
    if (!base::IsUnsupported(errno)) base::ThrowErrno("find the extents of", fd);
    return {};
  }
  std::memcpy(&head, buffer.data(), sizeof(head));
  std::vector<fiemap_extent> extents(std::min(head.fm_mapped_extents, kExtentsAtOnce));
  std::memcpy(extents.data(), buffer.data() + sizeof(head), extents.size() * sizeof(fiemap_extent));
  return extents;
}

// A SpaceMeter adds up the files of a directory.
class SpaceMeter {
 public:
  explicit SpaceMeter(const Context& ctx) : ctx_(ctx) {}

  void AddDirectory(int dir);
  SpaceUsage Total() const;

 private:
  struct File {
    std::uint64_t names = 0;  // Names that were found.
    std::uint64_t links = 0;  // Names that the file has.
    std::uint64_t allocated = 0;
    std::uint64_t shared = 0;
  };

  void AddFile(int fd);

  const Context& ctx_;
  SpaceUsage directories_and_sizes_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, File> files_;  // By device and inode.
};

void SpaceMeter::AddDirectory(int dir) {
  const std::uint64_t own = base::StampOf(dir).blocks * kBlockUnit;
  directories_and_sizes_.allocated += own;
  directories_and_sizes_.exclusive += own;
  for (const base::DirectoryEntry& listed : base::ListDirectory(dir, ctx_)) {
    ctx_.Check();
    if (listed.type != EntryType::kRegularFile && listed.type != EntryType::kDirectory) continue;
    const base::Entry entry = base::OpenEntryAt(dir, listed.name);
    if (entry.type == EntryType::kRegularFile) AddFile(entry.fd.get());
    if (entry.type == EntryType::kDirectory) AddDirectory(entry.fd.get());
  }
}

void SpaceMeter::AddFile(int fd) {
  const base::FileStamp stamp = base::StampOf(fd);
  File& file = files_[{stamp.device, stamp.inode}];
  if (file.names++ > 0) return;
  file.links = stamp.links;
  file.allocated = stamp.blocks * kBlockUnit;
  file.shared = CountSharedBytes(ctx_, fd);
  directories_and_sizes_.apparent += stamp.size;
}

SpaceUsage SpaceMeter::Total() const {
  SpaceUsage total = directories_and_sizes_;
  for (const auto& [id, file] : files_) {
    total.allocated += file.allocated;
    if (file.names < file.links) continue;
    total.exclusive += file.allocated - std::min(file.allocated, file.shared);
  }
  return total;
}

}  // namespace

std::uint64_t CountSharedBytes(const Context& ctx, int fd) {
  std::uint64_t shared = 0;
  std::uint64_t start = 0;
  for (;;) {
    ctx.Check();
    const std::vector<fiemap_extent> extents = ReadExtents(fd, start);
    for (const fiemap_extent& extent : extents) {
      if ((extent.fe_flags & FIEMAP_EXTENT_SHARED) != 0) shared += extent.fe_length;
    }
    if (extents.empty() || (extents.back().fe_flags & FIEMAP_EXTENT_LAST) != 0) return shared;
    const std::uint64_t end = extents.back().fe_logical + extents.back().fe_length;
    if (end <= start) return shared;  // The file system would never come to an end.
    start = end;
  }
}

SpaceUsage MeasureDirectory(const Context& ctx, int dir) {
  SpaceMeter meter(ctx);
  meter.AddDirectory(dir);
  return meter.Total();
}

}  // namespace msb::disk
