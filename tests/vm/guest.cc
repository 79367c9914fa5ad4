// SPDX-License-Identifier: Apache-2.0

#include "tests/vm/guest.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "src/base/spawn.h"
#include "src/vmm/qemu_accelerator.h"
#include "tests/support/build.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::size_t kSlots = 4;
constexpr auto kGuestTimeout = seconds(120);
constexpr auto kPollInterval = milliseconds(20);
constexpr const char* kQemu = "qemu-system-x86_64";

std::string ReadIfThere(const fs::path& path) { return fs::exists(path) ? ReadFile(path) : ""; }

fs::path DirectoryOf(const Client& client, const std::string& name) {
  return client.config().sandboxes_dir / name;
}

// Returns the words of all lines "SLOT n WORD". The guest prints its slots twice in each boot.
std::vector<std::string> SlotsIn(const Lines& boot) {
  std::vector<std::string> words;
  for (const std::string& line : boot) {
    if (line.starts_with("SLOT ")) words.push_back(line.substr(line.rfind(' ') + 1));
  }
  if (words.size() != 2 * kSlots) {
    throw std::runtime_error(fmt::format("the guest showed {} slots", words.size()));
  }
  return words;
}

bool IsRunning(SandboxStatus status) { return status == SandboxStatus::kRunning; }

int ExitStatusOf(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

std::vector<std::string> SlotsFound(const Lines& boot) {
  std::vector<std::string> words = SlotsIn(boot);
  words.resize(kSlots);
  return words;
}

std::vector<std::string> SlotsLeft(const Lines& boot) {
  std::vector<std::string> words = SlotsIn(boot);
  words.erase(words.begin(), words.begin() + kSlots);
  return words;
}

Lines ConsoleOf(const Client& client, const std::string& name, int boot) {
  std::istringstream console(ReadIfThere(DirectoryOf(client, name) / "console.log"));
  Lines lines;
  int current = 0;
  // A line that has no end yet may be incomplete.
  for (std::string line; std::getline(console, line) && !console.eof();) {
    while (line.ends_with('\r')) line.pop_back();
    if (line == "GUEST-UP") ++current;
    if (current == boot) lines.push_back(line);
  }
  return lines;
}

Lines WaitForConsole(const Context& ctx, Client& client, const std::string& name,
                     const std::string& line, int boot) {
  const Context limited = ctx.WithTimeout(kGuestTimeout);
  for (;;) {
    const SandboxStatus status = GetSandbox(ctx, name, client).Status();
    Lines lines =
        ConsoleOf(client, name, boot);  // Read later, so that what it said before it ended counts.
    if (std::find(lines.begin(), lines.end(), line) != lines.end()) return lines;
    if (!IsRunning(status) || limited.Done()) {
      throw std::runtime_error(fmt::format(
          "no '{}' in boot {} of sandbox {}, which is {}\n--- console.log\n{}\n--- qemu.log\n{}",
          line, boot, name, ToString(status),
          ReadIfThere(DirectoryOf(client, name) / "console.log"),
          ReadIfThere(DirectoryOf(client, name) / "qemu.log")));
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

void ShareAccelerator(const fs::path& cache) {
  const fs::path shared = ScratchDir() / "vm-cache";
  vmm::ChooseAccelerator(Context::Background(), base::FindProgram(kQemu), shared);
  fs::create_directories(cache);
  std::error_code none;  // Without KVM nothing is remembered, so there is no such file.
  fs::copy_file(shared / "qemu-accelerator", cache / "qemu-accelerator", none);
}

base::ProcessIdentity ProcessOf(const Context& ctx, Client& client, const std::string& name) {
  const auto record = nlohmann::json::parse(GetSandbox(ctx, name, client).ConfigJSON());
  const auto& process = record.at("process");
  return {.pid = process.at("pid"),
          .start_ticks = process.at("start_ticks"),
          .boot_id = process.at("boot_id")};
}

std::vector<pid_t> ProcessesIn(const fs::path& dir) {
  std::vector<pid_t> pids;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::error_code gone;
    const fs::path place = fs::read_symlink(entry.path() / "cwd", gone);
    if (gone || !(place.native() + "/").starts_with(dir.native() + "/")) continue;
    pids.push_back(std::stoi(name));
  }
  return pids;
}

Child::Child(const std::function<void()>& function) : pid_(fork()) {
  if (pid_ < 0) throw std::runtime_error("cannot fork");
  if (pid_ > 0) return;
  try {
    function();
  } catch (const std::exception& e) {
    fmt::print(stderr, "in a child: {}\n", e.what());
    _exit(1);
  }
  _exit(0);
}

Child::~Child() {
  if (pid_ > 0) Kill();
}

int Child::Wait() {
  int status = -1;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return ExitStatusOf(status);
}

int Child::Kill() {
  kill(pid_, SIGKILL);
  return Wait();
}

void GuestTest::SetUp() {
  const char* guest = std::getenv("MSB_TEST_GUEST");
  if (guest == nullptr || *guest == '\0') {
    GTEST_SKIP() << "no guest: run tests/vm/make_guest.sh DIR, and set MSB_TEST_GUEST=DIR";
  }
  guest_ = guest;
  ASSERT_TRUE(fs::exists(guest_ / "initrd.gz")) << guest_ << " holds no guest";
  if (base::FindProgram(kQemu).empty()) GTEST_SKIP() << "no " << kQemu << " on the PATH";
  ShareAccelerator(home_ / "cache");
  MakeSparseFile(image_, 64 << 20, {});
}

Config GuestTest::ConfigFor(const std::string& jobs) const {
  // With loglevel=1 only emergencies come between the guest's own lines. Without tsc=unstable, a
  // slow emulated clock makes Linux busy with finding another one. Self-tests of the kernel take a
  // tenth of the boot.
  return {.home = home_,
          .backend = "qemu",
          .qemu = {.kernel = guest_ / "vmlinuz",
                   .initrd = guest_ / "initrd.gz",
                   .append =
                       "console=ttyS0 loglevel=1 panic=-1 tsc=unstable cryptomgr.notests=1 " + jobs,
                   .memory_mib = 128}};
}

Config GuestTest::AgentConfigFor(const std::string& jobs) const {
  Config config = ConfigFor(jobs);
  config.qemu.initrd.replace_filename("initrd-agent.gz");
  config.qemu.memory_mib = 256;
  return config;
}

SandboxStatus GuestTest::StatusOf(const std::string& name) {
  Client client = ClientFor();
  return GetSandbox(ctx_, name, client).Status();
}

void GuestTest::ExpectNoRemains(const std::string& name) {
  const fs::path sandbox = home_ / "sandboxes" / name;
  EXPECT_TRUE(ProcessesIn(sandbox).empty());
  EXPECT_FALSE(fs::exists(sandbox / "qmp.sock"));
  EXPECT_FALSE(fs::exists(sandbox / "agent.sock"));
  EXPECT_FALSE(fs::exists(sandbox / "agent.lock"));
  EXPECT_FALSE(fs::exists(sandbox / "agent.queue"));
  EXPECT_FALSE(fs::exists(sandbox / "qemu.pid"));
}

}  // namespace msb::test
