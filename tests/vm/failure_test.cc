// SPDX-License-Identifier: Apache-2.0
//
// VMs that cannot be booted or that the caller stops waiting for: nothing of them may be left.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/vm/guest.h"

namespace msb::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class VmFailureTest : public GuestTest {
 protected:
  // Returns a client that passes these arguments to QEMU as well.
  Client ClientWith(std::vector<std::string> arguments) const {
    Config config = ConfigFor();
    config.qemu.extra_arguments = std::move(arguments);
    return Client(std::move(config));
  }

  void ExpectNothingLeft() const {
    EXPECT_THAT(ListTree(home_ / "sandboxes"), IsEmpty());
    EXPECT_THAT(ProcessesIn(home_), IsEmpty());
  }

  // Returns the message of the error that call throws.
  static std::string MessageOf(const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
};

TEST_F(VmFailureTest, TheErrorQuotesQemu) {
  Client client = ClientWith({"-device", "no-such-device"});
  EXPECT_THAT(
      MessageOf([&] { std::ignore = CreateSandbox(ctx_, "a", {WithImage(image_)}, client); }),
      HasSubstr("'no-such-device' is not a valid device"));
  ExpectNothingLeft();
}

TEST_F(VmFailureTest, ASandboxThatCannotBeStartedStaysAsItWas) {
  Client client = ClientFor();
  CreateSandbox(ctx_, "a", {WithImage(image_)}, client).Kill(ctx_);
  Client failing = ClientWith({"-device", "no-such-device"});
  EXPECT_THAT(MessageOf([&] { std::ignore = StartSandbox(ctx_, "a", failing); }),
              HasSubstr("'no-such-device' is not a valid device"));
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
  Sandbox sandbox = StartSandbox(ctx_, "a", client);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  sandbox.Kill(ctx_);
}

TEST_F(VmFailureTest, WrongSettingsAreAWrongConfiguration) {
  WriteFile(dir_ / "not-a-kernel", Noise(100'000, 1));
  Config kernel = ConfigFor();
  kernel.qemu.kernel = dir_ / "not-a-kernel";
  Config no_kernel = ConfigFor();
  no_kernel.qemu.kernel = dir_ / "absent";
  Config option = ConfigFor();
  option.qemu.extra_arguments = {"-no-such-option"};
  Config value = ConfigFor();
  value.qemu.extra_arguments = {"-m", "many"};
  Config program = ConfigFor();
  program.qemu.binary = dir_ / "not-a-program";
  WriteFile(dir_ / "not-a-program", "");
  const std::vector<std::tuple<Config, std::string, std::string>> wrong = {
      {kernel, "did not start sandbox 'a'", "correct the QemuConfig"},
      {no_kernel, "the kernel of sandbox 'a'", "set Config::qemu.kernel"},
      {option, "did not start sandbox 'a'", "correct the QemuConfig"},
      {value, "did not start sandbox 'a'", "correct the QemuConfig"},
      {program, "/not-a-program'", "set Config::qemu.binary"}};
  for (const auto& [config, named, step] : wrong) {
    Client client(config);
    EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {WithImage(image_)}, client),
                     ErrorKind::kInvalidConfig, named, step);
    ExpectNothingLeft();
  }
}

TEST_F(VmFailureTest, QemuMayBeMissing) {
  Config config = ConfigFor();
  config.qemu.binary = "qemu-of-no-machine";
  Client nowhere(config);
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {WithImage(image_)}, nowhere),
                   ErrorKind::kInvalidConfig, "'qemu-of-no-machine'",
                   "apt-get install qemu-system-x86", "set Config::qemu.binary");
  ExpectNothingLeft();
  config.qemu.binary = dir_ / "qemu";
  Client absent(config);
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {WithImage(image_)}, absent), ErrorKind::kInvalidConfig,
                   "/qemu'", "apt-get install qemu-system-x86", "set Config::qemu.binary");
  ExpectNothingLeft();
}

TEST_F(VmFailureTest, ACancelledBootLeavesNothing) {
  // QEMU waits for a connection to this socket before it answers on its control socket.
  Client client = ClientWith({"-chardev", "socket,id=hang,path=hang.sock,server=on,wait=on"});
  const auto [ctx, cancel] = ctx_.WithCancel();
  const std::jthread canceller([&, cancel = cancel](const std::stop_token& stop) {
    const auto socket = home_ / "sandboxes/a/hang.sock";
    while (!std::filesystem::exists(socket) && !stop.stop_requested()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    cancel();
  });
  EXPECT_MSB_ERROR(CreateSandbox(ctx, "a", {WithImage(image_)}, client), ErrorKind::kCancelled,
                   "cancelled");
  ExpectNothingLeft();
}

TEST_F(VmFailureTest, AStopThatIsCancelledLeavesItRunning) {
  Client client = ClientFor("msb.deaf");
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(sandbox.Stop(ctx), ErrorKind::kCancelled, "cancelled");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  sandbox.Kill(ctx_);
  ExpectNoRemains("a");
}

}  // namespace
}  // namespace msb::test
