// SPDX-License-Identifier: Apache-2.0
//
// Helpers for the tests that kill processes at every step of a VM's life. Their machines boot and
// shut down within milliseconds: QEMU with a firmware of a few instructions that powers off when
// the power button is pressed.

#ifndef MSB_TESTS_VM_SMALL_VM_H_
#define MSB_TESTS_VM_SMALL_VM_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "src/base/process.h"
#include "src/base/spawn.h"
#include "src/base/unix_socket.h"
#include "src/vmm/qmp_client.h"
#include "tests/support/support.h"
#include "tests/support/syscall_tracer.h"
#include "tests/vm/guest.h"

namespace msb::test {

// Returns a firmware image of 64 KiB. It ends at 4 GiB, where the processor starts: the code is at
// its beginning, and the reset vector, which jumps there, is in its last 16 bytes. The code runs in
// real mode.
inline std::string FirmwareOf(std::span<const unsigned char> code) {
  std::string image(1 << 16, '\0');
  std::copy(code.begin(), code.end(), image.begin());
  image.replace(0xfff0, 3, "\xe9\x0d\x00", 3);  // jmp 0
  return image;
}

using Code = std::vector<unsigned char>;

inline Code Joined(std::initializer_list<Code> parts) {
  Code code;
  for (const Code& part : parts) code.insert(code.end(), part.begin(), part.end());
  return code;
}

// Maps the power management ports of the PIIX4 to 0x600.
inline Code EnablePorts() {
  return {0x66, 0xb8, 0x40, 0x0b, 0x00, 0x80,  // mov $0x80000b40, %eax: PMBASE of 00:01.3
          0xba, 0xf8, 0x0c,                    // mov $0xcf8, %dx
          0x66, 0xef,                          // out %eax, %dx
          0x66, 0xb8, 0x01, 0x06, 0x00, 0x00,  // mov $0x601, %eax
          0xba, 0xfc, 0x0c,                    // mov $0xcfc, %dx
          0x66, 0xef,                          // out %eax, %dx
          0x66, 0xb8, 0x80, 0x0b, 0x00, 0x80,  // mov $0x80000b80, %eax: PMREGMISC
          0xba, 0xf8, 0x0c,                    // mov $0xcf8, %dx
          0x66, 0xef,                          // out %eax, %dx
          0xb0, 0x01,                          // mov $1, %al: ports enabled
          0xba, 0xfc, 0x0c,                    // mov $0xcfc, %dx
          0xee};                               // out %al, %dx
}

// Powers off. The ports must be enabled.
inline Code PowerOff() {
  return {0xba, 0x04, 0x06,  // mov $0x604, %dx: PM1_CNT
          0xb8, 0x00, 0x20,  // mov $0x2000, %ax: SLP_EN, soft off
          0xef};             // out %ax, %dx
}

// Writes a '+' to the serial port.
inline Code WritePlus() {
  return {0xba, 0xf8, 0x03,  // mov $0x3f8, %dx: the serial port
          0xb0, 0x2b,        // mov $'+', %al
          0xee};             // out %al, %dx
}

// Halts forever.
inline Code Rest() {
  return {0xfa,         // 1: cli
          0xf4,         // hlt
          0xeb, 0xfc};  // jmp 1b
}

// Writes a '+' to the serial port and powers off when the power button is pressed. Uses no memory.
inline std::string SmallFirmware() {
  const Code mask_interrupts = {0xfa};           // cli
  const Code enable_button = {0xba, 0x02, 0x06,  // mov $0x602, %dx: PM1_EN
                              0xb8, 0x00, 0x01,  // mov $0x100, %ax: the power button
                              0xef};             // out %ax, %dx
  const Code await_button = {0xba, 0x00, 0x06,   // mov $0x600, %dx: PM1_STS
                             0xed,               // 1: in %dx, %ax
                             0xf6, 0xc4, 0x01,   // test $1, %ah: pressed?
                             0x74, 0xfa};        // jz 1b
  return FirmwareOf(Joined({mask_interrupts, EnablePorts(), enable_button, WritePlus(),
                            await_button, PowerOff(), Rest()}));
}

// Returns true for the calls before which the tests kill a process. Few system calls change what a
// crash leaves on the disk, and few others make QEMU do something. So a crash before each of these
// in turn, and one after all of them, leaves every state that a crash can leave. Flushes are not
// among them, because they make no difference when only a process crashes; write(2) is not, because
// the sanitizers use it themselves. recvfrom(2) is, because QEMU has come a bit further each time
// that the library looks for an answer.
inline bool IsStep(const SystemCall& call) {
  switch (call.number) {
    case SYS_openat:
      return (call.arguments[2] & O_CREAT) != 0;
    case SYS_fcntl:
      return call.arguments[1] == F_SETFL;
    case SYS_mkdir:
    case SYS_mkdirat:
    case SYS_mknodat:
    case SYS_link:
    case SYS_linkat:
    case SYS_unlink:
    case SYS_unlinkat:
    case SYS_rmdir:
    case SYS_rename:
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_fchmod:
    case SYS_ftruncate:
    case SYS_pwrite64:
    case SYS_fork:
    case SYS_clone:
    case SYS_clone3:
    case SYS_bind:
    case SYS_listen:
    case SYS_connect:
    case SYS_sendto:
    case SYS_recvfrom:
    case SYS_pidfd_open:
    case SYS_pidfd_send_signal:
    case SYS_exit_group:
      return true;
    default:
      return false;
  }
}

// Performs commands of qemu-io on the disk of a VM that runs, as its guest would.
class GuestDisk {
 public:
  GuestDisk(const Context& ctx, const std::filesystem::path& sandbox)
      : ctx_(ctx),
        qmp_(ctx, base::TryConnectAt(ctx, base::OpenDirectory(sandbox).get(), "qmp.sock")) {}

