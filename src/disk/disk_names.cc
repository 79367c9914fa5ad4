#include "src/disk/disk_names.h"

#include <fmt/core.h>

namespace msb::disk {

std::string UpperFileName(DiskFormat format) {
  return std::string(format == DiskFormat::kRaw ? kRawUpperFile : kQcow2UpperFile);
}

std::string DiskFileName(std::string_view digest, DiskFormat format) {
  return fmt::format("sha256_{}.{}", digest.substr(digest.find(':') + 1), ToString(format));
}

}  // namespace msb::disk
