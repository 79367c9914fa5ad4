// SPDX-License-Identifier: Apache-2.0
//
// How the end of a call differs from the end of a VM, and what is recorded of a VM that ended by
// itself. The guests are firmware of a few instructions.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/vm/small_vm.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

// Writes a '+' to the serial port, and ignores everything after that.
const Code kDeaf = Joined({WritePlus(), Rest()});

const Code kPanic = Joined({{0xba, 0x05, 0x05,  // mov $0x505, %dx: pvpanic
                             0xb0, 0x01,        // mov $1, %al: panicked
                             0xee},             // out %al, %dx
                            Rest()});

const Code kReset = Joined({{0xba, 0xf9, 0x0c,  // mov $0xcf9, %dx: the reset control register
                             0xb0, 0x06,        // mov $6, %al: reset now
                             0xee},             // out %al, %dx
                            Rest()});

const Code kPowerOff = Joined({EnablePorts(), PowerOff(), Rest()});

// Returns a disk of 1 MiB that boots this code.
std::string BootableDisk(std::span<const unsigned char> code) {
  std::string disk(1 << 20, '\0');
  std::copy(code.begin(), code.end(), disk.begin());
  disk.replace(510, 2, "\x55\xaa");
  return disk;
}

class EndingTest : public SmallVmTest {
 protected:
  // Returns a client whose sandboxes run this code instead of the small firmware.
  Client ClientRunning(std::span<const unsigned char> code) {
    Config config = SmallConfig();
    config.qemu.extra_arguments = {"-bios", NewFirmware(code)};
    return Client(std::move(config));
  }

  fs::path NewFirmware(std::span<const unsigned char> code) {
    fs::path path = dir_ / ("firmware-" + std::to_string(firmware_++));
    WriteFile(path, FirmwareOf(code));
    return path;
  }

  // Returns a client whose sandboxes boot from their disks.
  Client ClientWith(std::vector<std::string> arguments = {}) const {
    Config config = SmallConfig();
    config.qemu.extra_arguments = std::move(arguments);
    return Client(std::move(config));
  }

  // Returns the status with which a guest that runs this code ends by itself.
  SandboxStatus EndOf(std::span<const unsigned char> code) {
    const std::string name = "a" + std::to_string(firmware_);
    Client client = ClientRunning(code);
    Sandbox sandbox = CreateSandbox(ctx_, name, {WithImage(image_)}, client);
    const SandboxStatus status = sandbox.WaitUntilStopped(ctx_.WithTimeout(kGuestTimeout));
    // Later calls do not change it.
    sandbox.Stop(ctx_);
    sandbox.Close();
    EXPECT_EQ(StatusOf(name), status);
    ExpectNoRemains(name);
    GetSandbox(ctx_, name, client).Kill(ctx_);
    EXPECT_EQ(StatusOf(name), status);
    return status;
  }

  static constexpr auto kGuestTimeout = seconds(60);

 private:
  int firmware_ = 0;
};

TEST_F(EndingTest, DeadlineOfStopLeavesTheVmRunning) {
  Client client = ClientRunning(kDeaf);
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  AwaitFirmware("a");
  // Stop gives up before it would end the VM by force.
  EXPECT_MSB_ERROR(sandbox.Stop(ctx_.WithTimeout(milliseconds(300))), ErrorKind::kCancelled,
                   "deadline exceeded");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  EXPECT_EQ(ProcessesIn(sandboxes_ / "a").size(), 1U);
  // The old sandbox is neither ended nor replaced.
  EXPECT_MSB_ERROR(
      CreateSandbox(ctx_.WithTimeout(seconds(1)), "a", {WithImage(image_), WithReplace()}, client),
      ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);

  sandbox.Stop(ctx_.WithTimeout(seconds(60)), {WithStopTimeout(milliseconds(300))});
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
}

TEST_F(EndingTest, CancelledContextEndsNothing) {
  Client client = ClientRunning(kDeaf);
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(sandbox.Kill(ctx), ErrorKind::kCancelled, "cancelled");
  EXPECT_MSB_ERROR(sandbox.Stop(ctx, {WithStopTimeout(milliseconds(0))}), ErrorKind::kCancelled,
                   "cancelled");
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "a", client).Kill(ctx), ErrorKind::kCancelled, "cancelled");
  EXPECT_MSB_ERROR(sandbox.Detach(ctx), ErrorKind::kCancelled, "cancelled");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  sandbox.Kill(ctx_);
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "a", client).Start(ctx), ErrorKind::kCancelled, "cancelled");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
}

TEST_F(EndingTest, GuestThatPowersOffIsStopped) {
  EXPECT_EQ(EndOf(kPowerOff), SandboxStatus::kStopped);
}

TEST_F(EndingTest, GuestThatIsResetIsCrashed) { EXPECT_EQ(EndOf(kReset), SandboxStatus::kCrashed); }

