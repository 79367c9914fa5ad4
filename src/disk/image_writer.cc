// SPDX-License-Identifier: Apache-2.0

#include "src/disk/image_writer.h"

#include <string_view>

#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/qcow2_header.h"
#include "src/disk/qcow2_layout.h"

namespace msb::disk {
namespace {

// The layout of an overlay, in clusters: the header, the refcount table, its only block, and the L1
// table up to the end of the file.
constexpr std::uint64_t kRefcountTable = 1;
constexpr std::uint64_t kRefcountBlock = 2;
constexpr std::uint64_t kL1Table = 3;

}  // namespace

void WriteOverlay(int fd, const Overlay& overlay) {
  const std::string_view format = ToString(overlay.backing_format);
  const std::uint64_t l1_entries = CountOf(overlay.virtual_size, kBytesPerL2);
  if (overlay.virtual_size % kSectorBytes != 0 || l1_entries > kMaxL1Entries ||
      !IsBackingName(overlay.backing_file)) {
    base::Throw(ErrorKind::kInvalidArgument,
                "cannot create an overlay of {} bytes that is backed by '{}': the size must be a "
                "multiple of {} up to {}, and the backing file a plain file name",
                overlay.virtual_size, base::Quoted(overlay.backing_file), kSectorBytes,
                kMaxL1Entries * kBytesPerL2);
  }
  const std::uint64_t clusters = kL1Table + CountOf(l1_entries * 8, kClusterBytes);
  const std::uint64_t extension = kHeaderBytes;
  const std::uint64_t extension_end = extension + 8 + (format.size() + 7) / 8 * 8;
  const std::uint64_t name = extension_end + 8;
  Buffer header = MakeHeader(name + overlay.backing_file.size(),
                             {.virtual_size = overlay.virtual_size,
                              .l1_entries = l1_entries,
                              .l1_offset = kL1Table * kClusterBytes,
                              .refcount_table_offset = kRefcountTable * kClusterBytes,
                              .refcount_table_clusters = 1});
  header.Number(8, 8, name);
  header.Number(16, 4, overlay.backing_file.size());
  header.Number(extension, 4, kBackingFormat);
  header.Number(extension + 4, 4, format.size());
  header.Text(extension + 8, format);
  header.Text(name, overlay.backing_file);
  Buffer table_entry(8);
  table_entry.Number(0, 8, kRefcountBlock * kClusterBytes);
  Buffer refcounts(clusters * 2);
  for (std::uint64_t i = 0; i < clusters; ++i) refcounts.Number(i * 2, 2, 1);
  base::Resize(fd, clusters * kClusterBytes);
  header.WriteTo(fd, 0);
  table_entry.WriteTo(fd, kRefcountTable * kClusterBytes);
  refcounts.WriteTo(fd, kRefcountBlock * kClusterBytes);
  base::Sync(fd);
}

}  // namespace msb::disk
