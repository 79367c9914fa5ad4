// SPDX-License-Identifier: Apache-2.0

#include "src/base/descriptor.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include "src/base/fork.h"
#include "src/base/owned_descriptor.h"
#include "src/base/retry.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr int kFirstFree = STDERR_FILENO + 1;
// The kernel's limit for one process, unless the administrator raises fs.nr_open.
constexpr int kMaxDescriptors = 1 << 20;

// The number of guards that this thread has.
thread_local int own_guards = 0;

// The numbers of standard streams that the library occupies, and the number of guards that exist.
struct Placeholders {
  std::mutex mutex;  // Guards the other members; locked only in a ForkSafeSection.
  int guards = 0;
  std::array<bool, kFirstFree> held{};
};
constinit Placeholders placeholders;

// Returns the number of the descriptor that path names (see DuplicateNamed).
std::optional<int> NumberOf(std::string_view path) {
  if (path == "/dev/stdin") return STDIN_FILENO;
  if (path == "/dev/stdout") return STDOUT_FILENO;
  if (path == "/dev/stderr") return STDERR_FILENO;
  constexpr std::string_view kDirectory = "/dev/fd/";
  if (!path.starts_with(kDirectory)) return std::nullopt;
  path.remove_prefix(kDirectory.size());
  int number = 0;
  const auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), number);
  if (error != std::errc() || end != path.data() + path.size() || number < 0) return std::nullopt;
  return number;
}

// A set of descriptors that several threads may change. Numbers from kMaxDescriptors on are not
// recorded.
class DescriptorSet {
 public:
  void Add(int fd) {
    if (fd < kMaxDescriptors) WordOf(fd) |= BitOf(fd);
  }
  // Removes fd. Returns true if it was a member, or if its number is not recorded and it may have
  // been one.
  bool Remove(int fd) {
    return fd >= kMaxDescriptors || (WordOf(fd).fetch_and(~BitOf(fd)) & BitOf(fd)) != 0;
  }

  // Removes all members, and calls function with each.
  template <typename Function>
  void RemoveAll(const Function& function) {
    for (int first = 0; first < kMaxDescriptors; first += kBits) {
      // Reading costs less than writing: a page that is only read is not copied after a fork.
      if (WordOf(first) == 0) continue;
      std::uint64_t bits = WordOf(first).exchange(0);
      for (; bits != 0; bits &= bits - 1) function(first + std::countr_zero(bits));
    }
  }

 private:
  static constexpr int kBits = 64;

  std::atomic<std::uint64_t>& WordOf(int fd) {
    return words_[static_cast<std::size_t>(fd / kBits)];
  }
  static std::uint64_t BitOf(int fd) { return std::uint64_t{1} << (fd % kBits); }

  std::array<std::atomic<std::uint64_t>, kMaxDescriptors / kBits> words_{};
};
constinit DescriptorSet locked_descriptors;
constinit DescriptorSet owned_by_process;

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

bool IsPlaceholder(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_PATH) != 0;
}

void Occupy() {
  for (int number = 0; number < kFirstFree; ++number) {
    if (IsOpen(number)) continue;
    const int fd = open("/", O_PATH | O_CLOEXEC);
    // The program may have taken the number at the same time.
    if (fd >= kFirstFree) {
      close(fd);
    } else if (fd >= 0) {
      placeholders.held[static_cast<std::size_t>(fd)] = true;
    }
  }
}

void Vacate() {
  for (int number = 0; number < kFirstFree; ++number) {
    // The program may have put a stream of its own there with dup2(2), which must stay open.
    if (std::exchange(placeholders.held[static_cast<std::size_t>(number)], false) &&
        IsPlaceholder(number)) {
      close(number);
    }
  }
}

// Moves fd above the numbers of the standard streams. It has one of these if the program closed a
// standard stream after StandardStreamGuard had looked.
UniqueFd AboveStandard(int fd) {
  if (fd < 0 || fd >= kFirstFree) return UniqueFd(fd);
  const UniqueFd low(fd);
  return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, kFirstFree));
}

