// SPDX-License-Identifier: Apache-2.0

#include "src/disk/image_probe.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "src/base/descriptor.h"
#include "src/base/spawn.h"
#include "tests/support/support.h"

namespace msb::disk {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using namespace std::string_literals;

constexpr std::size_t kSize = 1 << 16;

class ImageProbeTest : public ::testing::Test {
 protected:
  DiskFormat Probe(const std::string& name = "it's an image") const {
    const base::UniqueFd fd = base::OpenAt(AT_FDCWD, (dir_ / name).c_str(), O_RDONLY);
    return ProbeImage(Context::Background(), fd.get(), dir_ / name);
  }

  std::string Refusal(ErrorKind kind, const std::string& name = "it's an image") const {
    try {
      Probe(name);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind) << e.what();
      return e.what();
    }
    ADD_FAILURE() << name << " is not refused";
    return {};
  }

  void Write(const std::string& content) const { test::WriteFile(dir_ / "it's an image", content); }

  // Returns a disk with these bytes at offset. A negative offset counts from the end.
  static std::string DiskWith(std::int64_t offset, const std::string& bytes) {
    std::string disk(kSize, '\0');
    if (offset < 0) offset += kSize;
    return disk.replace(static_cast<std::size_t>(offset), bytes.size(), bytes);
  }

  test::TempDir dir_;
};

TEST_F(ImageProbeTest, TakesDisksOfAnyContentForRaw) {
  for (const std::string& content :
       {std::string(kSize, '\0'), test::Noise(kSize, 1), std::string(512, 'x'),
        DiskWith(510, "\x55\xaa"), DiskWith(1080, "\x53\xef"), DiskWith(32768, "CD001"),
        DiskWith(-510, "conectix"), DiskWith(256, "ustar"), DiskWith(0, "LUKS"),
        DiskWith(0, "\x60\x2a\x4d\x18")}) {
    Write(content);
    EXPECT_EQ(Probe(), DiskFormat::kRaw);
  }
}

TEST_F(ImageProbeTest, RecognizesOtherFormatsByTheirMagic) {
  const std::vector<std::pair<std::string, std::string>> images = {
      {"vmdk", DiskWith(0, "KDMV")},
      {"vmdk", DiskWith(0, "COWD")},
      {"vmdk", "# Disk DescriptorFile\nversion=1\n"},
      {"vdi", DiskWith(64, "\x7f\x10\xda\xbe")},
      {"vhdx", DiskWith(0, "vhdxfile")},
      {"vpc", DiskWith(0, "conectix")},
      {"vpc", DiskWith(-512, "conectix")},
      {"vpc", DiskWith(-511, "conectix")},
      {"qed", DiskWith(0, "QED\0"s)},
      {"qcow", DiskWith(0, "QFI\xfb\0\0\0\x01"s)},
      {"parallels", DiskWith(0, "WithoutFreeSpace")},
      {"parallels", DiskWith(0, "WithouFreSpacExt")},
      {"dmg", DiskWith(-512, "koly")},
      {"bochs", DiskWith(0, "Bochs Virtual HD Image")},
      {"cloop", DiskWith(0, "#!/bin/sh\n#V2.0 Format\n")},
      {"raw", DiskWith(32769, "CD001")},
      {"raw", DiskWith(32769, "BEA01")}};
  const std::string quoted = "'" + dir_.path().native() + "/it'\\''s an image'";
  for (const auto& [driver, content] : images) {
    Write(content);
    EXPECT_THAT(Refusal(ErrorKind::kUnsupportedOperation),
                HasSubstr("qemu-img convert -f " + driver + " -O qcow2 " + quoted));
  }
}

TEST_F(ImageProbeTest, RefusesARawImageOfPartialSectors) {
  for (const std::string& content :
       {"<html>404</html>"s, "KDM"s, std::string(511, '\0'), test::Noise(kSize + 1, 1)}) {
    Write(content);
    EXPECT_THAT(Refusal(ErrorKind::kInvalidArgument),
                AllOf(HasSubstr("/it's an image is not a disk image, or is truncated"),
                      HasSubstr("its size, " + std::to_string(content.size()) + " bytes, is not"),
                      HasSubstr("give a complete raw or qcow2 disk image")));
  }
  EXPECT_EQ(ProblemOfRawSize(0), "it is empty");
  EXPECT_EQ(ProblemOfRawSize(512), std::nullopt);
}

