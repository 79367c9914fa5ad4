// Sandboxes: what a snapshot is taken of, and what boots from one. As in the microsandbox Go SDK,
// a Sandbox is a running one that the program owns; a SandboxHandle is a record of any.
//
//   auto sb = msb::CreateSandbox(ctx, "baseline", {msb::WithImage("base.ext4")});
//   sb.Stop(ctx);
//   sb.Close();
//   msb::GetSandbox(ctx, "baseline").Snapshot(ctx, "after-pip-install");
//
// The free functions and the const members may be called from any thread. The other members of one
// object need external synchronisation. Every function may throw kCancelled and kIO.

#ifndef MSB_SANDBOX_H_
#define MSB_SANDBOX_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "msb/artifact.h"
#include "msb/client.h"
#include "msb/context.h"
#include "msb/export.h"
#include "msb/vmm/backend.h"

namespace msb {

// What the With… functions set; see each of them.
struct SandboxConfig {
  std::string image = {};
  std::string snapshot = {};
  std::optional<std::uint32_t> memory_mib = std::nullopt;
  std::optional<std::uint32_t> cpus = std::nullopt;
  std::optional<std::uint32_t> oci_upper_size_mib = std::nullopt;
  std::map<std::string, std::string> labels = {};
  bool replace = false;
  bool detached = false;
};

using SandboxOption = std::function<void(SandboxConfig&)>;

// The image to boot: a reference of the backend's. For the local backend it is the path of a disk
// image, raw or qcow2; it is pinned by its SHA-256 and kept once in the cache.
MSB_EXPORT SandboxOption WithImage(std::string reference);
// The snapshot to boot from: a path or a name, as for Snapshot::Open.
MSB_EXPORT SandboxOption WithSnapshot(std::string path_or_name);
// Memory of the VM in MiB; default: the backend's, see QemuConfig.
MSB_EXPORT SandboxOption WithMemory(std::uint32_t mib);
// Virtual CPUs; default: the backend's.
MSB_EXPORT SandboxOption WithCPUs(std::uint32_t cpus);
// Apparent size of the upper in MiB; default: that of the image or the snapshot. It may grow, never
// shrink.
MSB_EXPORT SandboxOption WithOCIUpperSize(std::uint32_t mib);
MSB_EXPORT SandboxOption WithLabel(std::string key, std::string value);
// Adds all of these.
MSB_EXPORT SandboxOption WithLabels(std::map<std::string, std::string> labels);
// Replaces a sandbox of the same name, stopping it first.
MSB_EXPORT SandboxOption WithReplace();
// The sandbox goes on when this process ends; Close only releases it.
MSB_EXPORT SandboxOption WithDetached();

struct StopConfig {
  std::chrono::milliseconds timeout = std::chrono::seconds(10);
};

using StopOption = std::function<void(StopConfig&)>;

// How long Stop waits for the guest to shut down before it ends it; default 10 s.
MSB_EXPORT StopOption WithStopTimeout(std::chrono::milliseconds timeout);

namespace internal {
struct SandboxState;
struct ClientState;
}  // namespace internal

// A sandbox that this program booted. Movable, not copyable. After Close or Detach every member
// but the destructor throws kInvalidHandle.
class MSB_EXPORT Sandbox {
 public:
  Sandbox(Sandbox&&) noexcept;
  Sandbox& operator=(Sandbox&&) noexcept;  // Closes the sandbox that it held.
  ~Sandbox();                              // Closes, and never throws.

  const std::string& Name() const;

  // Shuts the guest down, and ends it after the time-out. Stopping a stopped one is no error.
  void Stop(const Context& ctx, const std::vector<StopOption>& options = {});
  // Ends the VM at once.
  void Kill(const Context& ctx);
  // Returns when the sandbox no longer runs, whoever stopped it: kStopped or kCrashed.
  SandboxStatus WaitUntilStopped(const Context& ctx) const;
  // Releases the handle; the sandbox goes on running.
  void Detach(const Context& ctx);
  // Releases the handle, and stops the sandbox unless it is detached. kInvalidHandle if it was
  // closed before.
  void Close();

 private:
  friend struct internal::SandboxState;
  explicit Sandbox(std::unique_ptr<internal::SandboxState> state);

  std::unique_ptr<internal::SandboxState> state_;
};

// Where a sandbox's writable disk is, and what it stands on.
struct SandboxUpper {
  std::string path;
  DiskFormat format = DiskFormat::kRaw;
  std::string fstype;
  // What it was made from: the digest of a snapshot, else of the image.
  std::string base_digest;
};

// A record of a sandbox, as it was when it was got or refreshed last. Copies are independent.
class MSB_EXPORT SandboxHandle {
 public:
  const std::string& Name() const;
  SandboxStatus Status() const;
  std::chrono::system_clock::time_point CreatedAt() const;
  std::chrono::system_clock::time_point UpdatedAt() const;
  // The backend's own record, verbatim.
  const std::string& ConfigJSON() const;
  // The writable disk. It must not be written while the sandbox runs. kInvalidConfig: the sandbox
  // has none of its own.
  SandboxUpper Upper() const;

  // Reads the record again. kSandboxNotFound.
  void Refresh(const Context& ctx);
  // As StartSandbox.
  Sandbox Start(const Context& ctx) const;
  // As those of Sandbox; they do not refresh the handle.
  void Stop(const Context& ctx, const std::vector<StopOption>& options = {}) const;
  void Kill(const Context& ctx) const;
  // As RemoveSandbox.
  void Remove(const Context& ctx) const;

  // Snapshot::Create with a name in the snapshots directory.
  SnapshotArtifact Snapshot(const Context& ctx, const std::string& name) const;
  // Snapshot::Create with an explicit artifact directory.
  SnapshotArtifact SnapshotTo(const Context& ctx, const std::string& path) const;

 private:
  friend struct internal::SandboxState;
  SandboxHandle(std::shared_ptr<internal::ClientState> client, vmm::SandboxRecord record);

  std::shared_ptr<internal::ClientState> client_;
  vmm::SandboxRecord record_;
};

// Creates a sandbox and boots it. A name is 1 to 128 bytes and otherwise as a snapshot's. Give
// exactly one of WithImage and WithSnapshot: else kInvalidArgument. kInvalidConfig: a name that is
// none. kSandboxAlreadyExists. kImageNotFound. kSnapshotNotFound, kSnapshotIntegrity.
// kUnsupportedOperation: a snapshot that needs what is not known here.
MSB_EXPORT Sandbox CreateSandbox(const Context& ctx, const std::string& name,
                                 const std::vector<SandboxOption>& options,
                                 Client& client = Client::Default());

// kSandboxNotFound.
MSB_EXPORT SandboxHandle GetSandbox(const Context& ctx, const std::string& name,
                                    Client& client = Client::Default());

// All sandboxes, newest first.
MSB_EXPORT std::vector<SandboxHandle> ListSandboxes(const Context& ctx,
                                                    Client& client = Client::Default());

// Boots a stopped sandbox. kSandboxNotFound; kSandboxStillRunning if it runs.
MSB_EXPORT Sandbox StartSandbox(const Context& ctx, const std::string& name,
                                Client& client = Client::Default());

// Deletes a sandbox and its disk; its snapshots stay. kSandboxNotFound; kSandboxStillRunning if
// it runs.
MSB_EXPORT void RemoveSandbox(const Context& ctx, const std::string& name,
                              Client& client = Client::Default());

}  // namespace msb

#endif  // MSB_SANDBOX_H_
