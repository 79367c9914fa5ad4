// SPDX-License-Identifier: Apache-2.0
//
// A QemuLiveDisk is the disk of a VM of the qemu backend. It controls QEMU over the control socket,
// and freezes the guest's file systems by means of the guest agent.

#ifndef MSB_SRC_VMM_QEMU_LIVE_DISK_H_
#define MSB_SRC_VMM_QEMU_LIVE_DISK_H_

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "src/base/json.h"
#include "src/vmm/directory_record.h"
#include "src/vmm/live_disk.h"
#include "src/vmm/qemu_agent.h"
#include "src/vmm/qmp_client.h"

namespace msb::vmm {

class QemuLiveDisk : public LiveDisk {
 public:
  // Connects to QEMU. The directory of the guest must stay open.
  // Throws kUnsupportedOperation if QEMU runs where it cannot be reached from here.
  // Throws kIO if it has ended.
  QemuLiveDisk(const Context& ctx, GuestAddress guest, const DirectoryRecord& record);

  bool WritesTo(const Context& ctx, const std::string& overlay) override;
  std::string_view SwitchTo(const Context& ctx, const std::string& overlay, LiveSnapshot level,
                            const Warn& warn) override;
  void Close(const Context& ctx, const std::string& overlay) override;
  void SetBackingFile(const Context& ctx, const std::string& overlay,
                      const std::string& backing_file) override;
  bool HasEnded() override;

 private:
  // Throws kIO if QEMU does not accept the first connection within 60 s, or a later one in 2 s.
  void Connect(const Context& ctx);
  // Connects, and executes a command. Throws kIO if QEMU does not answer within 60 s.
  base::Json Ask(const Context& ctx, const std::string& command, const base::Json& arguments);
  // Returns true if QEMU has no block node of this name.
  bool IsNodeNameFree(const Context& ctx, const std::string& name);
  // QEMU serves one client at a time, so no connection is kept while the snapshot is made.
  void Disconnect() { client_.reset(); }
  // Returns the node that the guest's disk writes to.
  std::string TopNode(const Context& ctx);

  const GuestAddress guest_;
  std::string former_upper_;  // The name of the recorded upper.
  std::chrono::milliseconds connect_timeout_;
  std::optional<QmpClient> client_;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_LIVE_DISK_H_
