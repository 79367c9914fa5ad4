// SPDX-License-Identifier: Apache-2.0
//
// Builds small qcow2 files byte by byte, without the library's own code.

#ifndef MSB_TESTS_SUPPORT_QCOW2_SAMPLE_H_
#define MSB_TESTS_SUPPORT_QCOW2_SAMPLE_H_

#include <cstdint>
#include <filesystem>
#include <string>

namespace msb::test {

// Returns a version 3 qcow2 file with clusters of 4 KiB. Its disk has disk_bytes (at most 2 MiB)
// and begins with content (at most 1 MiB). It is backed by backing_file unless that is empty.
std::string Qcow2Sample(const std::string& content, const std::string& backing_file = "",
                        std::uint64_t disk_bytes = 2 << 20);

// Makes a version 3 qcow2 file with clusters of 512 bytes and this many L2 tables, each of which
// maps 32 KiB of the disk. All tables are holes: no cluster is allocated. The file is backed by
// backing_file unless that is empty.
void MakeEmptyQcow2(const std::filesystem::path& path, const std::string& backing_file,
                    std::uint64_t tables);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_QCOW2_SAMPLE_H_
