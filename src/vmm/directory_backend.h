// SPDX-License-Identifier: Apache-2.0
//
// DirectoryBackend keeps each sandbox in a directory: a record (sandbox.json), a disk (upper.ext4,
// upper.qcow2 or, after a snapshot took over an earlier disk or the sandbox was restored,
// upper-HEX.qcow2 or upper-HEX.ext4) and, for a qcow2 disk, hard links to the files that it is
// backed by, or copies if links are impossible. A derived class decides whether and how a VM is
// booted. See docs/architecture.md.

#ifndef MSB_SRC_VMM_DIRECTORY_BACKEND_H_
#define MSB_SRC_VMM_DIRECTORY_BACKEND_H_

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "msb/vmm/backend.h"
#include "src/base/file.h"
#include "src/base/home.h"
#include "src/base/staging.h"
#include "src/vmm/directory_disk.h"
#include "src/vmm/image_store.h"
#include "src/vmm/live_disk.h"
#include "src/vmm/sandbox_lister.h"
#include "src/vmm/seal.h"

namespace msb::vmm {

using Log = std::function<void(std::string_view message)>;

// A Warnings collects the warnings of a call and logs them when it is destroyed. It must be
// declared before the lock of a sandbox, so that it logs after the lock has been released and the
// log callback may use the sandbox.
class Warnings {
 public:
  explicit Warnings(const Log& log) : log_(log) {}
  Warnings(const Warnings&) = delete;
  Warnings& operator=(const Warnings&) = delete;
  ~Warnings();

  void Add(std::string message) { messages_.push_back(std::move(message)); }

 private:
  const Log& log_;
  std::vector<std::string> messages_;
};

class DirectoryBackend : public Backend, public SandboxLister {
 public:
  // upper_format is the disk format of new sandboxes. Default: the format of the image or snapshot
  // that they are created from. queries must be complete.
  DirectoryBackend(base::Home home, std::optional<DiskFormat> upper_format, SnapshotQueries queries,
                   Log log);

  SandboxRecord Inspect(const Context& ctx, const std::string& name) override;
  std::vector<SandboxRecord> List(const Context& ctx) override;
  std::vector<SandboxRecord> ListReadable(const Context& ctx,
                                          const std::function<void(const Error&)>& failed) override;
  SandboxRecord Create(const Context& ctx, const SandboxSpec& spec) override;
  SandboxRecord Start(const Context& ctx, const std::string& name, bool detached) override;
  void Stop(const Context& ctx, const std::string& name,
            std::chrono::milliseconds timeout) override;
  void Kill(const Context& ctx, const std::string& name) override;
  void Detach(const Context& ctx, const std::string& name) override;
  void Remove(const Context& ctx, const std::string& name) override;
  void Seal(const Context& ctx, const std::string& name, const SealDescriber& describe,
            const SealPublisher& publish) override;
  void SealLive(const Context& ctx, const std::string& name, LiveSnapshot level,
                const LiveSealDescriber& describe, const SealPublisher& publish) override;
  SandboxRecord Restore(const Context& ctx, const std::string& name,
                        const SnapshotSource& snapshot) override;

 protected:
  // A Locked represents a sandbox with its record, while its directory is locked against other
  // threads and processes.
  struct Locked {
    int dir = -1;
    base::LockedDirectory lock = {};  // Owns dir, unless a stage does.
    std::filesystem::path path = {};
    DirectoryRecord record = {};
  };

  // A Viewed represents a sandbox that is not locked: another call may change it at any time.
  struct Viewed {
    base::UniqueFd dir = {};
    std::filesystem::path path = {};
    DirectoryRecord record = {};
  };
  // Opens the directory of a sandbox and reads its record, without waiting for calls that change
  // it. If the sandbox is replaced meanwhile, returns the new one. Throws kSandboxNotFound if there
  // is no such sandbox.
  Viewed View(const std::string& name) const;

  // Boots the sandbox. If the sandbox has a process, sets it in the record, and saves the record
  // before that process can open the disk. Until LetGo is called, that process must end when this
  // process ends.
  virtual void Boot(const Context& ctx, Locked& sandbox, bool detached) = 0;
  // Lets a booted sandbox outlive this process.
  virtual void LetGo(Locked& sandbox) = 0;
  // Ends the VM, gracefully if timeout is not zero. It is not an error if the VM has already ended.
  virtual void Halt(const Context& ctx, Locked& sandbox, std::chrono::milliseconds timeout) = 0;
  // Returns how a sandbox ended that is recorded as running but whose process has ended. dir is its
  // directory.
  virtual SandboxStatus StatusOfEnded(int /*dir*/) const { return SandboxStatus::kCrashed; }
  // Removes the files that an ended VM left beside the disk. Called after the record was updated
  // with how the VM ended.
  virtual void ClearEnded(Locked& /*sandbox*/) {}
  // Adds machine settings of the backend's configuration, which are not in the SandboxSpec, to the
  // record of a new sandbox.
  virtual void RecordMachine(DirectoryRecord& /*record*/) const {}

