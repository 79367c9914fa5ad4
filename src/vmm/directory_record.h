// sandbox.json, the record of a sandbox that is a directory.

#ifndef MSB_SRC_VMM_DIRECTORY_RECORD_H_
#define MSB_SRC_VMM_DIRECTORY_RECORD_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "msb/vmm/backend.h"
#include "src/base/process.h"

namespace msb::vmm {

inline constexpr std::string_view kRecordFile = "sandbox.json";

// A seal that was begun: the upper was exchanged, and the artifact may be there or not.
struct PendingSeal {
  std::string file = {};                // The name that the sealed upper had.
  std::string digest = {};              // Of the snapshot.
  std::filesystem::path artifact = {};  // Where the snapshot will be.
};

struct DirectoryRecord {
  // status is kRunning, kStopped or kCrashed; upper, backing and config_json are set by Parse.
  SandboxRecord sandbox = {};
  // The process that a running sandbox ends with: of the VM, or without one the owner. Nothing for
  // one that has neither.
  std::optional<base::ProcessIdentity> process = {};
  std::string backend = "local";  // That started it last.
  std::uint32_t cpus = 0;         // As SandboxSpec has them.
  std::uint32_t memory_mib = 0;
  std::optional<PendingSeal> seal = {};

  // The status it has now: kCrashed if its process is gone.
  SandboxStatus CurrentStatus() const;

  // Sets updated_at, and gives the JSON.
  std::string Write();
  // dir is the sandbox's directory. kInvalidConfig: malformed.
  static DirectoryRecord Parse(std::string_view json, const std::filesystem::path& dir);
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_DIRECTORY_RECORD_H_
