// SPDX-License-Identifier: Apache-2.0

#include "src/disk/disk_image.h"

#include <fmt/core.h>

#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/qcow2_header.h"
#include "src/disk/qcow2_image.h"
#include "src/disk/raw_image.h"

namespace msb::disk {
namespace {

// Each file takes a descriptor, and memory for its L1 table.
constexpr std::size_t kMaxFiles = 256;

std::string DescribeBacking(std::string_view backing_file) {
  return backing_file.empty() ? "no backing file"
                              : fmt::format("the backing file '{}'", base::Quoted(backing_file));
}

void CheckBackingFile(const ImageFile& file, const Qcow2Header& header, const ImageFile* next) {
  const std::string expected = next == nullptr ? "" : next->name;
  if (header.backing_file != expected) {
    base::Throw(ErrorKind::kSnapshotIntegrity, "'{}' must have {}, but has {}",
                base::Quoted(file.name), DescribeBacking(expected),
                DescribeBacking(header.backing_file));
  }
  if (next != nullptr && header.backing_format.value_or(next->format) != next->format) {
    base::Throw(ErrorKind::kSnapshotIntegrity,
                "'{}' must name the format {} for its backing file '{}', but names {}",
                base::Quoted(file.name), ToString(next->format), base::Quoted(next->name),
                ToString(*header.backing_format));
  }
}

}  // namespace

std::optional<Extent> DiskImage::NextData(std::uint64_t offset) const {
  std::optional<Extent> found = FindData(offset, size());
  while (found && found->length < kLongExtent && found->end() < size()) {
    // Asks for one byte first, since it may be far to the next data.
    if (!FindData(found->end(), found->end() + 1)) break;
    const auto more = FindData(found->end(), size());
    if (!more || more->offset != found->end()) break;
    found->length += more->length;
  }
  return found;
}

std::unique_ptr<DiskImage> OpenImage(const Context& ctx, std::vector<ImageFile> files) {
  if (files.empty() || files.size() > kMaxFiles) {
    base::Throw(ErrorKind::kUnsupportedOperation,
                "a disk must consist of 1 to {} files, but has {}", kMaxFiles, files.size());
  }
  const auto cache = std::make_shared<TableCache>();
  std::unique_ptr<DiskImage> image;
  for (std::size_t i = files.size(); i-- > 0;) {
    ctx.Check();
    ImageFile& file = files[i];
    const ImageFile* next = i + 1 < files.size() ? &files[i + 1] : nullptr;
    if (file.format == DiskFormat::kRaw) {
      if (next != nullptr) {
        base::Throw(ErrorKind::kSnapshotIntegrity, "'{}' is raw, so it cannot be backed by '{}'",
                    base::Quoted(file.name), base::Quoted(next->name));
      }
      image = std::make_unique<RawImage>(ctx, std::move(file.fd));
      continue;
    }
    Qcow2Header header = ReadQcow2Header(file.fd.get(), file.name);
    CheckBackingFile(file, header, next);
    image = std::make_unique<Qcow2Image>(ctx, std::move(file.fd), file.name, std::move(header),
                                         std::move(image), cache);
  }
  return image;
}

}  // namespace msb::disk
