#include "src/base/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "src/base/poll.h"
#include "src/base/spawn.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr int kBacklog = 16;

// The address of a short path; kIO for one that does not fit.
sockaddr_un AddressOf(std::string_view path, const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // One byte less, for the NUL.
  if (path.size() >= sizeof address.sun_path) ThrowErrno("name a socket", name, ENAMETOOLONG);
  std::copy(path.begin(), path.end(), address.sun_path);
  return address;
}

const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

UniqueFd MakeSocket(int flags) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (!fd) ThrowErrno("make", "a socket");
  return fd;
}

void RemoveSocketAt(int dir, const std::string& name) {
  struct stat st;
  if (fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return;
    ThrowErrno("look up", name);
  }
  if (!S_ISSOCK(st.st_mode)) {
    Throw(ErrorKind::kIO, "cannot listen at {}: it exists and is no socket", name);
  }
  if (unlinkat(dir, name.c_str(), 0) != 0 && errno != ENOENT) ThrowErrno("remove", name);
}

}  // namespace

UniqueFd ListenAt(int dir, const std::string& name) {
  UniqueFd fd = AboveStandard(MakeSocket(0));  // For a program to inherit.
  const sockaddr_un address = AddressOf(fmt::format("/proc/self/fd/{}/{}", dir, name), name);
  // The name gets the socket's own mode, so that it is never there with a wider one.
  if (fchmod(fd.get(), 0600) != 0) ThrowErrno("set the mode of", name);
  RemoveSocketAt(dir, name);
  if (bind(fd.get(), Generic(address), sizeof address) != 0 || listen(fd.get(), kBacklog) != 0) {
    ThrowErrno("listen at", name);
  }
  return fd;
}

UniqueFd TryConnectAt(int dir, const std::string& name) {
  // Held by a descriptor, what is looked at is what is connected to, and its name may be long.
  const UniqueFd held(openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!held) {
    if (errno == ENOENT || errno == ENOTDIR) return {};
    ThrowErrno("look up", name);
  }
  struct stat st;
  if (fstat(held.get(), &st) != 0) ThrowErrno("stat", name);
  if (!S_ISSOCK(st.st_mode)) return {};
  UniqueFd fd = MakeSocket(SOCK_NONBLOCK);
  const sockaddr_un address = AddressOf(fmt::format("/proc/self/fd/{}", held.get()), name);
  if (connect(fd.get(), Generic(address), sizeof address) == 0) return fd;
  if (errno == ECONNREFUSED) return {};
  ThrowErrno("connect to", name);
}

std::size_t ReceiveSome(const Context& ctx, int fd, std::span<char> buffer) {
  for (;;) {
    const ssize_t n = recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == ECONNRESET) return 0;
    if (errno != EAGAIN && errno != EINTR) ThrowErrno("receive from", "a socket");
    ctx.Check();
    PollBriefly(ctx, fd, POLLIN);
  }
}

bool SendAll(const Context& ctx, int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(n));
      continue;
    }
    if (errno == EPIPE || errno == ECONNRESET) return false;
    if (errno != EAGAIN && errno != EINTR) ThrowErrno("send to", "a socket");
    ctx.Check();
    PollBriefly(ctx, fd, POLLOUT);
  }
  return true;
}

}  // namespace msb::base
