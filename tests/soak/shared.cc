// SPDX-License-Identifier: Apache-2.0

#include "tests/soak/shared.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <stdexcept>

#include "msb/error.h"

namespace msb::soak {

std::string_view NameOf(Op op) {
  static constexpr std::array<std::string_view, kOps> kNames = {
      "Create",  "Squash",       "Import",  "Remove",  "CreateSandbox", "RemoveSandbox",
      "Open",    "Get",          "List",    "ListDir", "Verify",        "Export",
      "Flatten", "Flatten away", "Reindex", "Usage",   "GetSandbox",    "ListSandboxes",
      "Start",   "Stop",         "Kill",    "Restore", "Close",         "write"};
  return kNames[static_cast<std::size_t>(op)];
}

std::string NameOf(Outcome outcome) {
  if (outcome == kSuccess) return "ok";
  if (outcome == kForeignException) return "exception";
  return std::string(ErrorKindName(static_cast<ErrorKind>(outcome - 1)));
}

Shared& MapShared(const std::filesystem::path& file, bool create) {
  const int fd = open(file.c_str(), O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0666);
  if (fd < 0) throw std::runtime_error("cannot open " + file.native());
  if (create && ftruncate(fd, sizeof(Shared)) != 0) throw std::runtime_error("cannot resize");
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory == MAP_FAILED) throw std::runtime_error("cannot map " + file.native());
  return create ? *new (memory) Shared : *static_cast<Shared*>(memory);
}

std::uint64_t Now() {
  return static_cast<std::uint64_t>(
      std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

void AppendLine(const std::filesystem::path& file, std::string line) {
  std::replace(line.begin(), line.end(), '\n', ' ');
  line += '\n';
  const int fd = open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return;
  [[maybe_unused]] const auto written = write(fd, line.data(), line.size());
  close(fd);
}

}  // namespace msb::soak