  // Returns true if a VM runs in the directory dir, regardless of what the record says.
  virtual bool HasVm(int /*dir*/) const { return false; }

  // Connects to the VM of a running sandbox, for a live snapshot.
  // Throws kUnsupportedOperation by default, and if the VM cannot be reached from here.
  // Throws kIO if the VM has ended.
  virtual std::unique_ptr<LiveDisk> OpenLiveDisk(const Context& ctx, const Locked& sandbox);

  void Save(Locked& sandbox) const;

 private:
  base::LockedDirectory LockSandbox(const Context& ctx, const std::string& name) const;
  std::optional<DirectoryRecord> Read(int sandbox, const std::string& name) const;
  // Does the same as View, but returns nullopt if there is no such sandbox.
  std::optional<Viewed> TryView(const std::string& name) const;
  Locked ReadLocked(int dir, const std::string& name) const;
  Locked OpenLocked(const Context& ctx, const std::string& name) const;
  // Locks a sandbox that is not running. Throws kSandboxStillRunning if it runs.
  Locked OpenStopped(const Context& ctx, const std::string& name) const;
  // Locks a sandbox that is not running and recovers it (see Recover).
  Locked OpenIdle(const Context& ctx, const std::string& name, Warnings& warnings) const;

  SealedSandbox SealedBy(Locked& sandbox) const;
  // Resolves a seal that a crash interrupted, saves the record, and removes the files that a crash
  // left. Throws if the seal cannot be resolved. A failure to save the record or to remove files
  // causes only a warning, so that the sandbox is usable in a directory that cannot be written to.
  void Recover(Locked& sandbox, Warnings& warnings) const;
  // Does the same for a caller that does not change the disk, or replaces it. An interrupted live
  // snapshot that cannot be resolved causes only a warning, too.
  void RecoverForReading(Locked& sandbox, Warnings& warnings) const;
  // Returns whether the snapshot with this digest was published at artifact. Returns nullopt, and
  // adds a warning, if that cannot be determined.
  std::optional<bool> AskPublished(const std::filesystem::path& artifact, const std::string& digest,
                                   Warnings& warnings) const;
  // Throws kUnsupportedOperation if the disk is raw.
  static void CheckSealable(const SandboxRecord& sandbox);
  // Seals the disk of a sandbox that does not run.
  void SealIdle(const Context& ctx, Locked& sandbox, const SealDescriber& describe,
                const SealPublisher& publish, Warnings& warnings);
  // Undoes a Restore that failed to save its record. before is the former record, and kept is the
  // name of its file, or empty.
  void TakeBackRecord(Locked& sandbox, const DirectoryRecord& before,
                      const std::string& kept) const;
  // Throws kSandboxStillRunning if a VM runs in the directory of a sandbox whose record cannot be
  // read.
  void RefuseVm(int dir, const std::string& name) const;

  DiskSource SourceOf(const Context& ctx, const SandboxSpec& spec, SandboxRecord& record);
  void BuildInto(const Context& ctx, const SandboxSpec& spec, const base::Stage& stage,
                 DirectoryRecord& record);
  void StopToReplace(const Context& ctx, int dir, const std::string& name);
  // Throws kSandboxAlreadyExists with a message that explains why name is not replaced.
  [[noreturn]] void RefuseExisting(const std::string& name) const;
  void Publish(const Context& ctx, const SandboxSpec& spec, base::Stage& stage);
  // Returns the record that was saved when the sandbox was booted, as Inspect would return it.
  static SandboxRecord Booted(const Locked& sandbox);
  void Begin(const Context& ctx, Locked& sandbox, bool detached, Warnings& warnings);
  void TakeBack(Locked& sandbox, const DirectoryRecord& before, Warnings& warnings);
  void End(const Context& ctx, Locked& sandbox, std::chrono::milliseconds timeout);
  void RecordEnd(Locked& sandbox);

  const base::Home home_;
  const std::filesystem::path& dir_ = home_.sandboxes_dir();
  const std::optional<DiskFormat> upper_format_;
  const SnapshotQueries queries_;
  const Log log_;
  ImageStore images_;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_DIRECTORY_BACKEND_H_
