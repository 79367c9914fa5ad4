// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_accelerator.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <string>

#include "src/base/file.h"
#include "src/base/spawn.h"
#include "src/vmm/qemu_probe_guest.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

// Stands for /dev/kvm, which only QEMU opens in a probe.
constexpr const char* kDevice = "/dev/null";

// Writes a program in the place of QEMU that records each run.
class FakeQemu {
 public:
  explicit FakeQemu(const std::string& script) { Write(script); }

  void Write(const std::string& script) {
    test::WriteFile(path(), fmt::format("#!/bin/sh\necho run >>{}\n{}\n", log().native(), script));
    std::filesystem::permissions(path(), std::filesystem::perms::owner_all);
  }

  std::filesystem::path path() const { return dir_ / "qemu"; }
  std::filesystem::path cache() const { return dir_ / "home/cache"; }
  std::filesystem::path cache_file() const { return cache() / "qemu-accelerator"; }
  std::string Choose(const Context& ctx = Context::Background()) const {
    return ChooseAccelerator(ctx, path(), cache(), kDevice);
  }
  std::size_t runs() const {
    return std::filesystem::exists(log()) ? test::ReadFile(log()).size() / 4 : 0;
  }

 private:
  std::filesystem::path log() const { return dir_ / "log"; }

  test::TempDir dir_;
};

const std::string kRuns = fmt::format("printf '{}'; exit 33", kProbeGuestMessage);

class ProbeTest : public testing::Test {
 protected:
  void SetUp() override {
    if (ProbeGuest().empty()) GTEST_SKIP() << "no guest for this processor";
  }
};

TEST_F(ProbeTest, KvmIsChosenWhereTheGuestRuns) {
  FakeQemu qemu(kRuns);
  EXPECT_EQ(qemu.Choose(), "kvm");
  EXPECT_EQ(qemu.Choose(), "kvm");
  EXPECT_EQ(qemu.runs(), 1u);  // The second call used the cache.
}

// Like KvmIsChosenWhereTheGuestRuns, but with the real QEMU, which is run without KVM.
TEST_F(ProbeTest, QemuRunsTheGuestAsItIsAskedTo) {
  const std::filesystem::path binary = base::FindProgram("qemu-system-x86_64");
  if (binary.empty()) GTEST_SKIP() << "no QEMU here";
  // On a busy machine the guest may not run before the probe gives up.
  std::string chosen;
  for (int attempt = 0; attempt < 5 && chosen != "kvm"; ++attempt) {
    FakeQemu qemu(fmt::format(
        "test \"$1 $2\" = '-accel kvm' && shift 2 && exec {} -accel tcg \"$@\"", binary.native()));
    chosen = qemu.Choose();
  }
  EXPECT_EQ(chosen, "kvm");
}

TEST_F(ProbeTest, TcgIsChosenWithoutAProbeIfTheDeviceIsMissing) {
  const FakeQemu qemu(kRuns);
  const std::filesystem::path device = qemu.cache() / "kvm";
  EXPECT_EQ(ChooseAccelerator(Context::Background(), qemu.path(), qemu.cache(), device), "tcg");
  EXPECT_EQ(qemu.runs(), 0u);
}

TEST_F(ProbeTest, TcgIsChosenWhereTheGuestDoesNotRun) {
  FakeQemu qemu("echo 'Could not access KVM kernel module'; exit 1");
  EXPECT_EQ(qemu.Choose(), "tcg");
  EXPECT_EQ(qemu.Choose(), "tcg");
  EXPECT_EQ(qemu.runs(), 1u);
}

TEST_F(ProbeTest, TcgIsChosenWhereTheGuestHangs) {
  FakeQemu qemu("exec sleep 100");
  EXPECT_EQ(qemu.Choose(), "tcg");
  EXPECT_EQ(qemu.Choose(), "tcg");
  EXPECT_EQ(qemu.runs(), 1u);
}

TEST_F(ProbeTest, ABinaryThatChangedIsTriedAgain) {
  FakeQemu qemu("exit 1");
  EXPECT_EQ(qemu.Choose(), "tcg");
  qemu.Write(kRuns);
  EXPECT_EQ(qemu.Choose(), "kvm");
  EXPECT_EQ(qemu.runs(), 2u);
}

TEST_F(ProbeTest, IgnoresCachesOfAnotherBootAndMalformedOnes) {
  FakeQemu qemu(kRuns);
  EXPECT_EQ(qemu.Choose(), "kvm");
  const std::string good = test::ReadFile(qemu.cache_file());
  const std::size_t boot = good.find(' ') + 1;
  std::string other_boot = good;
  other_boot[boot] = other_boot[boot] == '0' ? '1' : '0';
  std::string other_answer = good;
  other_answer.replace(good.rfind("kvm"), 3, "xen");
  std::size_t runs = 1;
  for (const std::string& content :
       {other_boot, other_answer, std::string(), good + "more", good.substr(0, good.size() - 1),
        std::string(1 << 20, '\xff')}) {
    test::WriteFile(qemu.cache_file(), content);
    EXPECT_EQ(qemu.Choose(), "kvm");
    EXPECT_EQ(qemu.runs(), ++runs);
    EXPECT_EQ(test::ReadFile(qemu.cache_file()), good);
  }
}

TEST_F(ProbeTest, ACacheThatCannotBeWrittenIsNoError) {
  FakeQemu qemu(kRuns);
  test::WriteFile(qemu.cache().parent_path().parent_path() / "home", "in the way");
  EXPECT_EQ(qemu.Choose(), "kvm");
  EXPECT_EQ(qemu.Choose(), "kvm");
  EXPECT_EQ(qemu.runs(), 2u);
}

TEST_F(ProbeTest, ACancelledProbeIsNotRemembered) {
  FakeQemu qemu("exec sleep 100");
  const Context ctx = Context::Background().WithTimeout(std::chrono::milliseconds(100));
  EXPECT_MSB_ERROR(qemu.Choose(ctx), ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_FALSE(std::filesystem::exists(qemu.cache_file()));
}

TEST_F(ProbeTest, ABinaryThatCannotBeRunIsAnError) {
  const test::TempDir dir;
  test::WriteFile(dir / "qemu", "no program");
  for (const char* name : {"absent", "qemu", "."}) {
    EXPECT_MSB_ERROR(ChooseAccelerator(Context::Background(), dir / name, dir / "cache", kDevice),
                     ErrorKind::kInvalidConfig, "cannot execute ", "/" + std::string(name) + ": ",
                     "give the path of a program");
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "cache"));
}

// Without KVM the guest runs anywhere, so this tests the guest itself.
TEST(ProbeGuestTest, RunsToItsEnd) {
  const std::filesystem::path qemu = base::FindProgram("qemu-system-x86_64");
  const std::string guest = ProbeGuest();
  if (qemu.empty() || guest.empty()) GTEST_SKIP() << "no QEMU here";
  const test::TempDir dir;
  test::WriteFile(dir / "guest", guest);
  const test::CommandResult result = test::RunCommand(
      fmt::format("{} -accel tcg -machine pc -nodefaults -no-user-config -display none -no-reboot "
                  "-bios '{}' -debugcon stdio -device isa-debug-exit,iobase=0xf4,iosize=1 "
                  "</dev/null",
                  qemu.native(), (dir / "guest").native()));
  EXPECT_EQ(result.status, 33) << result.output;
  EXPECT_EQ(result.output, kProbeGuestMessage);
}

}  // namespace
}  // namespace msb::vmm
