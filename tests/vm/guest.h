// What the VM tests share: sandboxes of the qemu backend that boot the guest of make_guest.sh, and
// what that guest says.

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

// Lines of a sandbox's console, without their ends.
using Lines = std::vector<std::string>;

// The words in the guest's slots, "-" for an empty one: as it found them, and as it left them.
std::vector<std::string> SlotsFound(const Lines& boot);
std::vector<std::string> SlotsLeft(const Lines& boot);

// What the guest of this sandbox wrote in one of its boots; they count from 1.
Lines ConsoleOf(const Client& client, const std::string& name, int boot = 1);
// Waits until that holds this line, and returns it. Throws, with all that is known, if the sandbox
// ends without, or after two minutes.
Lines WaitForConsole(const Context& ctx, Client& client, const std::string& name,
                     const std::string& line, int boot = 1);

// Whether a VM may use KVM takes seconds to find out, and is remembered in the cache directory of a
// home. Each test has a home of its own, but not a machine: this makes the cache know the answer.
void ShareAccelerator(const std::filesystem::path& cache);

// The QEMU process of a running sandbox, as its record has it.
base::ProcessIdentity ProcessOf(const Context& ctx, Client& client, const std::string& name);
// Pids of the processes that work in dir or below it; those of VMs do.
std::vector<pid_t> ProcessesIn(const std::filesystem::path& dir);

// Runs a function in a process of its own, which is killed when this goes out of scope.
class Child {
 public:
  // The process ends after the function unless that waits: with status 0, or 1 if it throws.
  explicit Child(const std::function<void()>& function);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  // Its exit status; 128 + the signal for a killed one.
  int Wait();
  int Kill();

 private:
  pid_t pid_ = -1;
};

// Skips its tests where there is no guest, or no QEMU.
class GuestTest : public ::testing::Test {
 protected:
  void SetUp() override;

  // A small machine for the guest, which is to do these jobs; see guest_init.sh.
  Config ConfigFor(const std::string& jobs = "") const;
  Client ClientFor(const std::string& jobs = "") const { return Client(ConfigFor(jobs)); }

  SandboxStatus StatusOf(const std::string& name);
  // Expects that nothing of a VM is left: no process, no socket, no file of its pid.
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
