// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "src/base/unix_socket.h"
#include "src/vmm/qemu_backend.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using Words = std::vector<std::string>;

Words ArgumentsWith(const QemuConfig& machine, int agent) {
  SandboxRecord sandbox{.name = "box"};
  sandbox.upper = Disk{"/sandboxes/box/upper.qcow2", DiskFormat::kQcow2, "ext4"};
  return QemuArguments(machine, "tcg", sandbox, {.qmp = 8, .agent = agent});
}

// The devices of extra_arguments must keep their PCI slots, on which names in the guest depend.
TEST(AgentPortTest, ComesAfterTheExtraArguments) {
  const Words words =
      ArgumentsWith({.cpus = 1, .extra_arguments = {"-device", "virtio-net-pci,netdev=net"}}, 9);
  const Words port = AgentPortArguments(9);
  ASSERT_GT(words.size(), port.size());
  EXPECT_TRUE(std::equal(port.rbegin(), port.rend(), words.rbegin()));
  EXPECT_THAT(port, Contains(HasSubstr("fd=9")));
  EXPECT_THAT(port, Contains(HasSubstr("name=org.qemu.guest_agent.0")));
  EXPECT_THAT(words, Contains(HasSubstr("fd=8")));
}

TEST(AgentPortTest, IsLeftOutIfExtraArgumentsHaveOne) {
  EXPECT_FALSE(HasOwnAgentPort({}));
  EXPECT_FALSE(HasOwnAgentPort({.extra_arguments = {"-device", "virtio-serial-pci"}}));
  EXPECT_TRUE(HasOwnAgentPort(
      {.extra_arguments = {"-device", "virtserialport,chardev=a,name=org.qemu.guest_agent.0"}}));
  EXPECT_THAT(ArgumentsWith({.cpus = 1}, -1), Not(Contains(HasSubstr("guest_agent"))));
}

TEST(AgentPortTest, ItsFilesAreRemoved) {
  const test::TempDir dir;
  const base::UniqueFd fd = base::OpenDirectory(dir.path());
  const base::UniqueFd listener = base::ListenAt(fd.get(), kAgentSocketFile);
  test::WriteFile(dir / "agent.lock", "");
  test::WriteFile(dir / "console.log", "");
  RemoveAgentFiles(dir.path());
  EXPECT_FALSE(std::filesystem::exists(dir / "agent.sock"));
  EXPECT_FALSE(std::filesystem::exists(dir / "agent.lock"));
  EXPECT_TRUE(std::filesystem::exists(dir / "console.log"));
}

// Many programs wait until QEMU serves them.
TEST(AgentPortTest, OtherProgramsThatFillTheQueueAreNotWaitedFor) {
  const test::TempDir dir;
  const base::UniqueFd fd = base::OpenDirectory(dir.path());
  const base::UniqueFd listener = base::ListenAt(fd.get(), kAgentSocketFile);
  std::vector<base::UniqueFd> others;
  const auto fill = [&] {
    const Context limited = Context::Background().WithTimeout(std::chrono::milliseconds(100));
    for (;;) others.push_back(base::TryConnectAt(limited, fd.get(), kAgentSocketFile));
  };
  EXPECT_MSB_ERROR(fill(), ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_MSB_ERROR(OpenAgent(test::Soon(), {fd.get(), "box"}, std::chrono::milliseconds(50)),
                   ErrorKind::kUnsupportedOperation, "agent.sock of sandbox 'box'",
                   "disconnect them", "lock agent.lock");
}

}  // namespace
}  // namespace msb::vmm
