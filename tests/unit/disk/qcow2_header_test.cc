// SPDX-License-Identifier: Apache-2.0

#include "src/disk/qcow2_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/file.h"
#include "tests/support/qcow2_sample.h"
#include "tests/support/support.h"

namespace msb::disk {
namespace {

using ::testing::HasSubstr;

constexpr std::size_t kExtensions = 104;  // Where the sample's header ends.

std::string Number(std::uint64_t value, std::size_t length) {
  std::string bytes(length, '\0');
  for (std::size_t i = length; i-- > 0; value >>= 8) bytes[i] = static_cast<char>(value & 0xff);
  return bytes;
}

std::string Extension(std::uint32_t type, const std::string& content) {
  std::string bytes = Number(type, 4) + Number(content.size(), 4) + content;
  bytes.resize((bytes.size() + 7) / 8 * 8);
  return bytes;
}

class Qcow2HeaderTest : public ::testing::Test {
 protected:
  void Set(std::size_t offset, const std::string& bytes) {
    file_.replace(offset, bytes.size(), bytes);
  }

  Qcow2Header Read() {
    std::filesystem::remove(dir_ / "a");
    test::WriteFile(dir_ / "a", file_);
    return ReadQcow2Header(base::OpenEntryAt(base::OpenDirectory(dir_.path()).get(), "a").fd.get(),
                           "the file");
  }

  void ExpectRefusal(ErrorKind kind, const std::string& message) {
    try {
      Read();
      ADD_FAILURE() << "not refused: " << message;
    } catch (const Error& e) {
      EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(kind)) << e.what();
      EXPECT_THAT(e.what(), HasSubstr("'the file'"));
      EXPECT_THAT(e.what(), HasSubstr(message));
    }
  }

