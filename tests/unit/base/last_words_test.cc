// SPDX-License-Identifier: Apache-2.0

#include "src/base/last_words.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <functional>
#include <string>
#include <tuple>

#include "src/base/descriptor.h"
#include "src/base/file.h"
#include "src/base/lock.h"
#include "src/base/unix_socket.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

class LastWordsTest : public ::testing::Test {
 protected:
  LastWordsTest() {
    std::tie(near_, far_) = OpenUnixSocketPair();
    lock_ = CreateFileAt(OpenDirectory(dir_.path()).get(), "lock", 0600);
  }

  // Runs code in a process that is killed when code has returned.
  void RunAndKill(const std::function<void()>& code) {
    const pid_t pid = fork();
    if (pid == 0) {
      code();
      raise(SIGKILL);
    }
    near_.Reset(-1);
    lock_.Reset(-1);
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status));
  }

  // Returns what arrives until size bytes have arrived, or the last sender has ended.
  std::string Receive(std::size_t size) {
    std::string received;
    std::array<char, 100> buffer{};
    while (received.size() < size) {
      const std::size_t n = ReceiveSome(test::Soon(), far_.get(), buffer);
      if (n == 0) break;
      received.append(buffer.data(), n);
    }
    return received;
  }

  UniqueFd OpenLock() { return OpenForUpdateAt(OpenDirectory(dir_.path()).get(), "lock"); }

  const test::TempDir dir_;
  UniqueFd near_;
  UniqueFd far_;
  UniqueFd lock_;
};

TEST_F(LastWordsTest, AreSentIfTheProcessIsKilled) {
  RunAndKill([&] {
    Lock(test::Soon(), lock_.get());
    new LastWords({.socket = near_.get(), .bytes = "farewell", .reply = "ok", .lock = lock_.get()});
  });
  EXPECT_EQ(Receive(8), "farewell");
  const UniqueFd lock = OpenLock();
  EXPECT_FALSE(TryLock(lock.get())) << "the reply is awaited under the lock";
  // The reply comes in pieces, after other data.
  ASSERT_TRUE(SendAll(test::Soon(), far_.get(), std::string(10'000, 'o')));
  EXPECT_FALSE(TryLock(lock.get()));
  ASSERT_TRUE(SendAll(test::Soon(), far_.get(), "k"));
  EXPECT_EQ(Receive(1), "") << "the other process has ended";
  Lock(test::Soon(), lock.get());
}

TEST_F(LastWordsTest, AFloodIsNotWaitedOut) {
  LastWords words({.socket = near_.get(),
                   .bytes = "farewell",
                   .reply = "ok",
                   .time_limit = std::chrono::milliseconds(100)});
  words.SendNow();
  near_.Reset(-1);
  const std::string flood(1 << 16, 'x');
  while (SendAll(test::Soon(), far_.get(), flood)) {
  }
  EXPECT_EQ(Receive(8), "farewell");
}

TEST_F(LastWordsTest, AreNotSentAfterTheyWereTakenBack) {
  RunAndKill(
      [&] { const LastWords words({.socket = near_.get(), .bytes = "farewell", .reply = "ok"}); });
  EXPECT_EQ(Receive(1), "");
}

TEST_F(LastWordsTest, TheOtherProcessEndsWithoutAListener) {
  RunAndKill([&] {
    Lock(test::Soon(), lock_.get());
    new LastWords({.socket = near_.get(), .bytes = "farewell", .reply = "ok", .lock = lock_.get()});
    far_.Reset(-1);
  });
  far_.Reset(-1);
  const UniqueFd lock = OpenLock();
  Lock(test::Soon(), lock.get());
}

TEST_F(LastWordsTest, TheOtherProcessHoldsNothingElse) {
  std::array<int, 2> other{};
  ASSERT_EQ(pipe(other.data()), 0);  // Without O_CLOEXEC, as a program may open it.
  const UniqueFd out(other[0]);
  UniqueFd in(other[1]);
  const LastWords words({.socket = near_.get(), .bytes = "farewell", .reply = "ok"});
  in.Reset(-1);
  char byte = 0;
  EXPECT_EQ(read(out.get(), &byte, 1), 0) << "the end of the pipe";
}

// Also in a container, whose first process becomes the parent of all orphans.
TEST_F(LastWordsTest, LeavesNoChildOfThisProcess) {
  for (const bool is_subreaper : {false, true}) {
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, is_subreaper), 0);
    { const LastWords words({.socket = near_.get(), .bytes = "farewell", .reply = "ok"}); }
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
  }
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

TEST_F(LastWordsTest, MayBeSentWhileTheProcessRuns) {
  LastWords words({.socket = near_.get(), .bytes = "farewell", .reply = "ok"});
  words.SendNow();
  EXPECT_EQ(Receive(8), "farewell");
}

}  // namespace
}  // namespace msb::base
