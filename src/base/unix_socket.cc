// SPDX-License-Identifier: Apache-2.0

#include "src/base/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include "src/base/poll.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr int kBacklog = 16;
// The interval at which a connection is tried again while the queue of a socket is full.
constexpr auto kFullQueueInterval = std::chrono::milliseconds(1);

// Returns the address of a short path. Throws kIO, naming name, if the path does not fit.
sockaddr_un AddressOf(std::string_view path, const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // The path must leave room for a NUL.
  if (path.size() >= sizeof address.sun_path) ThrowErrno("use the socket", name, ENAMETOOLONG);
  std::copy(path.begin(), path.end(), address.sun_path);
  return address;
}

const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

UniqueFd MakeSocket(int flags) {
  UniqueFd fd = OpenUnixSocket(flags);
  if (!fd) ThrowErrno("create", "a socket");
  return fd;
}

void RemoveSocketAt(int dir, const std::string& name) {
  struct stat st;
  if (fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return;
    ThrowErrnoAt("look up", dir, name);
  }
  if (!S_ISSOCK(st.st_mode)) {
    Throw(ErrorKind::kIO, "cannot listen at {}: it exists and is not a socket; move it away",
          PathOf(dir, name));
  }
  if (unlinkat(dir, name.c_str(), 0) != 0 && errno != ENOENT) ThrowErrnoAt("remove", dir, name);
}

struct Connection {
  UniqueFd fd = {};            // Empty if no process listens or the queue is full.
  bool is_queue_full = false;  // A process listens, but too many clients wait for it.
};

Connection ConnectAt(int dir, const std::string& name) {
  // Opening it first ensures that the checked socket is the connected one, and allows a long path.
  const UniqueFd held = OpenAt(dir, name.c_str(), O_PATH | O_NOFOLLOW);
  if (!held) {
    if (errno == ENOENT || errno == ENOTDIR) return {};
    ThrowErrnoAt("look up", dir, name);
  }
  struct stat st;
  if (fstat(held.get(), &st) != 0) ThrowErrnoAt("stat", dir, name);
  if (!S_ISSOCK(st.st_mode)) return {};
  UniqueFd fd = MakeSocket(SOCK_NONBLOCK);
  const sockaddr_un address = AddressOf(fmt::format("/proc/self/fd/{}", held.get()), name);
  if (connect(fd.get(), Generic(address), sizeof address) == 0) return {.fd = std::move(fd)};
  if (errno == ECONNREFUSED) return {};
  if (errno == EAGAIN) return {.is_queue_full = true};
  ThrowErrnoAt("connect to", dir, name);
}

}  // namespace

UniqueFd ListenAt(int dir, const std::string& name) {
  UniqueFd fd = MakeSocket(0);
  const sockaddr_un address = AddressOf(fmt::format("/proc/self/fd/{}/{}", dir, name), name);
  // bind(2) gives the name the mode of the socket, so it never has a wider one.
  if (fchmod(fd.get(), 0600) != 0) ThrowErrnoAt("set the mode of", dir, name);
  RemoveSocketAt(dir, name);
  if (bind(fd.get(), Generic(address), sizeof address) != 0 || listen(fd.get(), kBacklog) != 0) {
    ThrowErrnoAt("listen at", dir, name);
  }
  return fd;
}

UniqueFd TryConnectAt(const Context& ctx, int dir, const std::string& name) {
  for (;;) {
    Connection connection = ConnectAt(dir, name);
    if (!connection.is_queue_full) return std::move(connection.fd);
    ctx.Check();
    std::this_thread::sleep_for(kFullQueueInterval);
  }
}

bool IsServedAt(int dir, const std::string& name) {
  const Connection connection = ConnectAt(dir, name);
  return connection.fd || connection.is_queue_full;
}

std::size_t ReceiveSome(const Context& ctx, int fd, std::span<char> buffer) {
  for (;;) {
    ctx.Check();
    const ssize_t n = recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == ECONNRESET) return 0;
    if (errno != EAGAIN && errno != EINTR) ThrowErrno("receive from", "a socket");
    PollBriefly(ctx, fd, POLLIN);
  }
}

bool SendAll(const Context& ctx, int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ctx.Check();
    const ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(n));
      continue;
    }
    if (errno == EPIPE || errno == ECONNRESET) return false;
    if (errno != EAGAIN && errno != EINTR) ThrowErrno("send to", "a socket");
    PollBriefly(ctx, fd, POLLOUT);
  }
  return true;
}

}  // namespace msb::base
