// SPDX-License-Identifier: Apache-2.0
//
// Gives a VM of the qemu backend the port over which its guest agent is reached, and gives clients
// exclusive access to the agent.
//
// QEMU listens at the socket agent.sock in the sandbox's directory, and serves one client at a
// time. Clients therefore lock the file agent.lock there while they are connected. A client that
// waits for this lock holds the lock on agent.queue, so that the client that is connected can make
// room.

#ifndef MSB_SRC_VMM_QEMU_AGENT_H_
#define MSB_SRC_VMM_QEMU_AGENT_H_

#include <chrono>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "msb/context.h"
#include "msb/vmm/qemu.h"
#include "src/base/file.h"
#include "src/base/lock.h"
#include "src/vmm/guest_agent.h"

namespace msb::vmm {

inline constexpr const char* kAgentSocketFile = "agent.sock";
inline constexpr const char* kQmpSocketFile = "qmp.sock";

// Returns true if extra_arguments add a port for the guest agent, so that this library must not.
bool HasOwnAgentPort(const QemuConfig& machine);
// Returns QEMU's arguments for the port. socket is the descriptor of the listening socket.
std::vector<std::string> AgentPortArguments(int socket);
// Removes agent.sock, agent.lock and agent.queue, if they exist.
void RemoveAgentFiles(const std::filesystem::path& dir);

// A GuestAddress represents the directory of a running sandbox.
struct GuestAddress {
  int dir = -1;              // The open directory.
  std::string sandbox = {};  // The name of the sandbox, for messages.
};

// Throws kIO because QEMU has ended.
[[noreturn]] void ThrowQemuEnded(const GuestAddress& guest);

// An AgentSession represents the exclusive use of the agent of a sandbox.
class AgentSession {
 public:
  // queue is open, but not locked.
  AgentSession(base::LockedFd lock, base::UniqueFd queue, GuestAgent agent)
      : lock_(std::move(lock)), queue_(std::move(queue)), agent_(std::move(agent)) {}

  GuestAgent* operator->() { return &agent_; }
  // Returns the message by which another process thaws the guest's file systems while it keeps
  // other clients out.
  base::Message ThawMessage() const;
  // Ends the session, but keeps other clients out as long as another process has a copy of the
  // lock's descriptor.
  void LeaveLocked() { lock_.LeaveLocked(); }
  // Returns true if another client waits for the end of this session.
  bool HasWaiter() const;

 private:
  base::LockedFd lock_;
  base::UniqueFd queue_;
  GuestAgent agent_;
};

// Waits until no other client uses the agent and the agent answers. Do not keep the session for
// longer than necessary if it has a waiter: it keeps Exec and live snapshots of all processes out.
// Throws kUnsupportedOperation if that takes longer than timeout, or if the VM has no port for an
// agent.
// Throws kIO if the sandbox is not running.
// Throws kCancelled if ctx ends first.
AgentSession OpenAgent(const Context& ctx, const GuestAddress& guest,
                       std::chrono::milliseconds timeout);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_AGENT_H_
