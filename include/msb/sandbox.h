// SPDX-License-Identifier: Apache-2.0
//
// Snapshots are made from sandboxes, and sandboxes boot from snapshots. As in the microsandbox Go
// SDK, a Sandbox represents a sandbox that this program booted, and a SandboxHandle represents the
// record of any sandbox.
//
//   auto sb = msb::CreateSandbox(ctx, "baseline", {msb::WithImage("base.ext4")});
//   sb.Stop(ctx);
//   sb.Close();
//   msb::GetSandbox(ctx, "baseline").Snapshot(ctx, "after-pip-install");
//
// The free functions and the const members may be called from any thread at any time, also for the
// same sandbox; msb/snapshot.h has a table of what concurrent calls do. Calls of the other members
// on the same object need external synchronization. Every function that takes a Context may throw
// kCancelled and kIO.
//
// On the local and qemu backends, every function that uses an existing sandbox may throw
// kInvalidConfig if the record of the sandbox (sandbox.json) is damaged, except ListSandboxes,
// which skips such a sandbox, RemoveSandbox and SandboxHandle::Remove, which delete it, and
// CreateSandbox(WithReplace), which replaces it. On the qemu backend, the latter three throw
// kSandboxStillRunning if its VM is running.
//
// On the local and qemu backends, calls that change the same sandbox exclude each other by locking
// its directory. That lock does not reach other hosts on NFS, other mounts on FUSE and overlayfs,
// or other processes on a file system without flock(2); in these cases, callers must not change the
// same sandbox at the same time. See docs/environments.md. On the microsandbox backend, it is up to
// the runtime to exclude such calls.

#ifndef MSB_SANDBOX_H_
#define MSB_SANDBOX_H_

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "msb/artifact.h"
#include "msb/client.h"
#include "msb/context.h"
#include "msb/exec.h"
#include "msb/export.h"
#include "msb/vmm/backend.h"
#include "msb/vmm/qemu.h"

