// SPDX-License-Identifier: Apache-2.0
//
// Helpers for the VM tests: sandboxes of the qemu backend that boot the guest of make_guest.sh, and
// the output of that guest.

#ifndef MSB_TESTS_VM_GUEST_H_
#define MSB_TESTS_VM_GUEST_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "src/base/process.h"
#include "tests/support/support.h"

namespace msb::test {

// The lines of a sandbox's console, without line ends.
using Lines = std::vector<std::string>;

// Return the words in the guest's slots, "-" for an empty one, as the guest found and left them.
std::vector<std::string> SlotsFound(const Lines& boot);
std::vector<std::string> SlotsLeft(const Lines& boot);

// Returns what the guest of a sandbox wrote in one of its boots, counted from 1.
Lines ConsoleOf(const Client& client, const std::string& name, int boot = 1);
// Waits until ConsoleOf has this line, and returns its lines. Throws, with the console and the
// output of QEMU in the message, if the sandbox ends first, or after two minutes.
Lines WaitForConsole(const Context& ctx, Client& client, const std::string& name,
                     const std::string& line, int boot = 1);

// Writes to the cache directory of a home whether a VM can use KVM. Finding that out takes seconds;
// it is done once for all tests, because they have their own homes but share the machine.
void ShareAccelerator(const std::filesystem::path& cache);

// Returns the QEMU process of a running sandbox, as recorded.
base::ProcessIdentity ProcessOf(const Context& ctx, Client& client, const std::string& name);
// Returns the pids of the processes that have their working directory in dir or below it, as VMs
// do.
std::vector<pid_t> ProcessesIn(const std::filesystem::path& dir);

// A child process that calls a function. It is killed when this object is destroyed.
class Child {
 public:
  // The process exits when function returns (status 0) or throws (status 1).
  explicit Child(const std::function<void()>& function);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  // Waits for the process. Returns its exit status, or 128 + the signal that killed it.
  int Wait();
  int Kill();

 private:
  pid_t pid_ = -1;
};

// Skips its tests if there is no guest or no QEMU.
class GuestTest : public ::testing::Test {
 protected:
  void SetUp() override;

  // Returns the configuration of a small machine whose guest does these jobs; see guest_init.sh.
  Config ConfigFor(const std::string& jobs = "") const;
  Client ClientFor(const std::string& jobs = "") const { return Client(ConfigFor(jobs)); }

  // Does the same for a guest that has QEMU's guest agent and ext4.
  Config AgentConfigFor(const std::string& jobs) const;

  SandboxStatus StatusOf(const std::string& name);
  // Expects that nothing of a VM is left: no process, no control socket and no pid file.
  void ExpectNoRemains(const std::string& name);

  const Context ctx_ = Context::Background();
  const TempDir dir_;
  const std::filesystem::path home_ = dir_ / "home";
  const std::filesystem::path image_ = dir_ / "base.img";  // A raw disk of 64 MiB, empty.

 private:
  std::filesystem::path guest_;
};

}  // namespace msb::test

#endif  // MSB_TESTS_VM_GUEST_H_
