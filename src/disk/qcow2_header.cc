#include "src/disk/qcow2_header.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::disk {
namespace {

// The fields are those of QEMU's docs/interop/qcow2.txt; all are big-endian.
constexpr std::size_t kHeaderBytes = 80;
constexpr std::size_t kVersion = 4;
constexpr std::size_t kBackingFileOffset = 8;
constexpr std::size_t kBackingFileSize = 16;
constexpr std::size_t kIncompatibleFeatures = 72;  // From version 3 on.
constexpr std::uint64_t kExternalData = 1 << 2;
constexpr std::uint64_t kMaxBackingFileBytes = 1023;

using Header = std::array<unsigned char, kHeaderBytes>;

std::uint64_t Number(const Header& header, std::size_t offset, std::size_t bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) value = value << 8 | header[offset + i];
  return value;
}

}  // namespace

void CheckNamesNoOther(int fd, std::string_view name) {
  const std::uint64_t size = base::StampOf(fd).size;
  Header header{};
  base::ReadExactly(fd, header.data(), std::min<std::uint64_t>(size, header.size()), 0);
  constexpr std::array<unsigned char, 4> kMagic{'Q', 'F', 'I', 0xfb};
  const std::uint64_t version = Number(header, kVersion, 4);
  // What no reader opens can name nothing.
  if (!std::equal(kMagic.begin(), kMagic.end(), header.begin()) || version < 2 || version > 3) {
    return;
  }
  if (version >= 3 && (Number(header, kIncompatibleFeatures, 8) & kExternalData) != 0) {
    base::Throw(ErrorKind::kSnapshotIntegrity, "'{}' has its data in another file",
                base::Quoted(name));
  }
  const std::uint64_t offset = Number(header, kBackingFileOffset, 8);
  const std::uint64_t length = Number(header, kBackingFileSize, 4);
  if (offset == 0 || length == 0 || length > kMaxBackingFileBytes || offset > size ||
      length > size - offset) {
    return;
  }
  std::string backing(length, '\0');
  base::ReadExactly(fd, backing.data(), backing.size(), offset);
  // With a colon it may be an address, as "nbd:…" or "json:…".
  if (base::IsPlainFileName(backing) && backing.find(':') == std::string::npos) return;
  base::Throw(ErrorKind::kSnapshotIntegrity,
              "'{}' names a file outside of it as its backing file: {}", base::Quoted(name),
              base::Quoted(backing));
}

}  // namespace msb::disk