std::pair<UniqueFd, UniqueFd> BothAboveStandard(const std::array<int, 2>& fds) {
  std::pair<UniqueFd, UniqueFd> ends{AboveStandard(fds[0]), AboveStandard(fds[1])};
  if (!ends.first || !ends.second) return {};
  return ends;
}

}  // namespace

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) {
    if (locked_descriptors.Remove(fd_)) ReleaseLock(fd_);
    owned_by_process.Remove(fd_);
    close(fd_);
  }
  fd_ = fd;
}

void NoteLocked(int fd) {
  locked_descriptors.Add(fd);
  owned_by_process.Add(fd);
}

void ForgetLock(int fd) { locked_descriptors.Remove(fd); }

void NoteOwnedByProcess(int fd) { owned_by_process.Add(fd); }

void DropWhatParentOwns() {
  placeholders.guards = own_guards;  // The other threads of the parent do not exist here.
  owned_by_process.RemoveAll([](int number) {
    locked_descriptors.Remove(number);
    close(number);  // First, because the limit of descriptors may be reached.
    const int placeholder = open("/", O_PATH | O_CLOEXEC);
    if (placeholder < 0 || placeholder == number) return;
    dup3(placeholder, number, O_CLOEXEC);
    close(placeholder);
  });
}

StandardStreamGuard::StandardStreamGuard() {
  const ForkSafeSection section;
  const std::lock_guard lock(placeholders.mutex);
  ++placeholders.guards;
  ++own_guards;
  Occupy();
}

StandardStreamGuard::~StandardStreamGuard() {
  const int error = errno;
  {
    const ForkSafeSection section;
    const std::lock_guard lock(placeholders.mutex);
    --own_guards;
    if (--placeholders.guards == 0) Vacate();
  }
  errno = error;
}

UniqueFd OpenAt(int dir, const char* path, int flags, mode_t mode) {
  const StandardStreamGuard guard;
  return AboveStandard(Retry([&] { return openat(dir, path, flags | O_CLOEXEC, mode); }));
}

UniqueFd Duplicate(int fd) {
  UniqueFd duplicate(fcntl(fd, F_DUPFD_CLOEXEC, kFirstFree));
  if (!duplicate) ThrowErrno("duplicate the descriptor of", fd);
  return duplicate;
}

UniqueFd DuplicateNamed(const std::filesystem::path& path) {
  const std::optional<int> number = NumberOf(path.native());
  if (!number) return {};
  UniqueFd duplicate(fcntl(*number, F_DUPFD_CLOEXEC, kFirstFree));
  if (!duplicate) ThrowErrno("use", path.native());
  return duplicate;
}

std::pair<UniqueFd, UniqueFd> OpenPipe() {
  const StandardStreamGuard guard;
  std::array<int, 2> fds{};
  if (pipe2(fds.data(), O_CLOEXEC) != 0) return {};
  return BothAboveStandard(fds);
}

UniqueFd OpenUnixSocket(int flags) {
  const StandardStreamGuard guard;
  return AboveStandard(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
}

UniqueFd OpenSocket(int family, int type, int protocol) {
  const StandardStreamGuard guard;
  return AboveStandard(socket(family, type | SOCK_CLOEXEC, protocol));
}

std::pair<UniqueFd, UniqueFd> OpenUnixSocketPair() {
  const StandardStreamGuard guard;
  std::array<int, 2> fds{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) != 0) return {};
  return BothAboveStandard(fds);
}

UniqueFd OpenMemoryFile(const char* name) {
  const StandardStreamGuard guard;
  return AboveStandard(memfd_create(name, MFD_CLOEXEC));
}

UniqueFd OpenProcess(pid_t pid) {
  const StandardStreamGuard guard;
  // Called by number: kernels have had this system call for longer than C libraries have a wrapper.
  return AboveStandard(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

bool LacksProcessDescriptors(int error) { return error == ENOSYS || error == EPERM; }

}  // namespace msb::base
