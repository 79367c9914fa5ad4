// sandbox.json, the record that the local backend keeps of a sandbox.

#ifndef MSB_SRC_VMM_LOCAL_RECORD_H_
#define MSB_SRC_VMM_LOCAL_RECORD_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "msb/vmm/backend.h"
#include "src/base/process.h"

namespace msb::vmm {

inline constexpr std::string_view kLocalRecordFile = "sandbox.json";

struct LocalRecord {
  SandboxRecord sandbox =
      {};  // status is kRunning or kStopped; upper and config_json are set by Parse.
  // The process that a running sandbox ends with; nothing if it is detached.
  std::optional<base::ProcessIdentity> owner = {};
  std::uint32_t cpus = 1;
  std::uint32_t memory_mib = 512;

  // The status it has now: kCrashed if its owner is gone.
  SandboxStatus CurrentStatus() const;

  // Sets updated_at, and gives the JSON.
  std::string Write();
  // dir is the sandbox's directory. kInvalidConfig: malformed.
  static LocalRecord Parse(std::string_view json, const std::filesystem::path& dir);
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_LOCAL_RECORD_H_
