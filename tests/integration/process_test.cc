// SPDX-License-Identifier: Apache-2.0
//
// The process that uses the library may fork while other threads are in calls, may be exiting, and
// may have no standard streams or no threads.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/support/support.h"

namespace msb::test {
namespace {

using ::testing::IsEmpty;

// Calls function in a forked process. Returns what failed there, or an empty string.
std::string InForkedProcess(const std::function<void()>& function,
                            const std::function<void(int status)>& end = _exit) {
  TempDir dir;
  const std::string path = dir / "failure";
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(120);
    int status = 0;
    try {
      function();
    } catch (const std::exception& e) {
      WriteFile(path, std::string("throws: ") + e.what());
      status = 1;
    }
    end(status);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (std::filesystem::exists(path)) return ReadFile(path);
  if (WIFSIGNALED(status)) return "killed by signal " + std::to_string(WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? "" : "exit status " + std::to_string(WEXITSTATUS(status));
}

void Require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

class ProcessTest : public ::testing::Test {
 protected:
  ProcessTest() { MakeStoppedSandbox(client_, "baseline", dir_ / "base.img"); }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  std::vector<std::string> log_;
  Client client_ = LocalClient(dir_ / "home", &log_);
};

TEST_F(ProcessTest, ForkedProcessesUseTheClientThatOtherThreadsWereUsing) {
  std::atomic<bool> stop = false;
  std::string failure;
  const auto work = [&](const std::string& name) {
    try {
      while (!stop) {
        Snapshot::Create(ctx_, "baseline", {.name = name, .force = true}, client_);
        std::ignore = Snapshot::List(ctx_, client_);
      }
    } catch (const std::exception& e) {
      failure = e.what();
    }
  };
  std::thread thread(work, "of-a-thread");
  std::string first_failure;
  for (int i = 0; i < 100 && first_failure.empty(); ++i) {
    first_failure = InForkedProcess([&] {
      const std::string name = "of-process-" + std::to_string(i);
      std::ignore = Snapshot::List(ctx_, client_);
      Snapshot::Create(ctx_, "baseline", {.name = name}, client_);
      Require(Snapshot::Get(ctx_, name, client_).Name() == name, "no row");
    });
  }
  stop = true;
  thread.join();
  EXPECT_EQ(first_failure, "");
  EXPECT_EQ(failure, "");
  EXPECT_EQ(Snapshot::List(ctx_, client_).size(), 101U);
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(ProcessTest, AForkedProcessDoesNotStopTheSandboxesOfItsParent) {
  std::optional<Sandbox> baseline = StartSandbox(ctx_, "baseline", client_);
  EXPECT_EQ(InForkedProcess([&] { baseline.reset(); }), "");
  EXPECT_EQ(GetSandbox(ctx_, "baseline", client_).Status(), SandboxStatus::kRunning);
  baseline.reset();
  EXPECT_EQ(GetSandbox(ctx_, "baseline", client_).Status(), SandboxStatus::kStopped);
}

TEST_F(ProcessTest, AFileThatMayNotGrowIsAnErrorAndNoSignal) {
  MakeSparseFile(dir_ / "large.img", 4 << 20, {{0, Noise(4 << 20, 1)}});
  CreateSandbox(ctx_, "large", {WithImage(dir_ / "large.img")}, client_).Close();
  EXPECT_EQ(InForkedProcess([&] {
              // The disk may share blocks with that of the sandbox, but an archive is written.
              const rlimit limit{1 << 20, 1 << 20};
              Require(setrlimit(RLIMIT_FSIZE, &limit) == 0, "cannot set the limit");
              try {
                Snapshot::Create(ctx_, "large", {.name = "large"}, client_);
                Snapshot::Export(ctx_, "large", dir_ / "large.tar.zst", {}, client_);
              } catch (const Error& e) {
                Require(e.kind() == ErrorKind::kIO && Names(e.what(), {"cannot ", "ulimit -f"}),
                        e.what());
                return;
              }
              Require(false, "no error");
            }),
            "");
}

TEST_F(ProcessTest, OnlyTheOwnerOfAQcow2DiskCanSnapshotIt) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const TempDir dir(std::filesystem::temp_directory_path());
  MakeSparseFile(dir / "base.img", 1 << 20, {});
  const Client client(Config{.home = dir / "home",
                             .backend = "local",
                             .upper_format = DiskFormat::kQcow2,
                             .log = [](std::string_view) {}});
  CreateSandbox(ctx_, "cow", {WithImage(dir / "base.img")}, client).Close();
  RunCommand("chmod -R a+rwX " + dir.path().native());
  EXPECT_EQ(InForkedProcess([&] {
              Require(seteuid(65534) == 0, "cannot change the user");
              try {
                Snapshot::Create(ctx_, "cow", {.name = "s"}, client);
              } catch (const Error& e) {
                Require(e.kind() == ErrorKind::kIO &&
                            Names(e.what(), {"belongs to user 0", "only its owner can",
                                             "run this as that user"}),
                        e.what());
                return;
              }
              Require(false, "no error");
            }),
            "");
}

// Constructed before any client, so destroyed after everything that the library initializes later.
struct AtExit {
  ~AtExit() {
    if (function) function();
  }
  std::function<void()> function;
};
AtExit at_exit;

TEST_F(ProcessTest, StaticDestructorsAndExitHandlersUseTheDefaultClient) {
  setenv("MSB_HOME", (dir_ / "home").c_str(), 1);
  setenv("MSB_BACKEND", "local", 1);
  EXPECT_EQ(InForkedProcess(
                [] {
                  at_exit.function = [] {
                    const Context ctx = Context::Background();
                    Snapshot::Create(ctx, "baseline", {.name = "last", .record_integrity = true});
                    Require(Snapshot::Open(ctx, "last").Verify(ctx).upper.kind == "verified", "");
                  };
                  std::atexit([] { std::ignore = Snapshot::List(Context::Background()); });
                  Snapshot::Create(Context::Background(), "baseline", {.name = "first"});
                },
                std::exit),
            "");
  unsetenv("MSB_HOME");
  unsetenv("MSB_BACKEND");
  EXPECT_EQ(Snapshot::Open(ctx_, "last", client_).Verify(ctx_).upper.kind, "verified");
  EXPECT_TRUE(Snapshot::Get(ctx_, "last", client_).Name());
}

// Prints like a daemon's logger, to any file that has the number of a standard stream.
class Chatter {
 public:
  Chatter()
      : thread_([this] {
          while (!stop_) {
            for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
              if (write(fd, "CHATTER\n", 8) == 8) written_ = true;
            }
          }
        }) {}
  ~Chatter() {
    stop_ = true;
    thread_.join();
  }
  bool written() const { return written_; }

 private:
  std::atomic<bool> stop_ = false;
  std::atomic<bool> written_ = false;
  std::thread thread_;
};

TEST_F(ProcessTest, WithoutStandardStreamsNothingIsPrintedIntoFiles) {
  const std::string failure = InForkedProcess([&] {
    for (int fd = 0; fd <= STDERR_FILENO; ++fd) close(fd);
    const Chatter chatter;
    for (int i = 0; i < 10; ++i) {
      Snapshot::Create(ctx_, "baseline", {.name = "s", .force = true, .record_integrity = true},
                       client_);
    }
    Snapshot::Export(ctx_, "s", dir_ / "s.tar.zst", {}, client_);
    Client other = LocalClient(dir_ / "other");
    Snapshot::Import(ctx_, dir_ / "s.tar.zst", "", other);
    const auto imported = Snapshot::ListDir(ctx_, "", other);
    Require(imported.size() == 1, "not imported");
    Require(imported[0].Verify(ctx_).upper.kind == "verified", "not verified");
    Require(!chatter.written(), "standard streams were open");
  });
  EXPECT_EQ(failure, "");
  EXPECT_EQ(RunCommand("grep -rl CHATTER " + dir_.path().native()).output, "");
  EXPECT_EQ(Snapshot::Open(ctx_, "s", client_).Verify(ctx_).upper.kind, "verified");
}

// Forbids new threads. RLIMIT_NPROC does not limit root, so root becomes another user.
void AllowNoThreads() {
  const rlimit one{1, 1};
  Require(setrlimit(RLIMIT_NPROC, &one) == 0, "setrlimit");
  if (geteuid() == 0) Require(setresuid(23461, 23461, 23461) == 0, "setresuid");
  bool created = true;
  try {
    std::thread([] {}).join();
  } catch (const std::system_error&) {
    created = false;
  }
  Require(!created, "a thread could be created");
}

TEST(ProcessLimitTest, WithoutThreadsExportAndImportDoTheSame) {
  const TempDir dir("/tmp");
  const Context ctx = Context::Background();
  Client client = LocalClient(dir / "home");
  MakeSparseFile(dir / "base.img", 20 << 20, {{0, Noise(5 << 20, 1)}, {12 << 20, Noise(9, 2)}});
  MakeStoppedSandbox(client, "baseline", dir / "base.img");
  const auto made =
      Snapshot::Create(ctx, "baseline", {.name = "s", .record_integrity = true}, client);
  Snapshot::Export(ctx, "s", dir / "threads.tar.zst", {}, client);
  ASSERT_EQ(RunCommand("chmod -R a+rwX " + dir.path().native()).status, 0);
  EXPECT_EQ(InForkedProcess([&] {
              AllowNoThreads();
              Client alone = LocalClient(dir / "alone");
              Snapshot::Export(ctx, "s", dir / "alone.tar.zst", {}, client);
              Snapshot::Import(ctx, dir / "threads.tar.zst", dir / "first", alone);
              Snapshot::Import(ctx, dir / "alone.tar.zst", dir / "second", alone);
              Require(Snapshot::Open(ctx, "s", client).Verify(ctx).upper.kind == "verified", "");
            }),
            "");
  for (const char* name : {"first", "second"}) {
    const auto imported = Snapshot::ListDir(ctx, dir / name, client);
    ASSERT_EQ(imported.size(), 1U);
    EXPECT_EQ(imported[0].Digest(), made.Digest());
    EXPECT_EQ(imported[0].Verify(ctx).upper.kind, "verified");
    EXPECT_EQ(ReadFile(imported[0].Path() + "/upper.ext4"), ReadFile(made.Path() + "/upper.ext4"));
  }
}

}  // namespace
}  // namespace msb::test
