// SPDX-License-Identifier: Apache-2.0
//
// Live snapshots, and exec, of VMs of the qemu backend: VMs that do not run their processor and, if
// there is a guest (tests/vm/make_guest.sh), one with QEMU's guest agent.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "src/base/spawn.h"
#include "tests/program/program_home.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

constexpr int kSnapshotSandboxRunningCode = 16;

class LiveCommandTest : public ProgramTest {
 protected:
  void SetUp() override {
    options_.environment["PATH"] = "/usr/bin:/bin:/usr/sbin:/sbin";
    if (base::FindProgram("qemu-system-x86_64").empty()) {
      GTEST_SKIP() << "no qemu-system-x86_64 on the PATH";
    }
    options_.environment["MSB_BACKEND"] = "qemu";
    MakeSparseFile(image_, 64 << 20, {});
  }

  void TearDown() override {
    if (fs::exists(home_ / "sandboxes/vm")) Run({"sandbox", "stop", "--force", "vm"});
  }

  // Boots the sandbox "vm" with the image and these options.
  void Boot(Arguments options) const {
    Arguments arguments = {"sandbox", "create", "vm", "--image", image_};
    arguments.insert(arguments.end(), options.begin(), options.end());
    Output(arguments);
  }
  // Boots a VM that does not run its processor, so it has no guest agent.
  void BootStill() const { Boot({"--memory", "16", "--qemu-arg", "-S"}); }

  std::string ConsistencyOf(const std::string& snapshot) const {
    return Document("inspect", {"inspect", snapshot})["consistency"];
  }

  const fs::path image_ = dir_ / "base.img";
};

TEST_F(LiveCommandTest, WithoutAnAgentASnapshotIsOnlyCrashConsistent) {
  BootStill();
  const ProcessResult off = Run({"create", "off", "--from", "vm"});
  EXPECT_EQ(off.exit_code, kSnapshotSandboxRunningCode);
  EXPECT_THAT(off.err, AllOf(HasSubstr("sandbox 'vm' is running"), HasSubstr("stop it first")));

  const ProcessResult made = Run({"create", "auto", "--from", "vm", "--live"});
  EXPECT_EQ(made.exit_code, 0) << made.err;
  EXPECT_THAT(made.err, HasSubstr("the snapshot of sandbox 'vm' is only crash-consistent"));
  EXPECT_EQ(ConsistencyOf("auto"), "crash-consistent");

  EXPECT_EQ(Document("create", {"create", "crash", "--from", "vm", "--live", "--consistency",
                                "crash-consistent"})["consistency"],
            "crash-consistent");
  EXPECT_EQ(ConsistencyOf("crash"), "crash-consistent");
  EXPECT_EQ(Document("sandbox-list", {"sandbox", "list"})[0]["status"], "running");
  Output({"sandbox", "stop", "--force", "vm"});
  Output({"create", "stopped", "--from", "vm", "--live"});
  EXPECT_EQ(ConsistencyOf("stopped"), "stopped");
}

TEST_F(LiveCommandTest, WithoutAnAgentAFilesystemConsistentSnapshotIsRefused) {
  BootStill();
  const ProcessResult result =
      Run({"create", "s", "--from", "vm", "--live", "--consistency", "filesystem-consistent"});
  EXPECT_EQ(result.exit_code, kUnsupportedCode);
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("cannot freeze the file systems of sandbox 'vm'"),
                    HasSubstr("install qemu-guest-agent"), HasSubstr("--consistency auto")));
  EXPECT_FALSE(HasSnapshot("s"));
}

TEST_F(LiveCommandTest, ExecWithoutAnAgentEndsAtItsTimeout) {
  BootStill();
  const ProcessResult result = Run({"exec", "--timeout", "1", "vm", "--", "true"});
  EXPECT_EQ(result.exit_code, kCancelledCode);
  EXPECT_THAT(result.err, AllOf(HasSubstr("'true' in sandbox 'vm' did not end within the time"),
                                HasSubstr("set a longer --timeout")));
}

TEST_F(LiveCommandTest, RefusesInvalidCommandLines) {
  const ProcessResult alone =
      Run({"create", "s", "--from", "vm", "--consistency", "crash-consistent"});
  EXPECT_EQ(alone.exit_code, kUsageCode);
  EXPECT_THAT(alone.err, AllOf(HasSubstr("--consistency"), HasSubstr("--live")));
  const ProcessResult unknown =
      Run({"create", "s", "--from", "vm", "--live", "--consistency", "perfect"});
  EXPECT_EQ(unknown.exit_code, kUsageCode);
  EXPECT_THAT(unknown.err, AllOf(HasSubstr("--consistency"), HasSubstr("perfect")));
}

TEST_F(LiveCommandTest, AGuestWithAnAgentExecutesCommandsAndIsFrozen) {
  const char* guest = std::getenv("MSB_TEST_GUEST");
  if (guest == nullptr || *guest == '\0') {
    GTEST_SKIP() << "no guest: run tests/vm/make_guest.sh DIR, and set MSB_TEST_GUEST=DIR";
  }
  if (Bash("mkfs.ext4 -q -F '" + image_.native() + "'").exit_code != 0) {
    GTEST_SKIP() << "no mkfs.ext4 on the PATH";
  }
  Boot({"--memory", "256", "--kernel", fs::path(guest) / "vmlinuz", "--initrd",
        fs::path(guest) / "initrd-agent.gz", "--append",
        "console=ttyS0 loglevel=1 panic=-1 tsc=unstable cryptomgr.notests=1 msb.mount msb.agent"});
  const ProcessResult result =
      Run({"exec", "-i", "vm", "--", "sh", "-c", "cat >/data/file; echo err >&2; exit 7"},
          std::string("a\0b", 3));
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(result.err, "err\n");
  EXPECT_EQ(Run({"exec", "vm", "--", "cat", "/data/file"}).out, std::string("a\0b", 3));
  Output({"create", "auto", "--from", "vm", "--live"});
  EXPECT_EQ(ConsistencyOf("auto"), "filesystem-consistent");
  Output(
      {"create", "demanded", "--from", "vm", "--live", "--consistency", "filesystem-consistent"});
  EXPECT_EQ(ConsistencyOf("demanded"), "filesystem-consistent");
}

}  // namespace
}  // namespace msb::test