namespace msb {

// The options of CreateSandbox. The With… functions below describe them, and can be given instead.
struct SandboxConfig {
  std::string image = {};
  std::string snapshot = {};
  std::optional<std::uint32_t> memory_mib = std::nullopt;
  std::optional<std::uint32_t> cpus = std::nullopt;
  std::optional<std::uint32_t> oci_upper_size_mib = std::nullopt;
  std::optional<QemuConfig> qemu = std::nullopt;
  std::map<std::string, std::string> labels = {};
  bool replace = false;
  bool detached = false;
};

using SandboxOption = std::function<void(SandboxConfig&)>;

// Boots an image, given by a reference that the backend understands. On the local and qemu
// backends, that is the digest ("sha256:…") of an image in the cache, or the path of a disk image,
// raw or qcow2. A disk image is pinned by its SHA-256, and the cache keeps one copy of it. Holes
// are hashed too, so the first use of an image takes time in proportion to its apparent size.
// CreateSandbox throws kInvalidArgument if the path is not UTF-8 or contains a NUL, if the image
// file, or the disk in it, is empty, or if it is a raw disk whose size is not a multiple of 512
// bytes.
// CreateSandbox throws kUnsupportedOperation if the image file is a qcow2 image with a backing
// file, internal snapshots, encryption, an external data file, persistent bitmaps or an unknown
// feature; if it has a format that is recognized but not supported: VMDK, VDI, VHDX, VHD, QED, QCOW
// (version 1), Parallels, DMG, Bochs, cloop, ISO 9660, UDF, LUKS, Android sparse or tar; or if it
// is compressed with gzip, compress, xz, zstd, bzip2, zip, lz4, 7z, rar, lzip or lzop. The message
// has the command that converts, decrypts or unpacks it.
// CreateSandbox throws kSnapshotIntegrity if the image file is a damaged qcow2 image.
// CreateSandbox throws kIO if the image file changes while it is copied to the cache.
[[nodiscard]] MSB_EXPORT SandboxOption WithImage(std::string reference);
// Boots a snapshot, given by a path or a name as for Snapshot::Open. Booting does not verify the
// snapshot's content (see SnapshotArtifact::Verify). If the snapshot is replaced while
// CreateSandbox runs, the new one is booted; if it is removed, CreateSandbox throws
// kSnapshotNotFound.
[[nodiscard]] MSB_EXPORT SandboxOption WithSnapshot(std::string path_or_name);
// Sets the memory of the VM in MiB, at least 1. Default: chosen by the backend (see QemuConfig).
[[nodiscard]] MSB_EXPORT SandboxOption WithMemory(std::uint32_t mib);
// Sets the number of virtual CPUs, at least 1. Default: chosen by the backend (see QemuConfig).
[[nodiscard]] MSB_EXPORT SandboxOption WithCPUs(std::uint32_t cpus);
// Sets the size of the writable disk, as the guest sees it, in MiB, at least 1. It may be larger
// than the image or the snapshot. Default: the size of the image or the snapshot.
// CreateSandbox throws kInvalidArgument if it is smaller than the image or the snapshot.
[[nodiscard]] MSB_EXPORT SandboxOption WithOCIUpperSize(std::uint32_t mib);
// Sets the machine settings of this sandbox on the qemu backend. The fields that are set are
// recorded with the sandbox and take precedence over Config::qemu of every client that starts it;
// WithMemory and WithCPUs take precedence over memory_mib and cpus. The local backend records the
// settings for a later start under qemu; the microsandbox backend throws kUnsupportedOperation.
// CreateSandbox throws kInvalidArgument if binary is set, or if a path or string contains a NUL or
// is not UTF-8.
[[nodiscard]] MSB_EXPORT SandboxOption WithQemu(QemuConfig machine);
// Sets a label. CreateSandbox throws kInvalidArgument unless key and value are UTF-8 without a NUL.
// On the local and qemu backends, it also throws kInvalidArgument if the record of the sandbox
// (sandbox.json), which holds the labels and the machine settings, would exceed 512 KiB.
[[nodiscard]] MSB_EXPORT SandboxOption WithLabel(std::string key, std::string value);
// Sets several labels, in addition to those that are already set.
[[nodiscard]] MSB_EXPORT SandboxOption WithLabels(std::map<std::string, std::string> labels);
// Replaces an existing sandbox of the same name after stopping it; its guest has 10 s to shut down.
// Waits while another call uses that sandbox. Never replaces anything else: CreateSandbox throws
// kSandboxAlreadyExists if the name belongs to a directory of other software, to a sandbox of the
// microsandbox backend while the client's backend is local or qemu, or to a sandbox of the local or
// qemu backend while the client's backend is microsandbox. It throws kUnsupportedOperation if the
// sandbox runs under qemu and the client's backend is local, or the reverse.
//
// If the new sandbox cannot be booted, the local and qemu backends put the old one back, stopped.
// The microsandbox backend removes the old sandbox before it creates the new one, so the old one is
// lost.
//
// On a file system without RENAME_EXCHANGE (NFS, 9p, some FUSE), and for a sandbox in a lower layer
// of overlayfs, the name is absent for a moment during the replacement. After a crash at that
// moment the sandbox is absent or incomplete until the next call that creates or removes a sandbox
// restores it. See docs/environments.md.
[[nodiscard]] MSB_EXPORT SandboxOption WithReplace();
// Lets the sandbox outlive this process; Close only releases it. Default: Close stops the sandbox;
// if the process ends without Close, the sandbox ends too and is kCrashed. On the microsandbox
// backend a sandbox that is not closed always outlives the process.
[[nodiscard]] MSB_EXPORT SandboxOption WithDetached();

// The options of Stop. The With… function below describes them, and can be given instead.
struct StopConfig {
  SaturatingDuration<std::chrono::milliseconds> timeout = std::chrono::seconds(10);
};

using StopOption = std::function<void(StopConfig&)>;

// Sets how long Stop waits for the guest to shut down before it ends the VM. Default: 10 s. A
// time-out of 0 or less ends the VM at once. The deadline of the Context is independent of this
// time-out: it ends the call, not the VM. A time-out may have any unit. If it is too large to be
// counted, it never passes: with std::chrono::hours::max(), Stop waits until its Context is done.
// The microsandbox backend rounds up to whole seconds.
[[nodiscard]] MSB_EXPORT StopOption WithStopTimeout(std::chrono::milliseconds timeout);
template <typename Rep, typename Period>
[[nodiscard]] StopOption WithStopTimeout(const std::chrono::duration<Rep, Period>& timeout) {
  return WithStopTimeout(internal::SaturatedCast<std::chrono::milliseconds>(timeout));
}

namespace internal {
struct SandboxState;
struct SandboxHandleState;
}  // namespace internal

// A Sandbox represents a sandbox that this program booted. It is movable, but not copyable. After
// Close or Detach, or when it has been moved from, every member but the destructor and assignment
// throws kInvalidHandle.
//
// Stop, Kill, WaitUntilStopped and Detach act on the sandbox that has the name now, even if the
// booted one has been removed and another one created. Close and the destructor never stop another
// sandbox, nor a later boot of the same one.
class MSB_EXPORT Sandbox {
 public:
  Sandbox(Sandbox&&) noexcept;
  // Closes the sandbox that this object held, as the destructor does.
  Sandbox& operator=(Sandbox&&) noexcept;
  // Closes the sandbox if it is open. This blocks until the guest has shut down: up to 10 s, plus
  // the time that ending a VM takes, and the time for which another call uses the sandbox, such as
  // a Snapshot::Create that copies its disk. Never throws; logs a failure to stop the sandbox. In a
  // process that was forked from the one that booted the sandbox, only releases the object: the
  // parent's sandbox keeps running.
  ~Sandbox();

