// SPDX-License-Identifier: Apache-2.0

#include "src/disk/overlay_edit.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "src/base/big_endian.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/qcow2_header.h"
#include "src/disk/qcow2_layout.h"
#include "src/disk/qcow2_tables.h"

namespace msb::disk {
namespace {

// Where the header has the offset and the length of the backing file's name (qcow2.txt of QEMU).
constexpr std::uint64_t kNameOffset = 8;
constexpr std::uint64_t kNameLength = 16;

}  // namespace

bool IsEmptyOverlay(int fd, const std::string& name) {
  const Qcow2Header header = ReadQcow2Header(fd, name);
  // The L1 table has at most 32 MiB, and a recovery that has begun is completed.
  return Qcow2Tables(Context::Background(), fd, name, header).l2_tables().empty();
}

void SetBackingFile(int fd, const std::string& name, std::string_view backing_file) {
  const Qcow2Header header = ReadQcow2Header(fd, name);
  if (header.backing_file == backing_file) return;
  std::array<std::byte, 8> field{};
  base::ReadExactly(fd, field.data(), field.size(), kNameOffset);
  const std::uint64_t offset = base::LoadBigEndian(field);
  if (header.backing_file.empty() || backing_file.empty() ||
      backing_file.size() > kMaxBackingNameBytes ||
      backing_file.size() > header.cluster_bytes() - offset) {
    base::Throw(ErrorKind::kUnsupportedOperation,
                "the header of {} has no space for the backing file '{}'; set it with 'qemu-img "
                "rebase -u'",
                name, base::Quoted(backing_file));
  }
  Buffer text(backing_file.size());
  text.Text(0, backing_file);
  text.WriteTo(fd, offset);
  Buffer length(4);
  length.Number(0, 4, backing_file.size());
  length.WriteTo(fd, kNameLength);
  base::Sync(fd);
}

}  // namespace msb::disk
