// SPDX-License-Identifier: Apache-2.0
//
// Decompresses the compressed clusters of qcow2 files.

#ifndef MSB_SRC_DISK_INFLATE_H_
#define MSB_SRC_DISK_INFLATE_H_

#include <cstddef>
#include <span>

#include "src/disk/qcow2_header.h"

namespace msb::disk {

// Decompresses exactly unpacked.size() bytes from the start of packed, in which other bytes may
// follow the compressed data. Returns false if the data is damaged.
bool Inflate(Qcow2Compression compression, std::span<const std::byte> packed,
             std::span<std::byte> unpacked);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_INFLATE_H_
