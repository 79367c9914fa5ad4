// SPDX-License-Identifier: Apache-2.0
//
// vmm::Backend is the interface between the library and a virtual machine monitor (VMM). It reports
// where the disk of a sandbox is and whether the sandbox runs, and it boots and ends sandboxes. To
// use the library with a VMM that it does not support, implement a Backend and set Config::backend
// to it; docs/backends.md describes how.
//
// A Backend must be safe to use from several threads, and several processes may use one on the same
// home at the same time. It must report failures as msb::Error of the kinds named below.

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
#include "msb/disk.h"
#include "msb/exec.h"
#include "msb/export.h"
#include "msb/vmm/qemu.h"

namespace msb {

// The states of a sandbox, as in microsandbox. The local and qemu backends report only kRunning,
// kStopped and kCrashed.
enum class SandboxStatus {
  kCreated,
  kStarting,
  kRunning,
  kDraining,  // Asked to stop, but not stopped yet.
  kPaused,
  kStopped,
  // The sandbox ended unexpectedly: the guest panicked or was reset, or the process that is
  // recorded as running the sandbox has ended. The local and qemu backends decide whether that
  // process has ended by a lock that it holds, so the answer is the same in every container (PID
  // namespace), and on every host if locks on the file system reach across hosts. Without such
  // locks (docs/environments.md), a sandbox whose process cannot be seen, for example because it
  // runs on another host, is reported as kRunning.
  kCrashed,
};

// Returns the name of a status: "running", "stopped", ….
[[nodiscard]] MSB_EXPORT std::string_view ToString(SandboxStatus status) noexcept;

// Whether Snapshot::Create may make a snapshot of a sandbox that runs, and how consistent its disk
// must be then.
enum class LiveSnapshot {
  kOff,  // The sandbox must not run.
  // Freezes the guest's file systems for the moment of the snapshot if the guest agent answers
  // within 2 s and freezes at least one. Otherwise, the disk is as after a power failure.
  kAuto,
  kCrashConsistent,  // Does not freeze: the disk is as after a power failure.
  // Freezes the guest's file systems, or fails. Waits up to 10 s for the guest agent.
  kFilesystemConsistent,
};

namespace vmm {

using msb::BackingFile;
using msb::Disk;
using msb::Image;

// A SandboxRecord represents what a backend knows about a sandbox.
struct SandboxRecord {
  std::string name = {};
  SandboxStatus status = SandboxStatus::kStopped;
  std::optional<Image> image = {};  // Empty if the sandbox has no pinned image.
  std::optional<Disk> upper = {};   // The writable disk. Empty if the sandbox has none of its own.
  // The digest of the snapshot that the upper was made from or, after a seal, is backed by. Empty
  // if the upper was made from the image, or if the digest was not recorded.
  std::optional<std::string> snapshot_digest = {};
  // The artifact directory that this snapshot had when it was booted or sealed, if that was outside
  // the home. Empty if it was inside the home or was not recorded.
  std::filesystem::path snapshot_path = {};
  std::vector<BackingFile> backing = {};  // The files that the upper is backed by, nearest first.
  bool sealable = false;                  // True if Seal supports this sandbox.
  std::map<std::string, std::string> labels = {};
  // The times of creation and of the last boot. They distinguish a sandbox from a later one of the
  // same name, and a boot from a later one, so they must be reported exactly as they were set.
  std::chrono::system_clock::time_point created_at = {};
  std::chrono::system_clock::time_point started_at = {};
  std::chrono::system_clock::time_point updated_at = {};
  std::string config_json = {};  // The backend's own record of the sandbox, verbatim.
  // The process that runs a running sandbox, for messages, such as "process 12 on host 'b'". Empty
  // if it is not known.
  std::string runs_on = {};
};

// A SnapshotSource describes the snapshot that a new sandbox boots.
struct SnapshotSource {
  std::string digest = {};
  std::filesystem::path artifact = {};  // The artifact directory.
  Image image = {};
  Disk upper = {};  // The disk in the artifact. Must not be written to.
  // The files that the upper is backed by, nearest first. Empty for a raw disk.
  std::vector<BackingFile> backing = {};
  std::uint64_t size_bytes = 0;  // The apparent size of the upper.
};

// A SealSpec describes a snapshot that is about to take over the disk of a sandbox; see
// Backend::Seal.
struct SealSpec {
  std::string digest = {};              // The snapshot's identity.
  std::filesystem::path artifact = {};  // The artifact directory that will be published.
  // If set, a raw file with the complete disk, including all backing files. The snapshot then
  // consists of this file, and the sandbox is backed by it alone from now on. The backend must hard
  // link or copy the file before it calls publish. If not set, the snapshot takes over the upper of
  // the sandbox.
  std::optional<Disk> whole_disk = {};
};

// Returns the description of the snapshot to make of the sandbox with this record.
using SealDescriber = std::function<SealSpec(const SandboxRecord& sandbox)>;
// Publishes the snapshot. sealed is the file in the sandbox's directory that the sandbox is backed
// by from now on: its former upper or the complete disk.
using SealPublisher = std::function<void(const Disk& sealed)>;

// Returns the description of the snapshot to make of a sandbox that may be running. consistency is
// "stopped", "filesystem-consistent" or "crash-consistent"; see SnapshotArtifact::Consistency.
using LiveSealDescriber =
    std::function<SealSpec(const SandboxRecord& sandbox, std::string_view consistency)>;

// A SandboxSpec describes a sandbox to create. Exactly one of image and snapshot is set. The name
// has been checked.
struct SandboxSpec {
  std::string name = {};
  std::string image = {};  // The reference of the image to boot. Empty if snapshot is set.
  std::optional<SnapshotSource> snapshot = {};
  std::uint32_t cpus = 0;        // Number of virtual CPUs; 0 means the backend's default.
  std::uint32_t memory_mib = 0;  // Memory in MiB; 0 means the backend's default.
  // The size of the writable disk in MiB. Empty means the size of the image or snapshot.
  std::optional<std::uint32_t> upper_size_mib = {};
  // The machine settings of this sandbox, for a backend that runs QEMU. QemuConfig::binary is
  // empty. Other backends throw kUnsupportedOperation, or record the settings.
  std::optional<QemuConfig> qemu = {};
  std::map<std::string, std::string> labels = {};
  bool replace = false;   // Stop and replace an existing sandbox of the same name.
  bool detached = false;  // The sandbox outlives the calling process.
};

// A Backend manages the sandboxes of one VMM. The comments below are the contract that an
// implementation must fulfill.
class MSB_EXPORT Backend {
 public:
  Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend();