TEST_F(EndingTest, GuestThatPanicsIsCrashed) { EXPECT_EQ(EndOf(kPanic), SandboxStatus::kCrashed); }

TEST_F(EndingTest, CrashedSandboxIsStartedAndSnapshotted) {
  Client client = ClientRunning(kPanic);
  CreateSandbox(ctx_, "a", {WithImage(image_)}, client)
      .WaitUntilStopped(ctx_.WithTimeout(kGuestTimeout));
  Snapshot::Create(ctx_, "a", {.name = "s"}, client);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kCrashed);
  Config config = SmallConfig();
  config.qemu.extra_arguments = {"-bios", NewFirmware(kPowerOff)};
  Client other(config);
  EXPECT_EQ(StartSandbox(ctx_, "a", other).WaitUntilStopped(ctx_.WithTimeout(kGuestTimeout)),
            SandboxStatus::kStopped);
}

TEST_F(EndingTest, DiskWithABootSectorBoots) {
  WriteFile(image_, BootableDisk(kPowerOff));
  Client client = ClientWith();
  EXPECT_EQ(CreateSandbox(ctx_, "a", {WithImage(image_)}, client)
                .WaitUntilStopped(ctx_.WithTimeout(kGuestTimeout)),
            SandboxStatus::kStopped);
}

TEST_F(EndingTest, CreateRefusesADiskThatCannotBoot) {
  Client client = ClientWith();
  const auto refusal = [&](const fs::path& image) -> std::string {
    try {
      std::ignore = CreateSandbox(ctx_, "a", {WithImage(image)}, client);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInvalidConfig);
      return e.what();
    }
    return "no error";
  };
  const std::string empty = refusal(image_);
  EXPECT_THAT(empty, HasSubstr("base.img"));
  EXPECT_THAT(empty, HasSubstr("set QemuConfig::kernel, or use a bootable disk"));
  WriteFile(dir_ / "text", "root:x:0:0:root:/root:/bin/bash\n");
  EXPECT_MSB_ERROR(std::ignore = CreateSandbox(ctx_, "a", {WithImage(dir_ / "text")}, client),
                   ErrorKind::kInvalidArgument, "/text is not a disk image",
                   "give a complete raw or qcow2");
  EXPECT_FALSE(fs::exists(sandboxes_ / "a"));
  EXPECT_TRUE(ProcessesIn(sandboxes_).empty());
}

// An extra argument may add something to boot from, so the disk is not checked.
TEST_F(EndingTest, VmThatFindsNothingToBootIsCrashed) {
  Client client = ClientWith({"-device", "virtio-rng-pci"});
  EXPECT_EQ(CreateSandbox(ctx_, "a", {WithImage(image_)}, client)
                .WaitUntilStopped(ctx_.WithTimeout(kGuestTimeout)),
            SandboxStatus::kCrashed);
}

TEST_F(EndingTest, AnyClientStartsTheMachineThatWasCreated) {
  Client creator = ClientRunning(kPowerOff);
  CreateSandbox(ctx_, "a", {WithImage(image_)}, creator)
      .WaitUntilStopped(ctx_.WithTimeout(kGuestTimeout));
  Config config = SmallConfig();
  config.qemu = {};
  Client other(config);
  const Sandbox again = StartSandbox(ctx_, "a", other);
  EXPECT_EQ(again.WaitUntilStopped(ctx_.WithTimeout(kGuestTimeout)), SandboxStatus::kStopped);
  // The settings of a client take precedence over those of the client that created the sandbox.
  Client panicking = ClientRunning(kPanic);
  EXPECT_EQ(StartSandbox(ctx_, "a", panicking).WaitUntilStopped(ctx_.WithTimeout(kGuestTimeout)),
            SandboxStatus::kCrashed);
}

TEST_F(EndingTest, MachineOfASandboxWinsOverThatOfClients) {
  Client panicking = ClientRunning(kPanic);
  const QemuConfig machine = {.extra_arguments = {"-bios", NewFirmware(kPowerOff)}};
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_), WithQemu(machine)}, panicking);
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_.WithTimeout(kGuestTimeout)), SandboxStatus::kStopped);
  EXPECT_EQ(StartSandbox(ctx_, "a", panicking).WaitUntilStopped(ctx_.WithTimeout(kGuestTimeout)),
            SandboxStatus::kStopped);
  EXPECT_MSB_ERROR(
      CreateSandbox(ctx_, "b", {WithImage(image_), WithQemu({.binary = "qemu"})}, panicking),
      ErrorKind::kInvalidArgument, "WithQemu must not set binary 'qemu'",
      "set it in Config::qemu of the client");
  EXPECT_FALSE(fs::exists(sandboxes_ / "b"));
}

}  // namespace
}  // namespace msb::test
