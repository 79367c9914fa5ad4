// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_events.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/base/fifo.h"
#include "src/base/json.h"

namespace msb::vmm {
namespace {

using base::Entry;
using base::EntryType;
using base::Json;

// -chardev pipe adds ".in" and ".out" to its path.
constexpr const char* kPath = "qemu-events";
constexpr const char* kInputFile = "qemu-events.in";
constexpr const char* kOutputFile = "qemu-events.out";
constexpr std::string_view kEnableEvents = "{\"execute\":\"qmp_capabilities\"}\n";

// The end of a guest is among the last events.
constexpr std::uint64_t kMaxTailBytes = 64 << 10;

std::string TailOf(int fd) {
  const std::uint64_t size = base::StampOf(fd).size;
  std::string tail(std::min(size, kMaxTailBytes), '\0');
  base::ReadExactly(fd, tail.data(), tail.size(), size - tail.size());
  return tail;
}

// Returns the reason in a SHUTDOWN event, empty if it gives no reason, or nullopt for any other
// line.
std::optional<std::string> ShutdownReason(std::string_view line) {
  try {
    const Json event = base::ParseJson(std::string(line));
    if (!event.is_object() || event.value("event", Json()) != "SHUTDOWN") return std::nullopt;
    const Json data = event.value("data", Json::object());
    const Json reason = data.is_object() ? data.value("reason", Json()) : Json();
    return reason.is_string() ? reason.get<std::string>() : std::string();
  } catch (const std::invalid_argument&) {
    return std::nullopt;  // A line that QEMU did not finish.
  }
}

}  // namespace

base::UniqueFd MakeEventLog(int dir) {
  base::CreateFileAt(dir, kOutputFile, 0666);
  return base::MakeFifoAt(dir, kInputFile, kEnableEvents);
}

void RemoveEventInput(const std::filesystem::path& dir) { base::RemoveFile(dir / kInputFile); }

void RemoveEventLog(const std::filesystem::path& dir) {
  RemoveEventInput(dir);
  base::RemoveFile(dir / kOutputFile);
}

std::vector<std::string> EventLogArguments() {
  return {"-chardev", std::string("pipe,id=events,path=") + kPath, "-mon",
          "chardev=events,mode=control"};
}

bool EventLogHasBegun(int dir) {
  const Entry log = base::OpenEntryAt(dir, kOutputFile);
  return log.type == EntryType::kRegularFile &&
         TailOf(log.fd.get()).find("\"return\"") != std::string::npos;
}

std::optional<SandboxStatus> EndAccordingToEvents(int dir) {
  const Entry log = base::OpenEntryAt(dir, kOutputFile);
  if (log.type != EntryType::kRegularFile) return std::nullopt;
  return EndAccordingTo(TailOf(log.fd.get()));
}

SandboxStatus EndAccordingTo(std::string_view events) {
  SandboxStatus status = SandboxStatus::kCrashed;
  while (!events.empty()) {
    const std::string_view line = events.substr(0, events.find('\n'));
    events.remove_prefix(std::min(line.size() + 1, events.size()));
    const auto reason = ShutdownReason(line);
    if (!reason) continue;
    const bool crashed =
        *reason == "guest-reset" || *reason == "guest-panic" || *reason == "host-error";
    status = crashed ? SandboxStatus::kCrashed : SandboxStatus::kStopped;
  }
  return status;
}

}  // namespace msb::vmm