// The command in the message pads the image, which is then accepted.
TEST_F(ImageProbeTest, NamesTheCommandThatPadsAnImage) {
  Write(test::Noise(kSize + 1, 1));
  const std::string message = Refusal(ErrorKind::kInvalidArgument);
  const std::size_t command = message.find("truncate ");
  ASSERT_NE(command, std::string::npos) << message;
  EXPECT_EQ(test::RunCommand(message.substr(command)).status, 0);
  EXPECT_EQ(Probe(), DiskFormat::kRaw);
  EXPECT_EQ(std::filesystem::file_size(dir_ / "it's an image"), kSize + 512);
}

TEST_F(ImageProbeTest, RefusesATarArchive) {
  Write(DiskWith(257, "ustar"));
  EXPECT_THAT(Refusal(ErrorKind::kUnsupportedOperation),
              AllOf(HasSubstr("/it's an image is a tar archive"),
                    HasSubstr("import an exported snapshot with Snapshot::Import"),
                    HasSubstr("tar -xf '")));
}

TEST_F(ImageProbeTest, RefusesATarArchiveOfAnyFormat) {
  test::WriteFile(dir_ / "disk.img", std::string(kSize, '\0'));
  for (const std::string format : {"v7", "ustar", "gnu", "posix"}) {
    const auto packed =
        test::RunCommand("cd '" + dir_.path().native() + "' && tar --format=" + format +
                         " -cf \"it's an image\" disk.img");
    ASSERT_EQ(packed.status, 0) << packed.output;
    EXPECT_THAT(Refusal(ErrorKind::kUnsupportedOperation),
                HasSubstr("/it's an image is a tar archive"))
        << format;
  }
}

TEST_F(ImageProbeTest, NamesTheCommandForAnAndroidSparseImage) {
  Write(DiskWith(0, "\x3a\xff\x26\xed"));
  EXPECT_THAT(
      Refusal(ErrorKind::kUnsupportedOperation),
      AllOf(HasSubstr("/it's an image is an Android sparse image"), HasSubstr("run simg2img '")));
}

// These cannot all be written here, as most of their programs are not installed.
TEST_F(ImageProbeTest, RecognizesCompressedFilesByTheirMagic) {
  for (const auto& [start, command] :
       std::vector<std::pair<std::string, std::string>>{{"\x1f\x8b\x08", "gzip -dc '"},
                                                        {"\x1f\x9d\x90", "gzip -dc '"},
                                                        {"\x04\x22\x4d\x18", "lz4 -dc '"},
                                                        {"\x02\x21\x4c\x18", "lz4 -dc '"},
                                                        {"7z\xbc\xaf\x27\x1c", "7z x -so '"},
                                                        {"Rar!\x1a\x07", "unrar p -inul '"},
                                                        {"LZIP\x01", "lzip -dc '"},
                                                        {"\x89LZO\0\r\n\x1a\n"s, "lzop -dc '"},
                                                        {"\x50\x2a\x4d\x18", "zstd -dc '"},
                                                        {"\x5f\x2a\x4d\x18", "zstd -dc '"}}) {
    Write(DiskWith(0, start));
    EXPECT_THAT(Refusal(ErrorKind::kUnsupportedOperation),
                AllOf(HasSubstr("/it's an image is compressed"), HasSubstr("run " + command),
                      HasSubstr("import an exported snapshot with Snapshot::Import")));
  }
}

TEST_F(ImageProbeTest, DescribesDiskImagesByTheirStart) {
  for (const auto& [start, description] : std::vector<std::pair<std::string, std::string>>{
           {"QFI\xfb", "a qcow2 image"},
           {"KDMV", "a VMDK image"},
           {DiskWith(32769, "CD001"), "an ISO 9660 image (of a CD or DVD)"},
           {DiskWith(1080, "\x53\xef"), "a raw disk image with the file system ext4"},
           {DiskWith(510, "\x55\xaa"), "a raw disk image"}}) {
    EXPECT_EQ(DescribeDiskImage(start), description);
  }
  for (const std::string& start : {""s, "KDM"s, "text"s, DiskWith(257, "ustar")}) {
    EXPECT_EQ(DescribeDiskImage(start), std::nullopt);
  }
  EXPECT_TRUE(IsTarStart(DiskWith(257, "ustar")));
  EXPECT_FALSE(IsTarStart("ustar"));
}