  // Returns the name of the sandbox.
  [[nodiscard]] const std::string& Name() const;

  // Runs a command in the guest, and returns its exit code and output when it has ended. command is
  // the program, which is looked up in the PATH of the guest, and its arguments; no shell is
  // involved. Output is held in memory. If ctx ends first, the command is ended if that is
  // possible.
  //
  // On the qemu backend, the guest must run QEMU's guest agent (package qemu-guest-agent), which
  // usually takes some seconds after a boot to answer; Exec waits up to 30 s for it. On the
  // microsandbox backend, the command is run by the runtime (msb exec).
  //
  // Throws kInvalidArgument if the command is empty; if a string contains a NUL or is not UTF-8,
  // except in the input; if the directory is not absolute; if the name of a variable is empty or
  // contains a "="; or, on the qemu backend, if the input is longer than 32 MiB.
  // Throws kInvalidConfig if the guest has no such program, directory or user.
  // Throws kSandboxNotFound if the sandbox was removed.
  // Throws kUnsupportedOperation on the local backend; if the guest agent does not answer or does
  // not permit commands; or if the sandbox cannot be reached, for example because it runs on
  // another host.
  // Throws kCancelled if ctx ends before the command.
  // Throws kIO if the sandbox is not running or ends meanwhile, if the agent breaks the protocol or
  // ends, or if the agent discards output because there is too much.
  [[nodiscard]] ExecResult Exec(const Context& ctx, const std::vector<std::string>& command,
                                const ExecOptions& options = {}) const;
  // Returns the path of the file that collects the output of the guest's console (on qemu, its
  // first serial port) across all boots. The file may be absent, and other processes may read it at
  // any time.
  // Throws kUnsupportedOperation on the local backend.
  [[nodiscard]] std::filesystem::path Console() const;

  // Asks the guest to shut down, ends the VM if the guest still runs after the stop time-out
  // (default: 10 s), and returns when the VM no longer uses the disk. Has no effect on a sandbox
  // that does not run; one that has crashed stays kCrashed.
  //
  // Throws kCancelled if ctx ends before the VM has ended. If that is before the stop time-out, the
  // VM is not ended, but a guest that has already been asked may still shut down later; if it is
  // afterwards, the VM was killed and may still be about to end.
  // Throws kSandboxNotFound if the sandbox was removed.
  // Throws kUnsupportedOperation if the sandbox runs under another backend, or, on qemu, if it
  // cannot be reached, for example because it runs on another host.
  // Throws kIO if the VM does not end.
  void Stop(const Context& ctx, const std::vector<StopOption>& options = {});
  void Stop(const Context& ctx, std::initializer_list<StopOption> options) {
    Stop(ctx, std::vector<StopOption>(options));
  }
  void Stop(const Context& ctx, const StopConfig& config);
  // Ends the VM without asking the guest, and returns when the VM no longer uses the disk. Data
  // that the guest has not flushed is lost. If the sandbox is recorded as running in an environment
  // that can neither be seen nor reached, such as a container that no longer exists, Kill (on the
  // local backend also Stop) records that the sandbox has stopped; the caller must make sure that
  // it has.
  //
  // Throws kCancelled if ctx ends before the VM has ended. If it has ended before the call, nothing
  // has changed.
  // Throws kSandboxNotFound if the sandbox was removed.
  // Throws kUnsupportedOperation if the sandbox runs under another backend, or, on qemu, if it is
  // known to run in an environment that cannot be reached.
  // Throws kIO if the VM does not end.
  void Kill(const Context& ctx);
  // Waits until the sandbox no longer runs, for whatever reason, and returns kStopped or kCrashed.
  // Throws kSandboxNotFound if the sandbox was removed.
  SandboxStatus WaitUntilStopped(const Context& ctx) const;
  // Releases this object and lets the sandbox outlive this process. If another process has booted
  // the sandbox of this name since, that process still decides whether the sandbox outlives it.
  // Throws kSandboxNotFound, and does not release the object, if the sandbox was removed.
  void Detach(const Context& ctx);
  // Releases this object, and stops the sandbox unless it is detached; its guest has 10 s to shut
  // down. Has no effect on a sandbox that was removed.
  // Throws what Stop throws, except kCancelled. The object is released even if Close throws.
  void Close();

