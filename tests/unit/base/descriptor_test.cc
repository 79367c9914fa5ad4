// SPDX-License-Identifier: Apache-2.0

#include "src/base/descriptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/support.h"

namespace msb::base {
namespace {

using test::IsOpen;

// Runs function in a process that has closed its standard streams. Returns its exit status.
int WithoutStandardStreams(const std::function<int()>& function) {
  const pid_t pid = fork();
  if (pid == 0) {
    for (int fd = 0; fd <= STDERR_FILENO; ++fd) close(fd);
    _exit(function());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Returns how many of these are closed or have the number of a standard stream.
int CountLow(const std::vector<int>& fds) {
  int low = 0;
  for (const int fd : fds) low += fd <= STDERR_FILENO || !IsOpen(fd) ? 1 : 0;
  return low;
}

TEST(UniqueFdTest, ClosesOnlyTheDescriptorItOwns) {
  int raw = -1;
  int released = -1;
  {
    UniqueFd first = OpenAt(AT_FDCWD, "/dev/null", O_RDONLY);
    raw = first.get();
    UniqueFd second = std::move(first);
    EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): checks the moved-from object.
    EXPECT_EQ(second.get(), raw);
    UniqueFd third = OpenAt(AT_FDCWD, "/dev/null", O_RDONLY);
    released = third.Release();
    EXPECT_TRUE(IsOpen(raw));
  }
  EXPECT_FALSE(IsOpen(raw));
  EXPECT_TRUE(IsOpen(released));
  close(released);
}

TEST(DescriptorTest, NothingGetsTheNumberOfAStandardStream) {
  test::TempDir dir;
  const std::string path = dir.path() / "file";
  EXPECT_EQ(WithoutStandardStreams([&] {
              const UniqueFd file = OpenAt(AT_FDCWD, path.c_str(), O_RDWR | O_CREAT, 0600);
              const UniqueFd duplicate = Duplicate(file.get());
              const auto pipe = OpenPipe();
              const UniqueFd socket = OpenUnixSocket(SOCK_NONBLOCK);
              const auto pair = OpenUnixSocketPair();
              const UniqueFd memory = OpenMemoryFile("test");
              const UniqueFd process = OpenProcess(getpid());
              return CountLow({file.get(), duplicate.get(), pipe.first.get(), pipe.second.get(),
                               socket.get(), pair.first.get(), pair.second.get(), memory.get(),
                               process.get()});
            }),
            0);
}

TEST(DescriptorTest, ClosedStandardStreamsStayClosed) {
  EXPECT_EQ(WithoutStandardStreams([] {
              const UniqueFd root = OpenAt(AT_FDCWD, "/", O_RDONLY);
              int open = 0;
              for (int fd = 0; fd <= STDERR_FILENO; ++fd) open += IsOpen(fd) ? 1 : 0;
              return root ? open : 9;
            }),
            0);
}

TEST(DescriptorTest, AGuardMakesWritingToAClosedStreamFail) {
  EXPECT_EQ(WithoutStandardStreams([] {
              const StandardStreamGuard guard;
              return write(STDOUT_FILENO, "x", 1) < 0 && errno == EBADF ? 0 : 1;
            }),
            0);
}

TEST(DescriptorTest, AGuardLeavesAStreamThatTheProgramPutsThere) {
  EXPECT_EQ(WithoutStandardStreams([] {
              {
                const StandardStreamGuard guard;
                const UniqueFd null = OpenAt(AT_FDCWD, "/dev/null", O_RDWR);
                dup2(null.get(), STDERR_FILENO);
              }
              return IsOpen(STDERR_FILENO) && !IsOpen(STDOUT_FILENO) ? 0 : 1;
            }),
            0);
}

// The guard of one thread must not close what another thread relies on.
TEST(DescriptorTest, SeveralThreadsOpenAboveTheStandardStreams) {
  EXPECT_EQ(WithoutStandardStreams([] {
              std::atomic<int> low = 0;
              std::vector<std::thread> threads;
              for (int n = 0; n < 4; ++n) {
                threads.emplace_back([&] {
                  for (int i = 0; i < 2000; ++i) {
                    low += [] {
                      const UniqueFd fd = OpenAt(AT_FDCWD, "/", O_RDONLY);
                      return CountLow({fd.get()});
                    }();
                  }
                });
              }
              for (std::thread& thread : threads) thread.join();
              return low > 0 ? 1 : 0;
            }),
            0);
}

// The forked process has a copy of the guard that its thread was in.
TEST(DescriptorTest, GuardStaysInEffectAfterAFork) {
  EXPECT_EQ(WithoutStandardStreams([] {
              std::optional<StandardStreamGuard> guard(std::in_place);
              const pid_t pid = fork();
              if (pid != 0) {
                int status = 0;
                waitpid(pid, &status, 0);
                return WIFEXITED(status) ? WEXITSTATUS(status) : 9;
              }
              { const StandardStreamGuard inner; }
              if (!IsOpen(STDOUT_FILENO)) return 1;
              guard.reset();
              if (IsOpen(STDOUT_FILENO)) return 2;
              { const StandardStreamGuard next; }
              return IsOpen(STDOUT_FILENO) ? 3 : 0;
            }),
            0);
}

TEST(DescriptorTest, AFailureKeepsErrno) {
  EXPECT_EQ(WithoutStandardStreams([] {
              const UniqueFd fd = OpenAt(AT_FDCWD, "/nonexistent/file", O_RDONLY);
              return !fd && errno == ENOENT ? 0 : 1;
            }),
            0);
}

}  // namespace
}  // namespace msb::base