TEST_F(ImageProbeTest, RefusesAnEmptyImage) {
  Write("");
  EXPECT_THAT(Refusal(ErrorKind::kInvalidArgument),
              AllOf(HasSubstr("is empty"), HasSubstr("qemu-img create -f qcow2 ")));
}

TEST_F(ImageProbeTest, NamesTheCommandThatUnpacksACompressedImage) {
  test::WriteFile(dir_ / "disk.img", test::Noise(kSize, 1));
  for (const std::string command : {"gzip -c disk.img", "xz -c disk.img", "zstd -qc disk.img",
                                    "bzip2 -c disk.img", "zip -q - disk.img"}) {
    const std::string program = command.substr(0, command.find(' '));
    if (base::FindProgram(program).empty()) continue;
    const std::string cd = "cd '" + dir_.path().native() + "' && ";
    ASSERT_EQ(test::RunCommand(cd + command + " > \"it's packed.img\"").status, 0) << command;
    const std::string message = Refusal(ErrorKind::kUnsupportedOperation, "it's packed.img");
    EXPECT_THAT(message, HasSubstr("it's packed.img is compressed: to unpack it, run "));
    const std::size_t begin = message.find("run ") + 4;
    const auto result = test::RunCommand(message.substr(begin, message.find(", and give") - begin));
    EXPECT_EQ(result.status, 0) << message << "\n" << result.output;
    EXPECT_EQ(test::ReadFile(dir_ / "it's packed-unpacked.img"), test::Noise(kSize, 1)) << message;
  }
}

// The command in the message makes an image that is accepted.
TEST_F(ImageProbeTest, ConversionThatIsNamedWorks) {
  if (base::FindProgram("qemu-img").empty()) GTEST_SKIP() << "no qemu-img on the PATH";
  const auto make = [&](const std::string& arguments) {
    const auto result =
        test::RunCommand("cd '" + dir_.path().native() + "' && qemu-img create -q " + arguments);
    return result.status == 0;
  };
  test::WriteFile(dir_ / "base.raw", test::Noise(1 << 20, 1));
  ASSERT_TRUE(make("-f qcow2 -b base.raw -F raw backed.img"));
  std::vector<std::string> images = {"backed.img"};
  for (const auto& [name, arguments] : std::vector<std::pair<std::string, std::string>>{
           {"a.vmdk", "-f vmdk"},
           {"stream.vmdk", "-f vmdk -o subformat=streamOptimized"},
           {"flat.vmdk", "-f vmdk -o subformat=monolithicFlat"},
           {"a.vdi", "-f vdi"},
           {"a.vhdx", "-f vhdx"},
           {"a.vhd", "-f vpc"},
           {"fixed.vhd", "-f vpc -o subformat=fixed"},
           {"a.qed", "-f qed"},
           {"a.qcow", "-f qcow"},
           {"a.parallels", "-f parallels"}}) {
    // Some builds of qemu-img cannot write all of them.
    if (make(arguments + " " + name + " 4M")) images.push_back(name);
  }
  EXPECT_GT(images.size(), 4U);
  const std::string vhd = test::ReadFile(dir_ / "fixed.vhd");
  test::WriteFile(dir_ / "short.vhd", vhd.substr(0, vhd.size() - 1));  // A footer of 511 bytes.
  images.emplace_back("short.vhd");
  ASSERT_TRUE(make("-f qcow2 snapshots.img 4M && qemu-img snapshot -c one snapshots.img"));
  images.emplace_back("snapshots.img");
  ASSERT_TRUE(make("-f qcow2 -o data_file=data.raw data.img 4M"));
  images.emplace_back("data.img");
  if (make("-f qcow2 bitmaps.img 4M && qemu-img bitmap --add bitmaps.img one")) {
    images.emplace_back("bitmaps.img");
  }
  test::WriteFile(dir_ / "a.iso", DiskWith(32769, "CD001"));
  images.emplace_back("a.iso");
  for (const std::string& name : images) {
    const std::string message = Refusal(ErrorKind::kUnsupportedOperation, name);
    const std::size_t command = message.find("qemu-img convert");
    ASSERT_NE(command, std::string::npos) << message;
    const auto result =
        test::RunCommand("cd '" + dir_.path().native() + "' && " + message.substr(command));
    EXPECT_EQ(result.status, 0) << message << "\n" << result.output;
    const std::string stem = std::filesystem::path(name).stem();
    EXPECT_EQ(Probe(stem + "-converted.qcow2"), DiskFormat::kQcow2) << name;
  }
}