 private:
  friend struct internal::SandboxState;
  explicit Sandbox(std::unique_ptr<internal::SandboxState> state);

  std::unique_ptr<internal::SandboxState> state_;
};

// A SandboxUpper describes the writable disk of a sandbox.
struct SandboxUpper {
  std::string path;                      // The path of the disk's file.
  DiskFormat format = DiskFormat::kRaw;  // The format of that file.
  std::string fstype;                    // The file system inside: "ext4", …, or "unknown".
  // The digest of the snapshot that the disk was made from or, if Create has made a snapshot of a
  // qcow2 disk since, is backed by. The digest of the image if there is no such snapshot.
  std::string base_digest;
};

// A SandboxHandle represents the record of a sandbox as it was when it was last read. The accessors
// return fields of that record; the references are valid until the handle is refreshed, assigned to
// or destroyed. Copies are independent. A handle that has been moved from must only be destroyed or
// assigned to.
class MSB_EXPORT SandboxHandle {
 public:
  SandboxHandle(const SandboxHandle&);
  SandboxHandle& operator=(const SandboxHandle&);
  SandboxHandle(SandboxHandle&&) noexcept;
  SandboxHandle& operator=(SandboxHandle&&) noexcept;
  ~SandboxHandle();

  // Returns the name of the sandbox.
  [[nodiscard]] const std::string& Name() const;
  // Returns the status as of when the record was read.
  [[nodiscard]] SandboxStatus Status() const;
  // Returns the time at which the sandbox was created.
  [[nodiscard]] std::chrono::system_clock::time_point CreatedAt() const;
  // Returns the time at which the record was last changed.
  [[nodiscard]] std::chrono::system_clock::time_point UpdatedAt() const;
  // Returns the backend's own record of the sandbox, verbatim.
  [[nodiscard]] const std::string& ConfigJSON() const;
  // Returns the writable disk. The caller must not write to it while the sandbox runs.
  // Throws kInvalidConfig if the sandbox has no disk of its own.
  [[nodiscard]] SandboxUpper Upper() const;

  // Reads the record again.
  // Throws kSandboxNotFound if the sandbox was removed.
  void Refresh(const Context& ctx);
  // Boots the sandbox, as StartSandbox does.
  [[nodiscard]] Sandbox Start(const Context& ctx) const;
  // Stops the sandbox, as Sandbox::Stop does. Does not refresh the handle.
  void Stop(const Context& ctx, const std::vector<StopOption>& options = {}) const;
  void Stop(const Context& ctx, std::initializer_list<StopOption> options) const {
    Stop(ctx, std::vector<StopOption>(options));
  }
  void Stop(const Context& ctx, const StopConfig& config) const;
  // Ends the VM, as Sandbox::Kill does. Does not refresh the handle.
  void Kill(const Context& ctx) const;
  // Deletes the sandbox, as RemoveSandbox does.
  void Remove(const Context& ctx) const;

  // Runs a command in the guest, as Sandbox::Exec does.
  [[nodiscard]] ExecResult Exec(const Context& ctx, const std::vector<std::string>& command,
                                const ExecOptions& options = {}) const;
  // Returns the path of the console's file, as Sandbox::Console does.
  [[nodiscard]] std::filesystem::path Console() const;

  // Creates a snapshot in the snapshots directory, as Snapshot::Create does with this name and
  // without further options.
  SnapshotArtifact Snapshot(const Context& ctx, const std::string& name) const;
  // Creates a snapshot in this artifact directory, as Snapshot::Create does with this path and
  // without further options.
  SnapshotArtifact SnapshotTo(const Context& ctx, const std::filesystem::path& path) const;

 private:
  friend struct internal::SandboxHandleState;
  explicit SandboxHandle(std::unique_ptr<internal::SandboxHandleState> state);

