// SPDX-License-Identifier: Apache-2.0

#include "src/disk/disk_names.h"

#include <fmt/core.h>

#include "src/base/digest.h"

namespace msb::disk {

std::string UpperFileName(DiskFormat format) {
  return std::string(format == DiskFormat::kRaw ? kRawUpperFile : kQcow2UpperFile);
}

std::string DiskFileName(std::string_view digest, DiskFormat format) {
  return fmt::format("sha256_{}.{}", base::Digest::Require(digest).hex(), ToString(format));
}

std::optional<DiskFormat> FormatOfDiskFile(std::string_view name, std::string_view digest) {
  if (!base::Digest::Parse(digest)) return std::nullopt;  // The digest may come from outside.
  for (const DiskFormat format : {DiskFormat::kRaw, DiskFormat::kQcow2}) {
    if (name == DiskFileName(digest, format)) return format;
  }
  return std::nullopt;
}

}  // namespace msb::disk
