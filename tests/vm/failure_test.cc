// A VM that cannot be booted, or is not waited for: nothing of it is left.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/vm/guest.h"

namespace msb::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class VmFailureTest : public GuestTest {
 protected:
  // A client whose QEMU gets these arguments too.
  Client ClientWith(std::vector<std::string> arguments) const {
    Config config = ConfigFor();
    config.qemu.extra_arguments = std::move(arguments);
    return Client(std::move(config));
  }

  void ExpectNothingLeft() const {
    EXPECT_THAT(ListTree(home_ / "sandboxes"), IsEmpty());
    EXPECT_THAT(ProcessesIn(home_), IsEmpty());
  }

  // Of the error that this throws.
  static std::string MessageOf(const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }
};

TEST_F(VmFailureTest, TheErrorSaysWhatQemuSaid) {
  Client client = ClientWith({"-device", "no-such-device"});
  EXPECT_THAT(MessageOf([&] { CreateSandbox(ctx_, "a", {WithImage(image_)}, client); }),
              HasSubstr("'no-such-device' is not a valid device"));
  ExpectNothingLeft();
}

TEST_F(VmFailureTest, ASandboxThatCannotBeStartedStaysAsItWas) {
  Client client = ClientFor();
  CreateSandbox(ctx_, "a", {WithImage(image_)}, client).Kill(ctx_);
  Client failing = ClientWith({"-device", "no-such-device"});
  EXPECT_THAT(MessageOf([&] { StartSandbox(ctx_, "a", failing); }),
              HasSubstr("'no-such-device' is not a valid device"));
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
  Sandbox sandbox = StartSandbox(ctx_, "a", client);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  sandbox.Kill(ctx_);
}

TEST_F(VmFailureTest, QemuMayBeMissing) {
  Config config = ConfigFor();
  config.qemu.binary = "qemu-of-no-machine";
  Client nowhere(config);
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {WithImage(image_)}, nowhere),
                   ErrorKind::kInvalidConfig);
  ExpectNothingLeft();
  config.qemu.binary = dir_ / "qemu";
  Client absent(config);
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {WithImage(image_)}, absent), ErrorKind::kIO);
  ExpectNothingLeft();
}

TEST_F(VmFailureTest, WhatIsCancelledWhileQemuStartsLeavesNothing) {
  // QEMU waits for somebody to connect, before it answers anybody.
  Client client = ClientWith({"-chardev", "socket,id=hang,path=hang.sock,server=on,wait=on"});
  const auto [ctx, cancel] = ctx_.WithCancel();
  const std::jthread canceller([&, cancel = cancel](const std::stop_token& stop) {
    const auto socket = home_ / "sandboxes/a/hang.sock";
    while (!std::filesystem::exists(socket) && !stop.stop_requested()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    cancel();
  });
  EXPECT_MSB_ERROR(CreateSandbox(ctx, "a", {WithImage(image_)}, client), ErrorKind::kCancelled);
  ExpectNothingLeft();
}

TEST_F(VmFailureTest, AStopThatIsCancelledLeavesItRunning) {
  Client client = ClientFor("msb.deaf");
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(sandbox.Stop(ctx), ErrorKind::kCancelled);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  sandbox.Kill(ctx_);
  ExpectNoRemains("a");
}

}  // namespace
}  // namespace msb::test
