// SPDX-License-Identifier: Apache-2.0

#include "msb/disk.h"

namespace msb {

std::string_view ToString(DiskFormat format) noexcept {
  return format == DiskFormat::kRaw ? "raw" : "qcow2";
}

}  // namespace msb