  test::TempDir dir_;
  std::string file_ = test::Qcow2Sample("content");
};

TEST_F(Qcow2HeaderTest, FieldsAreThoseOfTheFile) {
  const Qcow2Header header = Read();
  EXPECT_EQ(header.version, 3U);
  EXPECT_EQ(header.cluster_bytes(), 4096U);
  EXPECT_EQ(header.virtual_size, 2U << 20);
  EXPECT_EQ(header.l1_entries, 1U);
  EXPECT_EQ(header.l1_offset, 3U * 4096);
  EXPECT_EQ(header.refcount_table_offset, 4096U);
  EXPECT_EQ(header.refcount_table_clusters, 1U);
  EXPECT_EQ(header.refcount_order, 4U);
  EXPECT_FALSE(header.extended_l2);
  EXPECT_FALSE(header.bitmaps);
  EXPECT_EQ(header.compression, Qcow2Compression::kZlib);
  EXPECT_EQ(header.backing_file, "");
  EXPECT_FALSE(header.backing_format);
}

TEST_F(Qcow2HeaderTest, Version2HasNoFeatures) {
  Set(4, Number(2, 4));
  // Where version 3 has fields for features, version 2 may have a header extension.
  Set(72, Extension(0xe2792aca, "raw") + std::string(32, '\0'));
  const Qcow2Header header = Read();
  EXPECT_EQ(header.version, 2U);
  EXPECT_EQ(header.refcount_order, 4U);
  EXPECT_EQ(header.backing_format, DiskFormat::kRaw);
}

TEST_F(Qcow2HeaderTest, ExtensionsAreReadOrSkipped) {
  const std::string name = "base.raw";
  const std::string extensions = Extension(0x12345678, "unknown") + Extension(0x12345679, "") +
                                 Extension(0xe2792aca, "qcow2") + Extension(0, "");
  Set(kExtensions, extensions + Extension(0xe2792aca, "after the end"));
  Set(8, Number(kExtensions + 200, 8) + Number(name.size(), 4));
  Set(kExtensions + 200, name);
  const Qcow2Header header = Read();
  EXPECT_EQ(header.backing_file, name);
  EXPECT_EQ(header.backing_format, DiskFormat::kQcow2);
}

TEST_F(Qcow2HeaderTest, AnEmptyBackingFormatMeansNone) {
  Set(kExtensions, Extension(0xe2792aca, ""));
  EXPECT_FALSE(Read().backing_format);
}

TEST_F(Qcow2HeaderTest, OtherBackingFormatsAreUnsupported) {
  Set(kExtensions, Extension(0xe2792aca, "vmdk"));
  ExpectRefusal(ErrorKind::kUnsupportedOperation, "vmdk");
}

TEST_F(Qcow2HeaderTest, BitmapsCountWhileTheyAreValid) {
  Set(kExtensions, Extension(0x23852875, std::string(24, '\0')));
  EXPECT_FALSE(Read().bitmaps);
  Set(88, Number(1, 8));
  EXPECT_TRUE(Read().bitmaps);
}

TEST_F(Qcow2HeaderTest, NamesAnUnknownFeatureAsTheFileDoes) {
  Set(72, Number(1 << 5, 8));
  ExpectRefusal(ErrorKind::kUnsupportedOperation, "incompatible feature 5");
  const auto entry = [](char type, char bit, std::string name) {
    name.resize(46);
    return std::string{type, bit} + name;
  };
  Set(kExtensions, Extension(0x6803f857, entry(1, 5, "compatible") + entry(0, 4, "other") +
                                             entry(0, 5, "time travel")));
  ExpectRefusal(ErrorKind::kUnsupportedOperation, "'time travel'");
}

TEST_F(Qcow2HeaderTest, FilesInUseAreRefusedWithAdvice) {
  Set(72, Number(1, 8));
  ExpectRefusal(ErrorKind::kSnapshotIntegrity, "qemu-img check -r all");
  Set(72, Number(2, 8));
  ExpectRefusal(ErrorKind::kSnapshotIntegrity, "qemu-img check -r all");
}

TEST_F(Qcow2HeaderTest, PartsOfSectorsAreNotSeen) {
  Set(24, Number(1'000'000, 8));
  EXPECT_EQ(Read().virtual_size, 1'000'000U / 512 * 512);
}

TEST_F(Qcow2HeaderTest, RefusesTablesOutsideTheFile) {
  const std::string sound = file_;
  Set(40, Number(1 << 30, 8));
  ExpectRefusal(ErrorKind::kSnapshotIntegrity,
                "has an L1 table outside the file; replace it with an undamaged copy");
  file_ = sound;
  Set(48, Number(4095, 8));
  ExpectRefusal(ErrorKind::kSnapshotIntegrity,
                "has a refcount table that is not aligned to a cluster; ");
}

TEST_F(Qcow2HeaderTest, EveryShorterFileIsRefused) {
  const std::string whole = file_;
  for (std::size_t size = 0; size < 3 * 4096; size += size < 120 ? 1 : 1000) {
    file_ = whole.substr(0, size);
    EXPECT_MSB_ERROR(Read(), ErrorKind::kSnapshotIntegrity, "qcow2 file 'the file' ");
  }
}

TEST_F(Qcow2HeaderTest, BackingFilesAreBesideTheFile) {
  Qcow2Header header;
  for (const char* name : {"", "base.raw", "a b", "..a", "-"}) {
    header.backing_file = name;
    EXPECT_NO_THROW(CheckBackingName(header, "a")) << name;
  }
  for (const char* name : {"/etc/shadow", "../a", "a/b", "..", ".", "nbd:host:1", "json:{}"}) {
    header.backing_file = name;
    EXPECT_MSB_ERROR(CheckBackingName(header, "a"), ErrorKind::kSnapshotIntegrity,
                     "'a' names the backing file '" + std::string(name) + "'", "a plain file name");
  }
  header.backing_file = std::string("a\0b", 3);
  EXPECT_MSB_ERROR(CheckBackingName(header, "a"), ErrorKind::kSnapshotIntegrity,
                   "'a' names the backing file 'a\\x00b'", "a plain file name");
}

}  // namespace
}  // namespace msb::disk
