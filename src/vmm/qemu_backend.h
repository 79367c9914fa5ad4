// The qemu backend: sandboxes that are directories, each booted as a process of QEMU.
//
// QEMU runs in the sandbox's directory, beside the disk:
//   console.log   what the guest wrote to its first serial port, of all its boots
//   qemu.log      what QEMU itself said at the last boot
//   qmp.sock      while it runs: where any process of the same user can control it
//   qemu.pid      from before it runs; QEMU removes it when it ends in order, so that one that is
//                 left tells a crash
// A VM that is not detached is ended by the kernel when the process that booted it ends.

#ifndef MSB_SRC_VMM_QEMU_BACKEND_H_
#define MSB_SRC_VMM_QEMU_BACKEND_H_

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "msb/client.h"
#include "src/base/process.h"
#include "src/base/spawn.h"
#include "src/vmm/directory_backend.h"

namespace msb::vmm {

class QemuBackend : public DirectoryBackend {
 public:
  QemuBackend(const Config& config, Log log);

  std::string_view Name() const override { return "qemu"; }

 private:
  void Boot(const Context& ctx, Locked& sandbox, bool detached) override;
  void LetGo(Locked& sandbox) override;
  void Halt(const Context& ctx, Locked& sandbox, std::chrono::milliseconds timeout) override;
  SandboxStatus StatusOfEnded(int dir) const override;
  bool HasVm(int dir) const override;

  // Waits until QEMU has opened its disks and takes commands.
  void AwaitReady(const Context& ctx, const Locked& sandbox) const;

  // A VM that this process booted.
  struct OwnVm {
    base::ProcessHandle process;
    std::optional<base::Leash> leash;  // Nothing once it was let go.
  };
  // Gives up what is held of those that have ended, whoever ended them.
  void ForgetEnded();

  const QemuConfig config_;
  const std::filesystem::path cache_dir_;
  std::mutex mutex_;
  std::map<pid_t, OwnVm> own_;  // Guarded by mutex_.
};

// QEMU's arguments for a sandbox, which depend on nothing but these; all paths are relative to the
// sandbox's directory. socket: the descriptor of the listening control socket.
std::vector<std::string> QemuArguments(const QemuConfig& config, const std::string& accelerator,
                                       const DirectoryRecord& record, int socket);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_BACKEND_H_