  std::unique_ptr<internal::SandboxHandleState> state_;
};

// Creates a sandbox from an image or a snapshot, and boots it. The options can be given as With…
// functions, which are applied in order, or as a SandboxConfig:
//
//   auto a = msb::CreateSandbox(ctx, "a", {msb::WithImage("base.ext4"), msb::WithMemory(512)});
//   msb::SandboxConfig config{.image = "base.ext4", .memory_mib = 512};
//   auto b = msb::CreateSandbox(ctx, "b", config);
//
// Exactly one of image and snapshot must be set. The name must have 1 to 128 bytes, and
// otherwise follow the rules of SnapshotCreateOptions::name. Returns when the VM runs (on qemu,
// when the virtual processor starts), which is before the guest has booted.
//
// The destructor of the returned object stops the sandbox, and blocks meanwhile, unless the sandbox
// is detached (see Sandbox::~Sandbox). So keep the object while the sandbox must run.
//
// A cancelled or failed call leaves no VM and no new sandbox. If a VM that was started cannot be
// ended, which is logged, the sandbox stays and is recorded as running. On the local and qemu
// backends, a copy of the image that the call has added to the cache (cache/disks in the home)
// stays, and the next CreateSandbox with the same image uses it. Directories of the home that the
// call has created stay too, even if they are empty. docs/space.md describes how to remove images.
//
// Throws kInvalidArgument unless exactly one of image and snapshot is set, or if an option is out
// of range or contradicts another one. Throws kInvalidConfig if the name is invalid, or the VMM
// does not start. Throws kSandboxAlreadyExists if the name is taken, unless WithReplace permits the
// replacement. Throws kSandboxStillRunning if another program has the disk of the sandbox to be
// replaced, which is stopped then, open for writing. Throws kImageNotFound if the image is absent.
// Throws kSnapshotNotFound if the snapshot, or a parent that its disk is backed by, is absent.
// Throws kSnapshotImageMissing if the image that the snapshot's disk is backed by is absent. Throws
// kSnapshotIntegrity if the snapshot is damaged. Throws kUnsupportedOperation if the snapshot is a
// checkpoint, has several layers or needs a feature that this library does not support, or if the
// backend does not support an option. The microsandbox backend boots raw snapshots only.
[[nodiscard]] MSB_EXPORT Sandbox CreateSandbox(const Context& ctx, const std::string& name,
                                               const std::vector<SandboxOption>& options,
                                               const Client& client = Client::Default());
[[nodiscard]] inline Sandbox CreateSandbox(const Context& ctx, const std::string& name,
                                           std::initializer_list<SandboxOption> options,
                                           const Client& client = Client::Default()) {
  return CreateSandbox(ctx, name, std::vector<SandboxOption>(options), client);
}
[[nodiscard]] MSB_EXPORT Sandbox CreateSandbox(const Context& ctx, const std::string& name,
                                               const SandboxConfig& config,
                                               const Client& client = Client::Default());

// Returns the record of a sandbox.
// Throws kSandboxNotFound if it does not exist.
// Throws kInvalidConfig if its record is damaged.
[[nodiscard]] MSB_EXPORT SandboxHandle GetSandbox(const Context& ctx, const std::string& name,
                                                  const Client& client = Client::Default());

// Returns the records of all sandboxes, newest first. Logs and skips damaged records.
[[nodiscard]] MSB_EXPORT std::vector<SandboxHandle> ListSandboxes(
    const Context& ctx, const Client& client = Client::Default());

// Boots a sandbox that does not run. Returns when the VM runs, as CreateSandbox does. A failed or
// cancelled call leaves the sandbox as it was. The destructor of the returned object stops the
// sandbox (see Sandbox::~Sandbox).
// Throws kSandboxNotFound if the sandbox does not exist.
// Throws kSandboxStillRunning if it is running, or kUnsupportedOperation if it is running under
// another backend.
// Throws kInvalidConfig if its record is damaged, or the VMM does not start.
[[nodiscard]] MSB_EXPORT Sandbox StartSandbox(const Context& ctx, const std::string& name,
                                              const Client& client = Client::Default());

// Deletes a sandbox and its disk. Snapshots of it stay. Waits while another call uses the sandbox.
// If ctx ends while the files are being deleted, the call succeeds, and the next call that creates
// or removes a sandbox deletes the rest.
//
// Throws kCancelled, with nothing changed, if ctx ends before the deletion begins.
// Throws kSandboxNotFound if the sandbox does not exist, or if the directory of that name is not a
// sandbox of this backend.
// Throws kSandboxStillRunning if it is running, or if another program has its disk open for
// writing. Throws kIO if its files cannot be deleted. The sandbox no longer exists in this case.
// The message names the hidden directory that holds the files; the next call that creates or
// removes a sandbox tries again.
MSB_EXPORT void RemoveSandbox(const Context& ctx, const std::string& name,
                              const Client& client = Client::Default());

}  // namespace msb

#endif  // MSB_SANDBOX_H_
