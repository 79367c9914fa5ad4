// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_live_disk.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "src/base/duration.h"
#include "src/base/throw.h"
#include "src/base/unix_socket.h"
#include "src/vmm/qemu_freezer.h"
#include "src/vmm/qemu_nodes.h"

namespace msb::vmm {
namespace {

using base::Json;
using base::Throw;
using base::UniqueFd;

// How long QEMU may take for a command. To exchange the disk, it completes and flushes all writes.
constexpr auto kCommandTimeout = std::chrono::seconds(60);
// How long QEMU may take to accept a connection: the first one of a call, and each further one, for
// which the guest may be frozen.
constexpr auto kConnectTimeout = std::chrono::seconds(60);
constexpr auto kReconnectTimeout = std::chrono::seconds(2);

}  // namespace

QemuLiveDisk::QemuLiveDisk(const Context& ctx, GuestAddress guest, const DirectoryRecord& record)
    : guest_(std::move(guest)), connect_timeout_(kConnectTimeout) {
  try {
    TopNode(ctx);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kIO || !HasEnded() || !record.process ||
        StateOf(*record.process, guest_.dir, record.sandbox.upper->path.filename()) ==
            RunState::kEnded) {
      throw;
    }
    Throw(ErrorKind::kUnsupportedOperation,
          "sandbox '{}' is recorded as running, as {}, and cannot be reached from here: create the "
          "snapshot there",
          guest_.sandbox, record.sandbox.runs_on);
  }
}

bool QemuLiveDisk::HasEnded() { return !base::IsServedAt(guest_.dir, kQmpSocketFile); }

void QemuLiveDisk::Connect(const Context& ctx) {
  if (client_) return;
  const Context limited = ctx.WithTimeout(connect_timeout_);
  try {
    UniqueFd socket = base::TryConnectAt(limited, guest_.dir, kQmpSocketFile);
    if (!socket) ThrowQemuEnded(guest_);
    client_.emplace(limited, std::move(socket));
    connect_timeout_ = kReconnectTimeout;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kCancelled) throw;
    ctx.Check();
    Throw(
        ErrorKind::kIO,
        "QEMU of sandbox '{}' did not accept a connection to qmp.sock within {}, probably because "
        "another program uses it, and QEMU serves one program at a time; disconnect that "
        "program, and try again",
        guest_.sandbox, base::FormatDuration(connect_timeout_));
  }
}

Json QemuLiveDisk::Ask(const Context& ctx, const std::string& command, const Json& arguments) {
  Connect(ctx);
  const Context limited = ctx.WithTimeout(kCommandTimeout);
  try {
    return client_->Execute(limited, command, arguments);
  } catch (const QmpRefusal& e) {
    throw QmpRefusal(e.kind(), fmt::format("sandbox '{}': {}", guest_.sandbox, e.what()));
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kCancelled) {
      Throw(e.kind(), "sandbox '{}': {}", guest_.sandbox, e.what());
    }
    client_.reset();
    ctx.Check();
    Throw(ErrorKind::kIO,
          "QEMU of sandbox '{}' did not answer {} within {}; look at qemu.log in the directory of "
          "the sandbox, or kill the sandbox",
          guest_.sandbox, command, base::FormatDuration(kCommandTimeout));
  }
}

// The reply to query-block would be nested as deeply as the chain is long.
std::string QemuLiveDisk::TopNode(const Context& ctx) {
  const Json node =
      Ask(ctx, "qom-get",
          {{"path", fmt::format("/machine/peripheral/{}", kDiskDevice)}, {"property", "drive"}});
  if (node.is_string()) return node.get<std::string>();
  Throw(ErrorKind::kIO, "QEMU of sandbox '{}' did not name its disk; restart the sandbox",
        guest_.sandbox);
}

bool QemuLiveDisk::WritesTo(const Context& ctx, const std::string& overlay) {
  return TopNode(ctx) == NodeOf(overlay);
}

std::string_view QemuLiveDisk::SwitchTo(const Context& ctx, const std::string& overlay,
                                        LiveSnapshot level, const Warn& warn) {
  const std::string node = NodeOf(overlay);
  const std::string top = TopNode(ctx);
  const BackingFile file = {overlay, {overlay, DiskFormat::kQcow2, {}}};
  for (const Json& description : NodesOf(node, file, /*read_only=*/false, Json())) {
    Ask(ctx, "blockdev-add", description);
  }
  // QEMU serves one QMP client at a time, and the session with the agent looks at its port.
  Disconnect();
  QemuFreezer freezer(guest_, warn);
  const bool is_frozen = freezer.Freeze(ctx, level);
  ctx.Check();
  const Json action = {{"type", "blockdev-snapshot"}, {"data", {{"node", top}, {"overlay", node}}}};
  Ask(Context::Background(), "transaction", {{"actions", Json::array({action})}});
  Disconnect();
  const bool were_frozen = freezer.Thaw();
  if (is_frozen && were_frozen) return "filesystem-consistent";
  if (level == LiveSnapshot::kFilesystemConsistent) {
    if (HasEnded()) ThrowQemuEnded(guest_);
    Throw(ErrorKind::kUnsupportedOperation,
          "something in the guest of sandbox '{}' may have thawed its file systems too early; try "
          "again, or permit a crash-consistent snapshot (LiveSnapshot::kAuto)",
          guest_.sandbox);
  }
  return "crash-consistent";
}

void QemuLiveDisk::Close(const Context& ctx, const std::string& overlay) {
  const std::string node = NodeOf(overlay);
  for (const std::string& name : {node, FileNodeOf(node)}) {
    try {
      Ask(ctx, "blockdev-del", {{"node-name", name}});
    } catch (const QmpRefusal& e) {
      if (IsNodeNameFree(ctx, name)) continue;
      Throw(ErrorKind::kUnsupportedOperation,
            "QEMU still uses {}, the overlay of an interrupted live snapshot, but not directly as "
            "the disk: {}; end the block job or remove the filter that uses it, or stop the "
            "sandbox, and try again",
            overlay, e.what());
    }
  }
}

// A list of the nodes would grow with the chain: by 13 KB per layer, to more than a QmpClient
// accepts. A name that QEMU gives to a new node was free, in every version and without a look at
// the texts of errors. A node that is left by a crash is deleted by the next Close.
bool QemuLiveDisk::IsNodeNameFree(const Context& ctx, const std::string& name) {
  try {
    Ask(ctx, "blockdev-add", {{"driver", "null-co"}, {"node-name", name}});
  } catch (const QmpRefusal&) {
    return false;
  }
  Ask(ctx, "blockdev-del", {{"node-name", name}});
  return true;
}

void QemuLiveDisk::SetBackingFile(const Context& ctx, const std::string& overlay,
                                  const std::string& backing_file) {
  const std::string node = NodeOf(overlay);
  Ask(ctx, "change-backing-file",
      {{"device", node}, {"image-node-name", node}, {"backing-file", backing_file}});
  Disconnect();
  const base::Entry entry = base::OpenEntryAt(guest_.dir, overlay);
  if (entry.fd) base::Sync(entry.fd.get());
}

}  // namespace msb::vmm
