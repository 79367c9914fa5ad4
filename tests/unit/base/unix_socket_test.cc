// SPDX-License-Identifier: Apache-2.0

#include "src/base/unix_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <thread>

#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

std::string ReceiveAll(const UniqueFd& fd) {
  std::string text;
  std::array<char, 4096> buffer{};
  while (const std::size_t length = ReceiveSome(test::Soon(), fd.get(), buffer)) {
    text.append(buffer.data(), length);
  }
  return text;
}

// Two connected sockets.
struct Pair {
  Pair() {
    std::array<int, 2> fds{};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()) != 0) {
      ADD_FAILURE() << "no sockets";
    }
    here.Reset(fds[0]);
    there.Reset(fds[1]);
  }

  UniqueFd here;
  UniqueFd there;
};

TEST(UnixSocketTest, APathMayBeLongerThanAnAddress) {
  const test::TempDir dir;
  const std::filesystem::path deep = dir / std::string(200, 'a') / std::string(200, 'b');
  std::filesystem::create_directories(deep);
  const UniqueFd fd = OpenDirectory(deep);
  const UniqueFd listener = ListenAt(fd.get(), "qmp.sock");
  EXPECT_TRUE(std::filesystem::is_socket(deep / "qmp.sock"));
  const UniqueFd client = TryConnectAt(test::Soon(), fd.get(), "qmp.sock");
  ASSERT_TRUE(client);
  UniqueFd server(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(server);
  EXPECT_TRUE(SendAll(test::Soon(), server.get(), "hello"));
  server.Reset(-1);
  EXPECT_EQ(ReceiveAll(client), "hello");
}

TEST(UnixSocketTest, OnlyTheOwnerMayConnect) {
  const test::TempDir dir;
  const mode_t old = umask(0);
  const UniqueFd listener = ListenAt(OpenDirectory(dir.path()).get(), "socket");
  umask(old);
  struct stat st {};
  ASSERT_EQ(stat((dir / "socket").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
}

TEST(UnixSocketTest, ReplacesAnAbandonedSocket) {
  const test::TempDir dir;
  const UniqueFd fd = OpenDirectory(dir.path());
  UniqueFd listener = ListenAt(fd.get(), "socket");
  listener.Reset(-1);
  EXPECT_FALSE(TryConnectAt(test::Soon(), fd.get(), "socket"));
  listener = ListenAt(fd.get(), "socket");
  EXPECT_TRUE(TryConnectAt(test::Soon(), fd.get(), "socket"));
}

TEST(UnixSocketTest, ReplacesOnlySockets) {
  const test::TempDir dir;
  const UniqueFd fd = OpenDirectory(dir.path());
  const UniqueFd listener = ListenAt(fd.get(), "socket");
  test::WriteFile(dir / "file", "content");
  std::filesystem::create_directory(dir / "directory");
  std::filesystem::create_symlink("socket", dir / "link");
  for (const char* name : {"file", "directory", "link"}) {
    EXPECT_MSB_ERROR(ListenAt(fd.get(), name), ErrorKind::kIO, "cannot listen at ",
                     "/" + std::string(name) + ": ", "not a socket; move it away");
    EXPECT_FALSE(TryConnectAt(test::Soon(), fd.get(), name)) << name;
  }
  EXPECT_EQ(test::ReadFile(dir / "file"), "content");
  EXPECT_TRUE(std::filesystem::is_symlink(dir / "link"));
}

TEST(UnixSocketTest, AnAbsentNameHasNoListener) {
  const test::TempDir dir;
  EXPECT_FALSE(TryConnectAt(test::Soon(), OpenDirectory(dir.path()).get(), "absent"));
}

TEST(UnixSocketTest, ANameMayBeTooLong) {
  const test::TempDir dir;
  const UniqueFd fd = OpenDirectory(dir.path());
  EXPECT_MSB_ERROR(ListenAt(fd.get(), std::string(200, 'n')), ErrorKind::kIO,
                   "cannot use the socket nnn", "choose a shorter name");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  // A socket gets such a name only by being renamed.
  const UniqueFd listener = ListenAt(fd.get(), "socket");
  std::filesystem::rename(dir / "socket", dir / std::string(200, 'n'));
  EXPECT_TRUE(TryConnectAt(test::Soon(), fd.get(), std::string(200, 'n')));
}

TEST(UnixSocketTest, WaitsForAListenerThatIsBusy) {
  const test::TempDir dir;
  const UniqueFd fd = OpenDirectory(dir.path());
  EXPECT_FALSE(IsServedAt(fd.get(), "socket"));
  UniqueFd listener = ListenAt(fd.get(), "socket");
  EXPECT_TRUE(IsServedAt(fd.get(), "socket"));
  std::vector<UniqueFd> clients;
  const auto fill = [&] {
    const Context limited = Context::Background().WithTimeout(std::chrono::milliseconds(100));
    for (int i = 0; i < 1000; ++i) clients.push_back(TryConnectAt(limited, fd.get(), "socket"));
  };
  EXPECT_MSB_ERROR(fill(), ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_FALSE(clients.empty());
  EXPECT_TRUE(IsServedAt(fd.get(), "socket")) << "it listens, although its queue is full";
  std::thread other([&] {
    UniqueFd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_TRUE(accepted);
  });
  EXPECT_TRUE(TryConnectAt(test::Soon(), fd.get(), "socket"));
  other.join();
  listener.Reset(-1);
  EXPECT_FALSE(IsServedAt(fd.get(), "socket"));
  EXPECT_FALSE(TryConnectAt(test::Soon(), fd.get(), "socket"));
}

TEST(UnixSocketTest, SendsMoreThanTheKernelHolds) {
  Pair pair;
  const std::string bytes = test::Noise(4 << 20, 1);
  std::thread sender([&] {
    EXPECT_TRUE(SendAll(test::Soon(), pair.there.get(), bytes));
    pair.there.Reset(-1);
  });
  EXPECT_TRUE(ReceiveAll(pair.here) == bytes);
  sender.join();
}

TEST(UnixSocketTest, SendingToOneThatHasClosedIsNoSignal) {
  Pair pair;
  pair.there.Reset(-1);
  EXPECT_FALSE(SendAll(test::Soon(), pair.here.get(), "hello"));
  EXPECT_EQ(ReceiveAll(pair.here), "");
}

TEST(UnixSocketTest, BothEndWithTheirContext) {
  Pair pair;
  const Context late = Context::Background().WithTimeout(std::chrono::milliseconds(70));
  std::array<char, 16> buffer{};
  EXPECT_MSB_ERROR(ReceiveSome(late, pair.here.get(), buffer), ErrorKind::kCancelled,
                   "deadline exceeded");
  const std::string bytes(4 << 20, 'x');
  const auto [ctx, cancel] = test::Soon().WithCancel();
  std::thread other(cancel);
  EXPECT_MSB_ERROR(SendAll(ctx, pair.here.get(), bytes), ErrorKind::kCancelled, "cancelled");
  other.join();
}

// Otherwise a loop could not be ended while the other side sends or reads fast enough.
TEST(UnixSocketTest, NeitherSucceedsAfterTheEndOfItsContext) {
  Pair pair;
  const Context done = Context::Background().WithTimeout(std::chrono::seconds(0));
  EXPECT_MSB_ERROR(SendAll(done, pair.there.get(), "hello"), ErrorKind::kCancelled,
                   "deadline exceeded");
  EXPECT_TRUE(SendAll(test::Soon(), pair.there.get(), "hello"));
  pair.there.Reset(-1);
  std::array<char, 16> buffer{};
  EXPECT_MSB_ERROR(ReceiveSome(done, pair.here.get(), buffer), ErrorKind::kCancelled,
                   "deadline exceeded");
  EXPECT_EQ(ReceiveSome(test::Soon(), pair.here.get(), buffer), 5u);
  EXPECT_EQ(ReceiveSome(test::Soon(), pair.here.get(), buffer), 0u);
}

}  // namespace
}  // namespace msb::base
