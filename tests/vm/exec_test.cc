// SPDX-License-Identifier: Apache-2.0
//
// Commands in a guest with QEMU's guest agent, and in guests without a working one.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "src/base/base64.h"
#include "src/base/file.h"
#include "src/vmm/guest_exec.h"
#include "tests/vm/guest.h"

namespace msb::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Words = std::vector<std::string>;

class VmExecTest : public GuestTest {
 protected:
  static Words Shell(const std::string& script) { return {"sh", "-c", script}; }
};

// One guest serves all checks that leave its agent running, because booting takes seconds.
TEST_F(VmExecTest, CommandsRunInTheGuest) {
  Client client(AgentConfigFor("msb.agent"));
  Sandbox sandbox = CreateSandbox(ctx_, "box", {WithImage(image_)}, client);
  // Waits for the agent of a guest that is still booting.
  const ExecResult hello = sandbox.Exec(ctx_, Shell("echo out; echo err >&2; exit 7"));
  EXPECT_EQ(hello.exit_code, 7);
  EXPECT_EQ(hello.out, "out\n");
  EXPECT_EQ(hello.err, "err\n");

  {
    SCOPED_TRACE("ends");
    EXPECT_EQ(sandbox.Exec(ctx_, {"true"}).exit_code, 0);
    EXPECT_EQ(sandbox.Exec(ctx_, {"false"}).exit_code, 1);
    EXPECT_EQ(sandbox.Exec(ctx_, Shell("exit 255")).exit_code, 255);
    EXPECT_EQ(sandbox.Exec(ctx_, Shell("kill -9 $$")).exit_code, 137);
    EXPECT_EQ(sandbox.Exec(ctx_, Shell("sleep 1; exit 3")).exit_code, 3);
    EXPECT_MSB_ERROR(sandbox.Exec(ctx_, {"absent"}), ErrorKind::kInvalidConfig, "sandbox 'box'",
                     "cannot execute 'absent'", "install the program");
  }
  {
    SCOPED_TRACE("output of 10 MiB and of 0 bytes");
    const ExecResult large = sandbox.Exec(ctx_, Shell("yes 12345678 | head -c 10485760"));
    EXPECT_EQ(large.exit_code, 0) << large.err;
    EXPECT_EQ(large.out.size(), std::size_t{10} << 20);
    EXPECT_TRUE(large.out.starts_with("12345678\n12345678\n"));
  }
  {
    SCOPED_TRACE("binary input");
    std::string input;
    for (int i = 0; i < 1 << 16; ++i) input += static_cast<char>(i * 7 + i / 256);
    const ExecResult echo = sandbox.Exec(ctx_, {"cat"}, {.input = input});
    EXPECT_TRUE(echo.out == input);
    // A file is installed.
    EXPECT_EQ(sandbox.Exec(ctx_, Shell("cat >/tmp/file"), {.input = input}).exit_code, 0);
    EXPECT_EQ(sandbox.Exec(ctx_, {"wc", "-c", "/tmp/file"}).out, "65536 /tmp/file\n");
    EXPECT_EQ(sandbox.Exec(ctx_, {"cat"}).out, "");
  }
  {
    SCOPED_TRACE("environment, directory and user");
    const ExecResult variables = sandbox.Exec(ctx_, Shell("echo \"$GREETING\"; echo $HOME"),
                                              {.env = {{"GREETING", "it's $HOME"}}});
    EXPECT_EQ(variables.out, "it's $HOME\n/root\n") << variables.err;
    EXPECT_EQ(sandbox.Exec(ctx_, {"pwd"}, {.cwd = "/modules"}).out, "/modules\n");
    const ExecResult user =
        sandbox.Exec(ctx_, Shell("id -un; id -gn; echo $HOME $A; pwd; cat"),
                     {.env = {{"A", "1"}}, .cwd = "/bin", .user = "guest", .input = "text"});
    EXPECT_EQ(user.out, "guest\nguest\n/tmp 1\n/bin\ntext") << user.err;
    EXPECT_MSB_ERROR(sandbox.Exec(ctx_, {"true"}, {.cwd = "/absent"}), ErrorKind::kInvalidConfig,
                     "sandbox 'box'", "no directory '/absent'");
    EXPECT_MSB_ERROR(sandbox.Exec(ctx_, {"true"}, {.user = "absent"}), ErrorKind::kInvalidConfig,
                     "sandbox 'box'", "no user 'absent'");
    EXPECT_MSB_ERROR(sandbox.Exec(ctx_, {"absent"}, {.cwd = "/"}), ErrorKind::kInvalidConfig,
                     "sandbox 'box'", "no such program");
  }
  {
    SCOPED_TRACE("a command that never ends");
    EXPECT_MSB_ERROR(sandbox.Exec(ctx_.WithTimeout(milliseconds(1500)), {"sleep", "4321"}),
                     ErrorKind::kCancelled,
                     "'sleep' in sandbox 'box' did not end within the time allowed",
                     "set a longer deadline");
    // The pattern does not match itself.
    const ExecResult left = sandbox.Exec(ctx_, Shell("grep -l '432[1]' /proc/[0-9]*/cmdline"));
    EXPECT_EQ(left.exit_code, 1);
    EXPECT_EQ(left.out, "");
  }
  {
    SCOPED_TRACE("several clients at the same time");
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        const ExecResult result =
            sandbox.Exec(ctx_, Shell("sleep 1; echo $0"), {.env = {{"A", std::to_string(i)}}});
        EXPECT_EQ(result.exit_code, 0);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  {
    SCOPED_TRACE("the console");
    EXPECT_EQ(sandbox.Exec(ctx_, Shell("echo from-exec >/dev/console")).exit_code, 0);
    WaitForConsole(ctx_, client, "box", "from-exec");
    EXPECT_THAT(ReadFile(sandbox.Console()), HasSubstr("GUEST-READY"));
  }
  {
    SCOPED_TRACE("an agent that dies");
    EXPECT_MSB_ERROR(sandbox.Exec(ctx_, Shell("kill -9 $(pidof qemu-ga); sleep 4321")),
                     ErrorKind::kIO, "the guest agent of sandbox 'box' ended before it replied");
  }
  sandbox.Kill(ctx_);
  EXPECT_MSB_ERROR(sandbox.Exec(ctx_, {"true"}), ErrorKind::kIO, "sandbox 'box', which is stopped",
                   "start it first");
  ExpectNoRemains("box");
}

TEST_F(VmExecTest, AGuestWithoutAnAgentIsReported) {
  Client client = ClientFor();
  Sandbox sandbox = CreateSandbox(ctx_, "box", {WithImage(image_)}, client);
  WaitForConsole(ctx_, client, "box", "GUEST-READY");
  const base::UniqueFd dir = base::OpenDirectory(home_ / "sandboxes/box");
  EXPECT_MSB_ERROR(vmm::ExecInGuest(ctx_, {dir.get(), "box"}, {"true"}, {}, milliseconds(300)),
                   ErrorKind::kUnsupportedOperation,
                   "the guest agent of sandbox 'box' did not answer within",
                   "install qemu-guest-agent in the guest");
  EXPECT_MSB_ERROR(sandbox.Exec(ctx_.WithTimeout(milliseconds(200)), {"true"}),
                   ErrorKind::kCancelled, "deadline exceeded");
}

TEST_F(VmExecTest, AnAgentThatAnswersGarbageIsReported) {
  Client client(AgentConfigFor("msb.agent=garbage"));
  Sandbox sandbox = CreateSandbox(ctx_, "box", {WithImage(image_)}, client);
  WaitForConsole(ctx_, client, "box", "GUEST-READY");
  const base::UniqueFd dir = base::OpenDirectory(home_ / "sandboxes/box");
  EXPECT_MSB_ERROR(vmm::ExecInGuest(ctx_, {dir.get(), "box"}, {"true"}, {}, seconds(3)),
                   ErrorKind::kUnsupportedOperation, "the guest agent of sandbox 'box'",
                   "bytes of other data");
}

TEST_F(VmExecTest, ExtraArgumentsMayHaveThePort) {
  Config config = AgentConfigFor("msb.agent");
  config.qemu.extra_arguments = {
      "-chardev",          "null,id=own", "-device",
      "virtio-serial-pci", "-device",     "virtserialport,chardev=own,name=org.qemu.guest_agent.0"};
  Client client(config);
  Sandbox sandbox = CreateSandbox(ctx_, "box", {WithImage(image_)}, client);
  EXPECT_MSB_ERROR(sandbox.Exec(ctx_, {"true"}), ErrorKind::kUnsupportedOperation, "sandbox 'box'",
                   "extra_arguments", "start it again");
  EXPECT_FALSE(std::filesystem::exists(home_ / "sandboxes/box/agent.sock"));
}

}  // namespace
}  // namespace msb::test
