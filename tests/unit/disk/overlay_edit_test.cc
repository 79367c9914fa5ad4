// SPDX-License-Identifier: Apache-2.0

#include "src/disk/overlay_edit.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "src/base/file.h"
#include "src/disk/image_writer.h"
#include "src/disk/qcow2_header.h"
#include "tests/support/support.h"

namespace msb::disk {
namespace {

class OverlayEditTest : public ::testing::Test {
 protected:
  OverlayEditTest() : file_(base::CreateFileAt(base::OpenDirectory(dir_.path()).get(), "o", 0600)) {
    WriteOverlay(file_.get(), {.virtual_size = 1 << 30,
                               .backing_file = "former.qcow2",
                               .backing_format = DiskFormat::kQcow2});
  }

  std::string BackingFile() const { return ReadQcow2Header(file_.get(), "o").backing_file; }

  const test::TempDir dir_;
  const base::UniqueFd file_;
};

TEST_F(OverlayEditTest, NamesAnotherBackingFile) {
  for (const std::string& name : {std::string("a"), "sha256_" + std::string(64, 'f') + ".qcow2",
                                  std::string("former.qcow2"), std::string(1023, 'n')}) {
    SetBackingFile(file_.get(), "o", name);
    EXPECT_EQ(BackingFile(), name);
    EXPECT_EQ(ReadQcow2Header(file_.get(), "o").backing_format, DiskFormat::kQcow2);
    EXPECT_EQ(ReadQcow2Header(file_.get(), "o").virtual_size, 1U << 30);
  }
}

TEST_F(OverlayEditTest, RefusesANameThatDoesNotFit) {
  for (const std::string& name : {std::string(), std::string(1024, 'n')}) {
    EXPECT_MSB_ERROR(SetBackingFile(file_.get(), "/dir/o", name), ErrorKind::kUnsupportedOperation,
                     "/dir/o", "qemu-img rebase");
    EXPECT_EQ(BackingFile(), "former.qcow2");
  }
}

TEST_F(OverlayEditTest, TellsWhetherAnOverlayHasData) {
  EXPECT_TRUE(IsEmptyOverlay(file_.get(), "o"));
  // An entry of the L1 table, which begins at 192 KiB, with an L2 table at the end of the file.
  const std::string entry("\x80\0\0\0\0\x04\0\0", 8);
  base::WriteExactly(file_.get(), entry.data(), entry.size(), 3 << 16);
  base::Resize(file_.get(), 5 << 16);
  EXPECT_FALSE(IsEmptyOverlay(file_.get(), "o"));
}

TEST_F(OverlayEditTest, RefusesAFileThatIsNoQcow2) {
  base::Resize(file_.get(), 0);
  EXPECT_MSB_ERROR(SetBackingFile(file_.get(), "/dir/o", "a"), ErrorKind::kSnapshotIntegrity,
                   "/dir/o");
  EXPECT_MSB_ERROR(IsEmptyOverlay(file_.get(), "/dir/o"), ErrorKind::kSnapshotIntegrity, "/dir/o");
}

}  // namespace
}  // namespace msb::disk
