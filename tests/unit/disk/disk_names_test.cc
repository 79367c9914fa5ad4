// SPDX-License-Identifier: Apache-2.0

#include "src/disk/disk_names.h"

#include <gtest/gtest.h>

namespace msb::disk {
namespace {

TEST(DiskNamesTest, ADiskFileIsNamedAfterItsDigestAndFormat) {
  const std::string hex(64, 'a');
  EXPECT_EQ(DiskFileName("sha256:" + hex, DiskFormat::kRaw), "sha256_" + hex + ".raw");
  EXPECT_EQ(FormatOfDiskFile("sha256_" + hex + ".raw", "sha256:" + hex), DiskFormat::kRaw);
  EXPECT_EQ(FormatOfDiskFile("sha256_" + hex + ".qcow2", "sha256:" + hex), DiskFormat::kQcow2);
}

TEST(DiskNamesTest, NoFileIsNamedAfterAnotherDigestOrNone) {
  const std::string hex(64, 'a');
  EXPECT_FALSE(FormatOfDiskFile("sha256_" + hex + ".raw", "sha256:" + std::string(64, 'b')));
  EXPECT_FALSE(FormatOfDiskFile("sha256_" + hex + ".vmdk", "sha256:" + hex));
  EXPECT_FALSE(FormatOfDiskFile("sha256_../../x.raw", "sha256:../../x"));
  EXPECT_FALSE(FormatOfDiskFile("sha256_.raw", ""));
}

}  // namespace
}  // namespace msb::disk
