// SPDX-License-Identifier: Apache-2.0

#include "tests/support/qcow2_sample.h"

#include "tests/support/support.h"

namespace msb::test {
namespace {

constexpr std::size_t kCluster = 4096;
constexpr std::uint64_t kCopied = std::uint64_t{1} << 63;
// Positions in the file, in clusters.
constexpr std::size_t kRefcountTable = 1;
constexpr std::size_t kRefcountBlock = 2;
constexpr std::size_t kL1 = 3;
constexpr std::size_t kL2 = 4;
constexpr std::size_t kData = 5;

void Put(std::string& file, std::size_t offset, std::size_t length, std::uint64_t value) {
  for (std::size_t i = length; i-- > 0; value >>= 8) {
    file[offset + i] = static_cast<char>(value & 0xff);
  }
}

// Writes what every header begins with, and the name of the backing file behind it.
void PutStart(std::string& file, const std::string& backing_file) {
  file.replace(0, 4, "QFI\xfb");
  Put(file, 4, 4, 3);
  if (backing_file.empty()) return;
  Put(file, 8, 8, 112);
  Put(file, 16, 4, backing_file.size());
  file.replace(112, backing_file.size(), backing_file);
}

}  // namespace

std::string Qcow2Sample(const std::string& content, const std::string& backing_file,
                        std::uint64_t disk_bytes) {
  const std::size_t data_clusters = (content.size() + kCluster - 1) / kCluster;
  std::string file((kData + data_clusters) * kCluster, '\0');
  PutStart(file, backing_file);
  Put(file, 20, 4, 12);
  Put(file, 24, 8, disk_bytes);
  Put(file, 36, 4, 1);
  Put(file, 40, 8, kL1 * kCluster);
  Put(file, 48, 8, kRefcountTable * kCluster);
  Put(file, 56, 4, 1);
  Put(file, 96, 4, 4);
  Put(file, 100, 4, 104);
  Put(file, kRefcountTable * kCluster, 8, kRefcountBlock * kCluster);
  for (std::size_t i = 0; i < kData + data_clusters; ++i) {
    Put(file, kRefcountBlock * kCluster + i * 2, 2, 1);
  }
  Put(file, kL1 * kCluster, 8, kL2 * kCluster | kCopied);
  for (std::size_t i = 0; i < data_clusters; ++i) {
    Put(file, kL2 * kCluster + i * 8, 8, (kData + i) * kCluster | kCopied);
  }
  file.replace(kData * kCluster, content.size(), content);
  return file;
}

void MakeEmptyQcow2(const std::filesystem::path& path, const std::string& backing_file,
                    std::uint64_t tables) {
  constexpr std::size_t kTinyCluster = 512;
  const std::uint64_t first_table = (2 + tables * 8 / kTinyCluster + 1) * kTinyCluster;
  std::string file(2 * kTinyCluster + tables * 8, '\0');
  PutStart(file, backing_file);
  Put(file, 20, 4, 9);
  Put(file, 24, 8, tables * (kTinyCluster / 8) * kTinyCluster);
  Put(file, 36, 4, tables);
  Put(file, 40, 8, 2 * kTinyCluster);
  Put(file, 48, 8, kTinyCluster);  // An empty refcount table.
  Put(file, 56, 4, 1);
  Put(file, 96, 4, 4);
  Put(file, 100, 4, 104);
  for (std::uint64_t i = 0; i < tables; ++i) {
    Put(file, 2 * kTinyCluster + i * 8, 8, (first_table + i * kTinyCluster) | kCopied);
  }
  WriteFile(path, file);
  std::filesystem::resize_file(path, first_table + tables * kTinyCluster);
}

}  // namespace msb::test
