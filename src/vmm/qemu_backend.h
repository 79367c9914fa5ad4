// SPDX-License-Identifier: Apache-2.0
//
// QemuBackend keeps each sandbox in a directory and boots it as a process of QEMU.
//
// QEMU runs in the sandbox's directory, beside the disk:
//   console.log      the output of the guest on its first serial port, over all its boots
//   qemu.log         the output of QEMU itself since the last boot
//   qmp.sock         while QEMU runs: the control socket, for any process of the same user
//   agent.sock       while QEMU runs: the socket of the guest agent's port (qemu_agent.h), unless
//                    extra_arguments add a port of their own
//   agent.lock       locked by the client that uses agent.sock
//   agent.queue      locked by the next client
//   qemu.pid         created before QEMU runs, and removed by QEMU when it ends in order, so that a
//                    file that is left indicates a crash
//   run-HEX.lock     locked by QEMU for as long as it runs (run_lock.h)
//   qemu-events.out  the events of QEMU, which show how the guest ended (qemu_events.h)
// The kernel kills a VM that is not detached when the process that booted it ends.

#ifndef MSB_SRC_VMM_QEMU_BACKEND_H_
#define MSB_SRC_VMM_QEMU_BACKEND_H_

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "msb/vmm/qemu.h"
#include "src/base/home.h"
#include "src/base/process.h"
#include "src/base/spawn.h"
#include "src/vmm/directory_backend.h"

namespace msb::vmm {

class QemuBackend : public DirectoryBackend {
 public:
  // upper_format is the disk format of new sandboxes. Default: kQcow2.
  QemuBackend(const base::Home& home, std::optional<DiskFormat> upper_format, QemuConfig config,
              SnapshotQueries queries, Log log);

  std::string_view Name() const override { return "qemu"; }
  ExecResult Exec(const Context& ctx, const std::string& name,
                  const std::vector<std::string>& command, const ExecOptions& options) override;
  std::filesystem::path Console(const Context& ctx, const std::string& name) override;

 private:
  void Boot(const Context& ctx, Locked& sandbox, bool detached) override;
  void LetGo(Locked& sandbox) override;
  void Halt(const Context& ctx, Locked& sandbox, std::chrono::milliseconds timeout) override;
  SandboxStatus StatusOfEnded(int dir) const override;
  void ClearEnded(Locked& sandbox) override;
  void RecordMachine(DirectoryRecord& record) const override;
  bool HasVm(int dir) const override;
  std::unique_ptr<LiveDisk> OpenLiveDisk(const Context& ctx, const Locked& sandbox) override;
  // Ends the VM of a running sandbox whose process is not visible to this process.
  void HaltElsewhere(const Context& ctx, Locked& sandbox, std::chrono::milliseconds timeout);

  // Waits until QEMU has opened its disks, accepts commands and records events. Then starts the
  // guest, unless extra_arguments contain -S.
  void Run(const Context& ctx, const Locked& sandbox, const QemuConfig& machine) const;

  // An OwnVm represents a VM that this process booted.
  struct OwnVm {
    base::ProcessHandle process;
    std::optional<base::Leash> leash;  // Not set after LetGo.
  };
  // Removes VMs that have ended, for whatever reason, from own_.
  void ForgetEnded();

  const QemuConfig config_;
  const std::filesystem::path cache_dir_;
  std::mutex mutex_;
  std::map<pid_t, OwnVm> own_;  // Guarded by mutex_.
};

// The descriptors of sockets at which QEMU listens.
struct QemuSockets {
  int qmp = -1;    // The control socket.
  int agent = -1;  // The socket of the guest agent's port; -1: there is no such port.
};

// Returns QEMU's arguments for a sandbox. Files of the sandbox are named relative to its directory.
// machine is a result of MachineOf.
std::vector<std::string> QemuArguments(const QemuConfig& machine, const std::string& accelerator,
                                       const SandboxRecord& sandbox, const QemuSockets& sockets);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_BACKEND_H_