TEST_F(ImageProbeTest, NamesTheCommandThatDecryptsAnImage) {
  if (base::FindProgram("qemu-img").empty()) GTEST_SKIP() << "no qemu-img on the PATH";
  const std::string cd = "cd '" + dir_.path().native() + "' && ";
  test::WriteFile(dir_ / "KEYFILE", "secret");
  const auto made = test::RunCommand(
      cd +
      "qemu-img create -q -f qcow2 --object secret,id=k,file=KEYFILE "
      "-o encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10 'a, b.img' 1M");
  if (made.status != 0) GTEST_SKIP() << "qemu-img has no LUKS: " << made.output;
  const std::string message = Refusal(ErrorKind::kUnsupportedOperation, "a, b.img");
  EXPECT_THAT(message, AllOf(HasSubstr("/a, b.img' is encrypted"), HasSubstr("KEYFILE")));
  const auto result = test::RunCommand(cd + message.substr(message.find("qemu-img convert")));
  EXPECT_EQ(result.status, 0) << message << "\n" << result.output;
  EXPECT_EQ(Probe("a, b-converted.qcow2"), DiskFormat::kQcow2);
}

TEST_F(ImageProbeTest, NamesTheCommandThatDecryptsALuksContainer) {
  if (base::FindProgram("qemu-img").empty()) GTEST_SKIP() << "no qemu-img on the PATH";
  const std::string cd = "cd '" + dir_.path().native() + "' && ";
  test::WriteFile(dir_ / "KEYFILE", "secret");
  const auto made = test::RunCommand(cd +
                                     "qemu-img create -q -f luks --object secret,id=k,file=KEYFILE "
                                     "-o key-secret=k,iter-time=10 'a, b.img' 1M");
  if (made.status != 0) GTEST_SKIP() << "qemu-img has no LUKS: " << made.output;
  const std::string message = Refusal(ErrorKind::kUnsupportedOperation, "a, b.img");
  EXPECT_THAT(message,
              AllOf(HasSubstr("/a, b.img is an encrypted disk (LUKS)"), HasSubstr("KEYFILE")));
  const auto result = test::RunCommand(cd + message.substr(message.find("qemu-img convert")));
  EXPECT_EQ(result.status, 0) << message << "\n" << result.output;
  EXPECT_EQ(Probe("a, b-converted.qcow2"), DiskFormat::kQcow2);
}

// QEMU cannot read version 2.
TEST_F(ImageProbeTest, NamesCryptsetupForVersion2OfLuks) {
  Write(DiskWith(0, "LUKS\xba\xbe\0\x02"s));
  EXPECT_THAT(Refusal(ErrorKind::kUnsupportedOperation),
              AllOf(HasSubstr("/it's an image is an encrypted disk (LUKS)"),
                    HasSubstr("run cryptsetup open --readonly '"), HasSubstr("-converted.qcow2'")));
}

TEST_F(ImageProbeTest, RefusesAnEmptyDiskInAnImage) {
  if (base::FindProgram("qemu-img").empty()) GTEST_SKIP() << "no qemu-img on the PATH";
  test::RunCommand("qemu-img create -q -f qcow2 '" + (dir_ / "empty.qcow2").native() + "' 0");
  EXPECT_THAT(Refusal(ErrorKind::kInvalidArgument, "empty.qcow2"),
              AllOf(HasSubstr("/empty.qcow2 is empty"), HasSubstr("qemu-img create -f qcow2 ")));
}

TEST_F(ImageProbeTest, NamesTheBackingFile) {
  if (base::FindProgram("qemu-img").empty()) GTEST_SKIP() << "no qemu-img on the PATH";
  test::WriteFile(dir_ / "base.raw", test::Noise(1 << 20, 1));
  test::RunCommand("cd '" + dir_.path().native() +
                   "' && qemu-img create -q -f qcow2 -b base.raw -F raw o.qcow2");
  EXPECT_THAT(Refusal(ErrorKind::kUnsupportedOperation, "o.qcow2"),
              AllOf(HasSubstr("is backed by 'base.raw'"),
                    HasSubstr("qemu-img convert -f qcow2 -O qcow2 ")));
}

}  // namespace
}  // namespace msb::disk
