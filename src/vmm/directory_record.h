// SPDX-License-Identifier: Apache-2.0
//
// A DirectoryRecord represents sandbox.json, the record of a sandbox of the local or qemu backend.

#ifndef MSB_SRC_VMM_DIRECTORY_RECORD_H_
#define MSB_SRC_VMM_DIRECTORY_RECORD_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/vmm/backend.h"
#include "src/base/home.h"
#include "src/vmm/run_lock.h"

namespace msb::vmm {

inline constexpr std::string_view kRecordFile = "sandbox.json";

// A PendingSeal represents a seal that has begun: the record names the new overlay as the upper,
// and the artifact may or may not have been published. ResolveSeal (src/vmm/seal.h) resolves it.
struct PendingSeal {
  std::string file = {};                // The name of the former upper.
  std::string digest = {};              // The snapshot's digest.
  std::filesystem::path artifact = {};  // Where the snapshot will be published.
  // The files that the former upper is backed by. If not set, these are all backing files of the
  // record but the first.
  std::optional<std::vector<BackingFile>> backing = {};
};

// A PendingSwitch represents a live snapshot that has begun; ResolveSwitch (src/vmm/live_seal.h)
// resolves it. Until digest is set, the VM writes to the recorded upper, or to an overlay that is
// backed by it. From then on, the record names the overlay as the upper, backed by the former upper
// under its name as the snapshot's disk, and the artifact may or may not have been published.
struct PendingSwitch {
  std::string overlay = {};             // The name of the overlay. The file may be absent.
  std::string digest = {};              // The snapshot's digest.
  std::filesystem::path artifact = {};  // Where the snapshot will be published.
  std::string file = {};                // The name of the former upper.
};

struct DirectoryRecord {
  // The status is kRunning, kStopped or kCrashed: the recorded status until Judge updates it. Parse
  // sets image, upper, backing and config_json.
  SandboxRecord sandbox = {};
  // The process with which a running sandbox ends: the process of the VM or, without a VM, the
  // process that booted the sandbox. Not set if there is neither, as for a detached sandbox of the
  // local backend.
  std::optional<Runner> process = {};
  std::string backend = "local";  // The backend that started the sandbox last.
  std::uint32_t cpus = 0;         // As in SandboxSpec.
  std::uint32_t memory_mib = 0;   // As in SandboxSpec.
  // The settings that were given by WithQemu for this sandbox, without binary. The two fields above
  // take precedence over cpus and memory_mib of these settings.
  QemuConfig machine = {};
  // Config::qemu of the client that created the sandbox, without binary. Only the qemu backend
  // records it.
  QemuConfig machine_defaults = {};
  std::optional<PendingSeal> seal = {};
  std::optional<PendingSwitch> live = {};

  // Sets status to kCrashed if the sandbox is recorded as running but its process has ended. Sets
  // runs_on if the process runs, or may run in another container or on another host. dir is the
  // sandbox's directory.
  void Judge(int dir);

  // Sets updated_at to the current time, and returns the record as JSON.
  std::string Write();
  // Parses a record. dir is the sandbox's directory. Throws kInvalidConfig if the record is
  // malformed.
  static DirectoryRecord Parse(std::string_view json, const std::filesystem::path& dir);
};

// Throws kInvalidArgument unless the record can hold the path of an artifact that will be
// published.
void CheckArtifactPath(const std::filesystem::path& artifact);
// Records the path of the snapshot that the sandbox descends from, unless it is inside the home,
// which may be moved or copied, or is not UTF-8.
void SetSnapshotPath(SandboxRecord& sandbox, const base::Home& home,
                     const std::filesystem::path& artifact);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_DIRECTORY_RECORD_H_
