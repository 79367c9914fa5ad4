// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

using std::string_literals::operator""s;
using test::TempDir;
using test::WriteFile;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(QemuMachineTest, EachFieldIsOfTheFirstThatSetsIt) {
  DirectoryRecord record;
  record.machine = {.append = "own"};
  record.cpus = 4;
  record.machine_defaults = {.kernel = "/old",
                             .initrd = "/initrd",
                             .append = "old",
                             .memory_mib = 100,
                             .cpus = 1,
                             .extra_arguments = {"-old"}};
  const QemuConfig recorded = MachineOf(record, {.binary = "qemu"});
  EXPECT_EQ(recorded.binary, "qemu");
  EXPECT_EQ(recorded.kernel, "/old");
  EXPECT_EQ(recorded.initrd, "/initrd");
  EXPECT_EQ(recorded.append, "own");
  EXPECT_EQ(recorded.memory_mib, 100U);
  EXPECT_EQ(recorded.cpus, 4U);
  EXPECT_THAT(recorded.extra_arguments, ElementsAre("-old"));

  const QemuConfig client = MachineOf(record, {.kernel = "/new",
                                               .append = "new",
                                               .memory_mib = 200,
                                               .cpus = 2,
                                               .extra_arguments = {"-new"}});
  EXPECT_EQ(client.kernel, "/new");
  EXPECT_EQ(client.initrd, "/initrd");
  EXPECT_EQ(client.append, "own");
  EXPECT_EQ(client.memory_mib, 200U);
  EXPECT_EQ(client.cpus, 4U);
  EXPECT_THAT(client.extra_arguments, ElementsAre("-new"));
}

TEST(QemuMachineTest, UnsetFieldsHaveDefaults) {
  const QemuConfig machine = MachineOf({}, {});
  EXPECT_EQ(machine.memory_mib, 512U);
  EXPECT_EQ(machine.cpus, 1U);
  EXPECT_TRUE(machine.kernel.empty());
}

TEST(QemuMachineTest, RecordedPathsAreAbsolute) {
  const QemuConfig machine =
      RecordableMachine({.binary = "qemu", .kernel = "vmlinuz", .initrd = "/boot/initrd"});
  EXPECT_EQ(machine.kernel, std::filesystem::current_path() / "vmlinuz");
  EXPECT_EQ(machine.initrd, "/boot/initrd");
  EXPECT_TRUE(machine.binary.empty());
}

TEST(QemuMachineTest, RefusesTextThatCannotBeRecorded) {
  for (const auto& [text, reason] :
       {std::pair("a\0b"s, "contains a NUL byte"), std::pair("\xff"s, "is not UTF-8")}) {
    EXPECT_MSB_ERROR(RecordableMachine({.kernel = text}), ErrorKind::kInvalidArgument,
                     "QemuConfig::kernel '", reason);
    EXPECT_MSB_ERROR(RecordableMachine({.initrd = text}), ErrorKind::kInvalidArgument,
                     "QemuConfig::initrd '", reason);
    EXPECT_MSB_ERROR(RecordableMachine({.append = text}), ErrorKind::kInvalidArgument,
                     "QemuConfig::append '", reason);
    EXPECT_MSB_ERROR(RecordableMachine({.extra_arguments = {text}}), ErrorKind::kInvalidArgument,
                     "QemuConfig::extra_arguments '", reason);
  }
}

class CheckBootableTest : public ::testing::Test {
 protected:
  // Returns the message with which a raw disk with this content is refused, or an empty string if
  // it is accepted.
  std::string Refusal(const std::string& content, const QemuConfig& machine = {}) const {
    WriteFile(dir_ / "upper.ext4", content);
    const SandboxRecord sandbox = {.image = Image{"base.img", ""},
                                   .upper = Disk{dir_ / "upper.ext4", DiskFormat::kRaw, ""}};
    try {
      CheckBootable(Context::Background(), fd_.get(), "worker", sandbox, machine);
      return "";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInvalidConfig);
      EXPECT_THAT(e.what(), HasSubstr("'worker'"));
      return e.what();
    }
  }

  static std::string BootSector() {
    std::string sector(512, '\0');
    return sector.replace(510, 2, "\x55\xaa");
  }

  const TempDir dir_;
  const base::UniqueFd fd_ = base::OpenDirectory(dir_.path());
};

TEST_F(CheckBootableTest, DiskNeedsABootSignatureOrAKernelOrExtraArguments) {
  const std::string empty(4096, '\0');
  EXPECT_THAT(Refusal(empty), HasSubstr("set QemuConfig::kernel"));
  EXPECT_EQ(Refusal(BootSector() + empty), "");
  WriteFile(dir_ / "vmlinuz", "kernel");
  EXPECT_EQ(Refusal(empty, {.kernel = dir_ / "vmlinuz"}), "");
  EXPECT_EQ(Refusal(empty, {.extra_arguments = {"-cdrom", "install.iso"}}), "");
}

TEST_F(CheckBootableTest, FileThatIsNoDiskImageIsRefused) {
  WriteFile(dir_ / "vmlinuz", "kernel");
  const QemuConfig machine = {.kernel = dir_ / "vmlinuz"};
  EXPECT_THAT(Refusal("root:x:0:0:root\n", machine),
              HasSubstr("its size, 16 bytes, is not a multiple of 512; create the sandbox from a "
                        "complete raw or qcow2 disk image"));
  EXPECT_THAT(Refusal("", machine), HasSubstr("is not a disk image: it is empty"));
  EXPECT_THAT(Refusal(BootSector() + "x"), HasSubstr("image 'base.img'"));
}

TEST_F(CheckBootableTest, KernelAndInitrdMustExist) {
  EXPECT_THAT(Refusal(BootSector(), {.kernel = dir_ / "absent"}),
              HasSubstr("set Config::qemu.kernel"));
  EXPECT_THAT(Refusal(BootSector(), {.initrd = dir_ / "absent"}),
              HasSubstr("set Config::qemu.initrd"));
}

}  // namespace
}  // namespace msb::vmm