  // Returns a short name for messages, such as "local".
  virtual std::string_view Name() const = 0;

  // Returns the current record of a sandbox. It is called often, so it must be cheap, and it must
  // not wait for the VM.
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws kInvalidConfig if its record is damaged.
  virtual SandboxRecord Inspect(const Context& ctx, const std::string& name) = 0;

  // Returns the records of all sandboxes, in any order. Skips damaged records.
  virtual std::vector<SandboxRecord> List(const Context& ctx) = 0;

  // Creates a sandbox with a writable disk of its own and boots it. A failed or cancelled call
  // leaves nothing of the sandbox behind.
  // Throws kSandboxAlreadyExists if the name is taken, unless spec.replace is set and a sandbox of
  // this backend has the name.
  // Throws kImageNotFound if the image does not exist.
  virtual SandboxRecord Create(const Context& ctx, const SandboxSpec& spec) = 0;

  // Boots a sandbox that does not run. If detached is set, the sandbox outlives the calling
  // process. A failed or cancelled call leaves the sandbox as it was.
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws kSandboxStillRunning if it is running.
  virtual SandboxRecord Start(const Context& ctx, const std::string& name, bool detached) = 0;

  // Asks the guest to shut down, ends the VM if the guest still runs after timeout, and returns
  // when the disk is no longer in use. Has no effect on a sandbox that does not run.
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws kCancelled if ctx ends before timeout has passed; the VM must not be ended then.
  virtual void Stop(const Context& ctx, const std::string& name,
                    std::chrono::milliseconds timeout) = 0;

  // Ends the VM without asking the guest, and returns when the disk is no longer in use.
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws kCancelled, and must change nothing, if ctx has ended before the call.
  virtual void Kill(const Context& ctx, const std::string& name) = 0;

