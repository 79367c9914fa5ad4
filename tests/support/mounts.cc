// SPDX-License-Identifier: Apache-2.0

#include "tests/support/mounts.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <exception>

#include "tests/support/support.h"

namespace msb::test {
namespace {

constexpr uid_t kAnotherUser = 23461;

}  // namespace

PrivateMounts::PrivateMounts() {
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    Fail("a mount namespace");
  }
}

PrivateMounts::~PrivateMounts() {
  while (!mounted_.empty()) Undo();
}

bool PrivateMounts::Fail(const std::string& what) {
  failure_ = what + " is not possible here: " + std::strerror(errno);
  return false;
}

bool PrivateMounts::Tmpfs(const std::filesystem::path& dir, std::uint64_t size,
                          std::uint64_t inodes) {
  if (!failure_.empty()) return false;
  std::filesystem::create_directories(dir);
  const std::string options =
      "size=" + std::to_string(size) + ",nr_inodes=" + std::to_string(inodes);
  if (mount("msb-test", dir.c_str(), "tmpfs", 0, options.c_str()) != 0) return Fail("a tmpfs");
  mounted_.push_back(dir);
  return true;
}

bool PrivateMounts::InFile(const std::filesystem::path& dir, const std::string& type) {
  if (!failure_.empty()) return false;
  std::filesystem::create_directories(dir);
  const std::string file = dir.native() + ".file";
  const CommandResult made =
      RunCommand("PATH=$PATH:/usr/sbin:/sbin; truncate -s 512M '" + file + "' && mkfs." + type +
                 " -q '" + file + "' && mount -o loop '" + file + "' '" + dir.native() + "'");
  if (made.status != 0) {
    failure_ = type + " in a file is not possible here: " + made.output;
    return false;
  }
  mounted_.push_back(dir);
  return true;
}

bool PrivateMounts::ReadOnly(const std::filesystem::path& dir) {
  if (!failure_.empty()) return false;
  if (mount(dir.c_str(), dir.c_str(), nullptr, MS_BIND, nullptr) != 0) return Fail("a bind mount");
  mounted_.push_back(dir);
  if (mount(nullptr, dir.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) != 0) {
    return Fail("a read-only bind mount");
  }
  return true;
}

void PrivateMounts::Undo() {
  umount2(mounted_.back().c_str(), MNT_DETACH);
  mounted_.pop_back();
}

std::filesystem::path FillDisk(const std::filesystem::path& dir) {
  std::filesystem::path path = dir / "fill";
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  const std::array<char, 4096> block{};
  while (write(fd, block.data(), block.size()) > 0) {
  }
  close(fd);
  return path;
}

std::string RunAsAnotherUser(const std::function<void()>& function) {
  return RunAsUser(kAnotherUser, kAnotherUser, function);
}

std::string RunAsUser(uid_t user, gid_t group, const std::function<void()>& function) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    std::string message;
    if (setresgid(group, group, group) != 0 || setresuid(user, user, user) != 0) {
      message = "skipped: this process may not change its user";
    } else {
      try {
        function();
      } catch (const std::exception& e) {
        message = e.what();
      }
    }
    const ssize_t written = write(ends[1], message.data(), message.size());
    _exit(written == static_cast<ssize_t>(message.size()) ? 0 : 1);
  }
  close(ends[1]);
  std::string message;
  std::array<char, 4096> buffer{};
  for (ssize_t n = 0; (n = read(ends[0], buffer.data(), buffer.size())) > 0;) {
    message.append(buffer.data(), static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = -1;
  if (waitpid(child, &status, 0) != child || status != 0) return "the process failed: " + message;
  return message;
}

}  // namespace msb::test
