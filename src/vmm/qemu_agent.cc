// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_agent.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string_view>

#include "src/base/duration.h"
#include "src/base/json.h"
#include "src/base/throw.h"
#include "src/base/unix_socket.h"
#include "src/vmm/qmp_client.h"

namespace msb::vmm {
namespace {

using base::Json;
using base::Throw;
using base::UniqueFd;
using std::chrono::milliseconds;

constexpr const char* kAgentLockFile = "agent.lock";
constexpr const char* kAgentQueueFile = "agent.queue";
constexpr std::string_view kPortName = "org.qemu.guest_agent";
constexpr const char* kChardev = "guest-agent";
// How long QEMU may take to report the state of the port. It serves one QMP client at a time.
constexpr auto kQueryTimeout = milliseconds(500);

UniqueFd OpenLockFile(int dir, const char* name) {
  UniqueFd file = base::OpenAt(dir, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
  if (!file) base::ThrowErrnoAt("open", dir, name);
  return file;
}

// Waits for the lock, in the queue. Throws kUnsupportedOperation if that takes longer than timeout.
base::LockedFd LockAgent(const Context& ctx, const GuestAddress& guest, int queue,
                         milliseconds timeout) {
  UniqueFd file = OpenLockFile(guest.dir, kAgentLockFile);
  const Context limited = ctx.WithTimeout(timeout);
  try {
    base::Lock(limited, queue);
    base::Lock(limited, file.get());
    base::ReleaseLock(queue);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kCancelled) throw;
    ctx.Check();
    Throw(ErrorKind::kUnsupportedOperation,
          "the guest agent of sandbox '{}' was in use by another call for {}; try again, or set "
          "a longer deadline",
          guest.sandbox, base::FormatDuration(timeout));
  }
  return base::LockedFd(std::move(file));
}

// Throws kUnsupportedOperation if so many other programs wait for QEMU to serve them that it does
// not accept a connection within timeout.
UniqueFd TryConnect(const Context& ctx, const GuestAddress& guest, milliseconds timeout) {
  try {
    return base::TryConnectAt(ctx.WithTimeout(timeout), guest.dir, kAgentSocketFile);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kCancelled) throw;
    ctx.Check();
    Throw(ErrorKind::kUnsupportedOperation,
          "too many other programs use agent.sock of sandbox '{}', which serves one program at a "
          "time; disconnect them, and let them lock {} while they are connected",
          guest.sandbox, kAgentLockFile);
  }
}

UniqueFd Connect(const Context& ctx, const GuestAddress& guest, milliseconds timeout) {
  UniqueFd socket = TryConnect(ctx, guest, timeout);
  if (socket) return socket;
  if (!base::IsServedAt(guest.dir, kQmpSocketFile)) ThrowQemuEnded(guest);
  Throw(ErrorKind::kUnsupportedOperation,
        "the VM of sandbox '{}' has no port for a guest agent at agent.sock: its extra_arguments "
        "have one of their own, or an earlier version of msb started it; stop it, remove {} from "
        "extra_arguments, and start it again",
        guest.sandbox, kPortName);
}

// Returns whether a process in the guest has the port open, or true if that cannot be determined.
bool IsPortOpen(const Context& ctx, int dir) {
  try {
    const Context limited = ctx.WithTimeout(kQueryTimeout);
    UniqueFd socket = base::TryConnectAt(limited, dir, kQmpSocketFile);
    if (!socket) return true;  // The connection to the agent will end too.
    const Json devices = QmpClient(limited, std::move(socket)).Execute(limited, "query-chardev");
    return !devices.is_array() || std::ranges::none_of(devices, [](const Json& device) {
      return device.is_object() && device.value("label", Json()) == kChardev &&
             device.value("frontend-open", Json()) == false;
    });
  } catch (const Error&) {
    return true;
  }
}

}  // namespace

bool HasOwnAgentPort(const QemuConfig& machine) {
  return std::ranges::any_of(machine.extra_arguments, [](const std::string& argument) {
    return argument.find(kPortName) != std::string::npos;
  });
}

std::vector<std::string> AgentPortArguments(int socket) {
  return {"-chardev",
          fmt::format("socket,id={},server=on,wait=off,fd={}", kChardev, socket),
          "-device",
          "virtio-serial-pci,id=guest-agent-bus",
          "-device",
          fmt::format("virtserialport,bus=guest-agent-bus.0,chardev={},name={}.0", kChardev,
                      kPortName)};
}

void RemoveAgentFiles(const std::filesystem::path& dir) {
  base::RemoveFile(dir / kAgentSocketFile);
  base::RemoveFile(dir / kAgentLockFile);
  base::RemoveFile(dir / kAgentQueueFile);
}

void ThrowQemuEnded(const GuestAddress& guest) {
  Throw(ErrorKind::kIO,
        "QEMU of sandbox '{}' has ended; start the sandbox, and look at console.log and qemu.log "
        "in its directory",
        guest.sandbox);
}

base::Message AgentSession::ThawMessage() const {
  base::Message message = agent_.ThawMessage();
  message.lock = lock_.get();
  return message;
}

bool AgentSession::HasWaiter() const {
  if (!base::TryLock(queue_.get())) return true;
  base::ReleaseLock(queue_.get());
  return false;
}

AgentSession OpenAgent(const Context& ctx, const GuestAddress& guest, milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  const auto left = [&] {
    const auto time = std::chrono::ceil<milliseconds>(end - std::chrono::steady_clock::now());
    return std::max(time, milliseconds(0));
  };
  UniqueFd queue = OpenLockFile(guest.dir, kAgentQueueFile);
  base::LockedFd lock = LockAgent(ctx, guest, queue.get(), timeout);
  GuestAgent agent(
      Connect(ctx, guest, left()),
      {.sandbox = guest.sandbox, .is_port_open = [dir = guest.dir](const Context& limited) {
         return IsPortOpen(limited, dir);
       }});
  agent.Sync(ctx, left());
  return {std::move(lock), std::move(queue), std::move(agent)};
}

}  // namespace msb::vmm
