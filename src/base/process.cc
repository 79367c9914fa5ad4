#include "src/base/process.h"

#include <unistd.h>

#include <ctime>
#include <fstream>
#include <sstream>
#include <string>

#include "src/base/throw.h"

namespace msb::base {

ProcessIdentity ProcessIdentity::Self() {
  const auto self = Of(getpid());
  if (!self) Throw(ErrorKind::kInternal, "cannot read /proc/self/stat");
  return *self;
}

std::optional<ProcessIdentity> ProcessIdentity::Of(pid_t pid) {
  if (pid <= 0) return std::nullopt;
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  // The second field is the program's name in parentheses, and may contain any character but NUL.
  if (!std::getline(file, line, '\0')) return std::nullopt;
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  char state = 0;
  std::string skipped;
  ProcessIdentity identity{.pid = pid};
  fields >> state;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> identity.start_ticks;
  if (!fields || state == 'Z' || state == 'X') return std::nullopt;
  return identity;
}

bool ProcessIdentity::IsAlive() const {
  const auto now = Of(pid);
  return now && now->start_ticks == start_ticks;
}

std::chrono::system_clock::time_point ProcessIdentity::StartTime() const {
  timespec since_boot{};
  clock_gettime(CLOCK_BOOTTIME, &since_boot);
  const auto uptime =
      std::chrono::seconds(since_boot.tv_sec) + std::chrono::nanoseconds(since_boot.tv_nsec);
  const auto per_second = static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK));
  const auto start = std::chrono::milliseconds(start_ticks * 1000 / per_second);
  return std::chrono::system_clock::now() - uptime + start;
}

}  // namespace msb::base
