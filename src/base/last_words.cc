// SPDX-License-Identifier: Apache-2.0

#include "src/base/last_words.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <limits>
#include <string_view>
#include <tuple>

#include "src/base/orphan.h"
#include "src/base/owned_descriptor.h"
#include "src/base/retry.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

// What the new process needs. It is a copy of one thread of a program with many, so it only makes
// system calls, and allocates nothing.
struct Errand {
  int channel = -1;  // The end of the channel to the other process.
  int socket = -1;
  int lock = -1;
  std::string_view bytes;
  std::string_view reply;
  std::int64_t time_limit = 0;  // In milliseconds.
};

// Closes all descriptors from first to last.
void CloseRange(unsigned first, unsigned last) {
  if (first > last || syscall(SYS_close_range, first, last, 0) == 0) return;
  // Linux before 5.9. The limit is the one of owned_descriptor.h.
  constexpr rlim_t kMostDescriptors = 1 << 20;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t end = std::min(limit.rlim_cur, kMostDescriptors);
  for (unsigned fd = first; fd <= last && fd < end; ++fd) close(static_cast<int>(fd));
}

// Closes all other descriptors, so that they are really closed when the program closes them.
void KeepOnly(std::array<int, 3> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned next = 0;
  for (const int fd : kept) {
    if (fd < 0) continue;
    const auto number = static_cast<unsigned>(fd);
    if (number > next) CloseRange(next, number - 1);
    next = number + 1;
  }
  CloseRange(next, ~0U);
}

// Returns the time in milliseconds since an unspecified moment.
std::int64_t Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

// Waits until the socket is ready. Returns false once the time is end, even if the socket is ready
// by then, because the other side might never stop sending.
bool Await(int socket, short events, std::int64_t end) {
  constexpr std::int64_t kMaxWait = std::numeric_limits<int>::max();
  pollfd entry{.fd = socket, .events = events, .revents = 0};
  const int ready = Retry([&] {
    const std::int64_t left = std::clamp<std::int64_t>(end - Now(), 0, kMaxWait);
    return left == 0 ? 0 : poll(&entry, 1, static_cast<int>(left));
  });
  return ready > 0;
}

bool Send(const Errand& errand, std::int64_t end) {
  std::string_view left = errand.bytes;
  while (!left.empty()) {
    const ssize_t n = send(errand.socket, left.data(), left.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      left.remove_prefix(static_cast<std::size_t>(n));
    } else if (errno != EINTR && (errno != EAGAIN || !Await(errand.socket, POLLOUT, end))) {
      return false;
    }
  }
  return true;
}

// Reads until the reply has been seen.
void AwaitReply(const Errand& errand, std::int64_t end) {
  std::array<char, 4096> buffer{};
  std::size_t kept = 0;  // Bytes at the start of buffer that may be the start of the reply.
  while (Await(errand.socket, POLLIN, end)) {
    const ssize_t n = recv(errand.socket, buffer.data() + kept, buffer.size() - kept, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) return;
    if (n < 0) continue;
    const std::string_view seen(buffer.data(), kept + static_cast<std::size_t>(n));
    if (seen.find(errand.reply) != std::string_view::npos) return;
    kept = std::min(seen.size(), errand.reply.size() - 1);
    std::memmove(buffer.data(), seen.data() + seen.size() - kept, kept);
  }
}

// The first message of the new process, or of the one that could not create it.
struct Hello {
  pid_t pid = 0;
  int error = 0;
};

void SayHello(int channel, const Hello& hello) {
  // If this fails, the other process has ended, which the next call notices.
  static_cast<void>(send(channel, &hello, sizeof hello, MSG_NOSIGNAL));
}

[[noreturn]] void Serve(const Errand& errand) {
  KeepOnly({errand.channel, errand.socket, errand.lock});
  setsid();
  SayHello(errand.channel, {.pid = getpid(), .error = 0});
  char byte = 0;
  if (Retry([&] { return recv(errand.channel, &byte, 1, 0); }) != 0) _exit(0);
  const std::int64_t end = Now() + errand.time_limit;
  if (Send(errand, end)) AwaitReply(errand, end);
  _exit(0);
}

}  // namespace

LastWords::LastWords(const Message& message) {
  UniqueFd channel;
  std::tie(channel, held_) = OpenUnixSocketPair();
  if (!held_) ThrowErrno("create", "a pair of sockets");
  NoteOwnedByProcess(held_.get());
  const Errand errand{.channel = channel.get(),
                      .socket = message.socket,
                      .lock = message.lock,
                      .bytes = message.bytes,
                      .reply = message.reply,
                      .time_limit = message.time_limit.count()};
  ForkOrphan("a message", [&errand](int error) {
    if (error == 0) Serve(errand);
    SayHello(errand.channel, {.pid = 0, .error = error});
    _exit(0);
  });
  channel.Reset(-1);
  Hello hello;
  if (Retry([&] { return recv(held_.get(), &hello, sizeof hello, MSG_WAITALL); }) != sizeof hello) {
    Throw(ErrorKind::kIO,
          "a process was killed before it was set up; look at the kernel's log (dmesg) for the "
          "reason");
  }
  if (hello.error != 0) ThrowErrno("fork a process for", "a message", hello.error);
  pid_ = hello.pid;
}

LastWords::~LastWords() {
  if (!held_) return;
  // If this fails, the process was killed.
  static_cast<void>(send(held_.get(), "", 1, MSG_NOSIGNAL));
  // ECHILD: it is not a child of this process, as a rule.
  static_cast<void>(Retry([&] { return waitpid(pid_, nullptr, 0); }));
}

}  // namespace msb::base