  // Lets a running sandbox that this process booted outlive this process. Has no effect on any
  // other.
  // Throws kSandboxNotFound if the sandbox does not exist.
  virtual void Detach(const Context& ctx, const std::string& name) = 0;

  // Deletes a sandbox and its disk. Snapshots of it, and disks that are backed by these, stay.
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws kSandboxStillRunning if it is running.
  virtual void Remove(const Context& ctx, const std::string& name) = 0;

  // Lets a snapshot take over the disk of a sandbox. No other call may boot, remove or seal the
  // sandbox during these steps:
  //   1. Calls describe with the sandbox's record, as Inspect would return it. describe may read
  //      the upper for as long as it takes. If it throws, nothing has changed.
  //   2. Makes the upper read-only and gives it a second name, "sha256_HEX.qcow2" after the
  //      snapshot's digest; creates an empty overlay that is backed by it; and records that the
  //      overlay is the upper and that a seal is pending. If SealSpec::whole_disk is set, links or
  //      copies that file as "sha256_HEX.raw" instead, and creates an overlay that is backed by the
  //      link or copy. If this step fails, it is undone.
  //   3. Calls publish. Unless SealSpec::whole_disk is set, publish hard links the former upper
  //      into the artifact, or copies it if it cannot be linked. From now on, nothing may write to
  //      the former upper.
  //   4. If publish returns, records that the sandbox is backed by the snapshot. If publish throws,
  //      or a crash prevents it from returning, the seal is rolled forward if the artifact at
  //      SealSpec::artifact exists with that digest, and rolled back otherwise, so that the sandbox
  //      is as it was before.
  // Only sealable sandboxes support this. The default implementation throws kUnsupportedOperation.
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws kSandboxStillRunning if it is running.
  virtual void Seal(const Context& ctx, const std::string& name, const SealDescriber& describe,
                    const SealPublisher& publish);

  // Does the same as Seal for a sandbox that may run, and whose guest continues to run. level is
  // not kOff. If the sandbox runs, its upper is exchanged for an empty overlay before describe is
  // called, as level demands; what the guest writes from then on goes to the overlay. If
  // SealSpec::whole_disk is set, or if describe or publish throws, the former upper stays as a
  // backing file that only the sandbox has.
  // The default implementation throws kUnsupportedOperation.
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws kUnsupportedOperation if the disk is raw, if the VM cannot be reached from here, or if
  // level is kFilesystemConsistent and the guest's file systems cannot be frozen.
  // Throws kIO if the VM ends before the upper is exchanged, or refuses to exchange it.
  virtual void SealLive(const Context& ctx, const std::string& name, LiveSnapshot level,
                        const LiveSealDescriber& describe, const SealPublisher& publish);

  // Replaces the disk of a sandbox that does not run by a writable disk that is made from a
  // snapshot of the same image. The disk keeps its format, and its size if that is larger than the
  // snapshot's. The former disk is kept until the new one is complete; a failed or cancelled call
  // leaves the sandbox as it was. No other call may boot, remove or seal the sandbox meanwhile.
  // Returns the new record.
  // The default implementation throws kUnsupportedOperation.
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws kSandboxStillRunning if it is running.
  // Throws kInvalidArgument if the sandbox has another image than the snapshot.
  virtual SandboxRecord Restore(const Context& ctx, const std::string& name,
                                const SnapshotSource& snapshot);

  // Runs a command in the guest of a running sandbox, and returns when it has ended. command is not
  // empty, and neither command nor options contain a NUL, except in the input. If ctx ends first,
  // ends the command if that is possible.
  // The default implementation throws kUnsupportedOperation.
  // Throws kSandboxNotFound if the sandbox does not exist.
  // Throws what Sandbox::Exec throws.
  virtual ExecResult Exec(const Context& ctx, const std::string& name,
                          const std::vector<std::string>& command, const ExecOptions& options);

  // Returns the path of the file to which the guest's console is written; the file may be absent.
  // The default implementation throws kUnsupportedOperation.
  // Throws kSandboxNotFound if the sandbox does not exist.
  virtual std::filesystem::path Console(const Context& ctx, const std::string& name);
};

}  // namespace vmm
}  // namespace msb

#endif  // MSB_VMM_BACKEND_H_