  void Do(const std::string& command) {
    qmp_.Execute(ctx_, "human-monitor-command",
                 {{"command-line",
                   "qemu-io -d /machine/peripheral/root-disk/virtio-backend \"" + command + "\""}});
  }
  // Writes 64 KiB of this byte at a multiple of 64 KiB, and flushes the disk.
  void Write(char byte, int block) {
    Do("write -P " + std::to_string(byte) + " " + std::to_string(block * 64) + "k 64k");
    Do("flush");
  }

 private:
  const Context ctx_;
  vmm::QmpClient qmp_;
};

// Skips its tests if there is no QEMU.
class SmallVmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (base::FindProgram("qemu-system-x86_64").empty()) GTEST_SKIP() << "no QEMU on the PATH";
    // Orphaned processes become children of this one, so that it sees them end.
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    ShareAccelerator(home_ / "cache");
    WriteFile(dir_ / "firmware", SmallFirmware());
    WriteFile(image_, Noise(1 << 20, 1));
    // A digest is remembered only for an image that was not modified within the last second.
    std::filesystem::last_write_time(
        image_, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  }

  void TearDown() override {
    for (const pid_t pid : ProcessesIn(sandboxes_)) kill(pid, SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
  }

  Config SmallConfig() const {
    return {.home = home_,
            .backend = "qemu",
            .qemu = {.memory_mib = 16, .extra_arguments = {"-bios", dir_ / "firmware"}}};
  }
  // Returns a client that knows no more than one in a new process would.
  Client NewClient() const { return Client(SmallConfig()); }

  SandboxStatus StatusOf(const std::string& name) {
    Client client = NewClient();
    return GetSandbox(ctx_, name, client).Status();
  }

  std::filesystem::path ConsoleOf(const std::string& name) const {
    return sandboxes_ / name / "console.log";
  }

  // Boots a sandbox that outlives its client, and waits until its firmware listens for the button.
  void StartDetached(const std::string& name) {
    std::filesystem::remove(ConsoleOf(name));
    Client client = NewClient();
    StartSandbox(ctx_, name, client).Detach(ctx_);
    AwaitFirmware(name);
  }

  // Waits until the firmware listens, or the VM has ended.
  void AwaitFirmware(const std::string& name) {
    const Context limited = ctx_.WithTimeout(std::chrono::seconds(60));
    std::error_code absent;
    while (StatusOf(name) == SandboxStatus::kRunning &&
           (!std::filesystem::exists(ConsoleOf(name)) || ReadFile(ConsoleOf(name)).empty())) {
      ASSERT_FALSE(limited.Done()) << "the firmware of " << name << " does not run";
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  // Expects every process that was started for this one to end without further calls.
  void ExpectAllEnd() const {
    const Context limited = ctx_.WithTimeout(std::chrono::seconds(30));
    for (;;) {
      const pid_t pid = waitpid(-1, nullptr, WNOHANG);
      if (pid < 0) {
        EXPECT_EQ(errno, ECHILD);
        return;
      }
      if (pid > 0) continue;
      ASSERT_FALSE(limited.Done()) << "a process does not end";
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  // Expects each VM process to be the one in the record of the sandbox whose disk it has.
  void ExpectProcessesKnown() const {
    for (const pid_t pid : ProcessesIn(sandboxes_)) {
      std::error_code gone;
      const auto dir = std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/cwd", gone);
      if (gone) continue;  // It has ended since.
      const nlohmann::json record = nlohmann::json::parse(ReadFile(dir / "sandbox.json"));
      EXPECT_EQ(record.at("status"), "running") << dir;
      EXPECT_EQ(record.value("/process/pid"_json_pointer, 0), pid) << dir;
    }
  }

  // Expects that nothing of a VM is left in the sandbox's directory.
  void ExpectNoRemains(const std::string& name) const {
    EXPECT_TRUE(ProcessesIn(sandboxes_ / name).empty());
    EXPECT_FALSE(std::filesystem::exists(sandboxes_ / name / "qmp.sock"));
    EXPECT_FALSE(std::filesystem::exists(sandboxes_ / name / "qemu.pid"));
    EXPECT_FALSE(std::filesystem::exists(sandboxes_ / name / "qemu-events.in"));
    EXPECT_FALSE(std::filesystem::exists(sandboxes_ / name / "qemu-events.out"));
    for (const auto& entry : std::filesystem::directory_iterator(sandboxes_ / name)) {
      EXPECT_NE(entry.path().extension(), ".lock") << entry.path();
    }
  }

  // Expects the disks of all snapshots to be read-only, not to be the upper of a sandbox, and to
  // have no hard links outside the home. Looks at the files only, and makes no call of the library.
  void ExpectSnapshotsSealed() const {
    std::set<ino_t> uppers;
    for (const auto& entry : std::filesystem::directory_iterator(sandboxes_)) {
      if (entry.path().filename().native().starts_with('.')) continue;  // Not published.
      const auto record = nlohmann::json::parse(ReadFile(entry.path() / "sandbox.json"));
      const std::string upper = record.at("upper").at("file");
      uppers.insert(StatOf(entry.path() / upper).st_ino);
    }
    std::map<ino_t, nlink_t> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(home_)) {
      struct stat st {};
      // A VM that ends deletes files of its own, which are never a snapshot's.
      if (entry.is_regular_file() && lstat(entry.path().c_str(), &st) == 0) ++names[st.st_ino];
    }
    for (const auto& entry : std::filesystem::directory_iterator(home_ / "snapshots")) {
      const auto disk = entry.path() / "upper.qcow2";
      if (!std::filesystem::exists(disk)) continue;
      const struct stat st = StatOf(disk);
      EXPECT_FALSE(uppers.contains(st.st_ino)) << disk << " is a sandbox's upper";
      EXPECT_EQ(st.st_mode & 0222, 0U) << disk << " can be written to";
      EXPECT_EQ(st.st_nlink, names[st.st_ino]) << disk;
    }
  }

  // Writes to the disk of a VM that runs; see GuestDisk::Write.
  void WriteDisk(const std::string& name, char byte, int block) const {
    GuestDisk(ctx_, sandboxes_ / name).Write(byte, block);
  }
  // Returns the bytes of which the first count blocks of 64 KiB of a snapshot consist, '?' for a
  // block of different bytes.
  std::string BlocksOf(const std::string& snapshot, int count) {
    Client client = NewClient();
    const auto flat = dir_ / "flat";
    Snapshot::Flatten(ctx_, snapshot, flat, {}, client);
    const std::string disk = ReadFile(flat);
    std::string blocks;
    for (int i = 0; i < count; ++i) {
      const auto offset = static_cast<std::size_t>(i) << 16;
      const std::string block = disk.substr(offset, 1 << 16);
      blocks += block == std::string(block.size(), block[0]) ? block[0] : '?';
    }
    return blocks;
  }

  static struct stat StatOf(const std::filesystem::path& path) {
    struct stat st {};
    EXPECT_EQ(lstat(path.c_str(), &st), 0) << path;
    return st;
  }

  const Context ctx_ = Context::Background();
  const TempDir dir_;
  const std::filesystem::path home_ = dir_ / "home";
  const std::filesystem::path sandboxes_ = home_ / "sandboxes";
  const std::filesystem::path image_ = dir_ / "base.img";
};

}  // namespace msb::test

#endif  // MSB_TESTS_VM_SMALL_VM_H_
