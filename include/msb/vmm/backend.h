// vmm::Backend is what the library asks of a virtual machine monitor: where a sandbox's disk is,
// whether the sandbox runs, and how to boot and end one. Write one to use the library with a VMM
// that it does not know, and give it to Config::backend; docs/backends.md says how.
//
// A Backend must be safe to use from several threads, and several processes may run one on the
// same home. Failures are thrown as msb::Error, of the kinds named below.

#ifndef MSB_VMM_BACKEND_H_
#define MSB_VMM_BACKEND_H_

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "msb/export.h"

namespace msb {

// The states of a microsandbox sandbox.
enum class SandboxStatus {
  kCreated,
  kStarting,
  kRunning,
  kDraining,  // Told to stop, not stopped yet.
  kPaused,
  kStopped,
  kCrashed,  // Ended without being told to; also: recorded as running, but its process is gone.
};

// "running", "stopped", …
MSB_EXPORT std::string_view ToString(SandboxStatus status) noexcept;

enum class DiskFormat { kRaw, kQcow2 };

// "raw" or "qcow2".
MSB_EXPORT std::string_view ToString(DiskFormat format) noexcept;

namespace vmm {

// The image that a sandbox was made from.
struct Image {
  std::string ref = {};  // As the user wrote it: "alpine:3.20", or the path of a disk image.
  std::string manifest_digest =
      {};  // What ref was when it was pinned: "sha256:" and 64 hex digits.
};

// A disk in a file.
struct Disk {
  std::filesystem::path path = {};
  DiskFormat format = DiskFormat::kRaw;
  std::string fstype =
      {};  // Of the file system inside: "ext4", …; "unknown" if it was not recognised.
};

// A file that a qcow2 disk stands on. Such files are called by the digest of the snapshot or image
// that they are of, "sha256_HEX.qcow2" or ".raw"; so a header that names another file is noticed.
struct BackingFile {
  std::string name = {};  // As the file above names it.
  Disk disk = {};         // Must not be written to.
};

// What a backend knows of a sandbox.
struct SandboxRecord {
  std::string name = {};
  SandboxStatus status = SandboxStatus::kStopped;
  std::optional<Image> image = {};  // Nothing: the sandbox has no pinned image.
  std::optional<Disk> upper = {};   // Its writable disk. Nothing: its root disk is not its own.
  // Digest of the snapshot that the upper was made from or, of a sealed sandbox, stands on.
  // Nothing: from the image, or not recorded.
  std::optional<std::string> snapshot_digest = {};
  std::vector<BackingFile> backing = {};  // Below the upper, the next one first.
  bool sealable = false;                  // Seal works for it.
  std::map<std::string, std::string> labels = {};
  std::chrono::system_clock::time_point created_at = {};
  std::chrono::system_clock::time_point started_at = {};  // Of its last boot.
  std::chrono::system_clock::time_point updated_at = {};
  std::string config_json = {};  // The backend's own record of the sandbox, verbatim.
};

// The snapshot that a new sandbox boots from.
struct SnapshotSource {
  std::string digest = {};
  std::filesystem::path artifact = {};
  Image image = {};
  Disk upper = {};                        // The artifact's; must not be written to.
  std::vector<BackingFile> backing = {};  // Below the upper, the next one first; none for raw.
  std::uint64_t size_bytes = 0;           // Of the upper, apparent.
};

// A snapshot that is to take over a sandbox's upper.
struct SealSpec {
  std::string digest = {};              // Its identity.
  std::filesystem::path artifact = {};  // Where it will be.
};

// A sandbox to create. Exactly one of image and snapshot is set; the caller has checked the name.
struct SandboxSpec {
  std::string name = {};
  std::string image = {};  // The reference to boot; empty with a snapshot.
  std::optional<SnapshotSource> snapshot = {};
  std::uint32_t cpus = 0;        // 0: as the backend is configured.
  std::uint32_t memory_mib = 0;  // The same.
  std::optional<std::uint32_t> upper_size_mib =
      {};  // Apparent size of the upper; nothing: as it comes.
  std::map<std::string, std::string> labels = {};
  bool replace = false;   // Stop and remove a sandbox of that name first.
  bool detached = false;  // The sandbox outlives the calling process.
};

class MSB_EXPORT Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend();

  // A short name for messages: "local".
  virtual std::string_view Name() const = 0;

  // The sandbox as it is now. kSandboxNotFound.
  virtual SandboxRecord Inspect(const Context& ctx, const std::string& name) = 0;

  // All sandboxes, in no order.
  virtual std::vector<SandboxRecord> List(const Context& ctx) = 0;

  // Gives the new sandbox a writable disk of its own and boots it. A failure or a cancellation
  // leaves nothing of it behind. kSandboxAlreadyExists, kImageNotFound.
  virtual SandboxRecord Create(const Context& ctx, const SandboxSpec& spec) = 0;

  // Boots a stopped sandbox. kSandboxNotFound; kSandboxStillRunning if it runs.
  virtual SandboxRecord Start(const Context& ctx, const std::string& name, bool detached) = 0;

  // Asks the guest to shut down, ends it after timeout; returns when its disk is no longer in use.
  // Stopping a stopped sandbox is no error. kSandboxNotFound.
  virtual void Stop(const Context& ctx, const std::string& name,
                    std::chrono::milliseconds timeout) = 0;

  // Ends the VM at once; returns when its disk is no longer in use. kSandboxNotFound.
  virtual void Kill(const Context& ctx, const std::string& name) = 0;

  // Lets a running sandbox outlive the process that booted it. kSandboxNotFound.
  virtual void Detach(const Context& ctx, const std::string& name) = 0;

  // Deletes a sandbox and its disk. kSandboxNotFound; kSandboxStillRunning if it runs.
  virtual void Remove(const Context& ctx, const std::string& name) = 0;

  // Takes the upper of a sandbox that does not run out of use, for a snapshot: puts an empty
  // overlay in its place, and then calls publish with the old one, which nobody writes to any more,
  // to hard link it into the artifact. When publish throws, or never ends because of a crash, the
  // sandbox is as before; when it returns, the sandbox stands on the snapshot. Only for a sealable
  // sandbox; this one throws kUnsupportedOperation. kSandboxNotFound; kSandboxStillRunning.
  virtual void Seal(const Context& ctx, const std::string& name, const SealSpec& spec,
                    const std::function<void(const Disk& sealed)>& publish);
};

}  // namespace vmm
}  // namespace msb

#endif  // MSB_VMM_BACKEND_H_
