// Sandboxes that are directories: a record (sandbox.json), a disk (upper.ext4 or upper.qcow2) and,
// of a qcow2 disk, links to the files that it stands on. What boots them, if anything, is the
// derived class's. docs/architecture.md says more.

#ifndef MSB_SRC_VMM_DIRECTORY_BACKEND_H_
#define MSB_SRC_VMM_DIRECTORY_BACKEND_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "msb/vmm/backend.h"
#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/vmm/directory_disk.h"
#include "src/vmm/image_store.h"

namespace msb::vmm {

using Log = std::function<void(std::string_view message)>;

class DirectoryBackend : public Backend {
 public:
  // upper_format: of new sandboxes; nothing: that of what they are made from.
  DirectoryBackend(std::filesystem::path sandboxes_dir, const std::filesystem::path& cache_dir,
                   std::optional<DiskFormat> upper_format, Log log);

  SandboxRecord Inspect(const Context& ctx, const std::string& name) override;
  std::vector<SandboxRecord> List(const Context& ctx) override;
  SandboxRecord Create(const Context& ctx, const SandboxSpec& spec) override;
  SandboxRecord Start(const Context& ctx, const std::string& name, bool detached) override;
  void Stop(const Context& ctx, const std::string& name,
            std::chrono::milliseconds timeout) override;
  void Kill(const Context& ctx, const std::string& name) override;
  void Detach(const Context& ctx, const std::string& name) override;
  void Remove(const Context& ctx, const std::string& name) override;
  void Seal(const Context& ctx, const std::string& name, const SealSpec& spec,
            const std::function<void(const Disk& sealed)>& publish) override;

 protected:
  // A sandbox's directory, locked against other threads and processes, and its record.
  struct Locked {
    int dir = -1;
    base::UniqueFd fd = {};  // Holds dir, if its owner is not another.
    std::filesystem::path path = {};
    DirectoryRecord record = {};
  };

  // Boots the sandbox. Sets the record's process, and saves the record before that can open the
  // disk. It must end with this process until LetGo is called.
  virtual void Boot(const Context& ctx, Locked& sandbox, bool detached) = 0;
  // Lets a booted sandbox outlive this process.
  virtual void LetGo(Locked& sandbox) = 0;
  // Ends the VM, gracefully if timeout is not zero, and removes what it had beside the disk. No
  // error if it has ended.
  virtual void Halt(const Context& ctx, Locked& sandbox, std::chrono::milliseconds timeout) = 0;
  // The status of a sandbox that is recorded as running, but whose process is gone.
  virtual SandboxStatus StatusOfEnded(int /*dir*/) const { return SandboxStatus::kCrashed; }

  // True if a VM runs in the directory, whatever the record says.
  virtual bool HasVm(int /*dir*/) const { return false; }

  void Save(Locked& sandbox) const;

 private:
  base::UniqueFd LockSandbox(const Context& ctx, const std::string& name) const;
  std::optional<DirectoryRecord> Read(int sandbox, const std::string& name) const;
  Locked ReadLocked(int dir, const std::string& name) const;
  Locked OpenLocked(const Context& ctx, const std::string& name) const;
  // One that does not run, with nothing left to recover. kSandboxStillRunning.
  Locked OpenIdle(const Context& ctx, const std::string& name) const;

  // Ends what was cut off.
  void Recover(const Context& ctx, Locked& sandbox) const;
  // kSandboxStillRunning if the sandbox, whose record cannot be read, has a VM.
  void RefuseVm(int dir, const std::string& name) const;

  DiskSource SourceOf(const Context& ctx, const SandboxSpec& spec, SandboxRecord& record);
  void BuildInto(const Context& ctx, const SandboxSpec& spec, const base::Stage& stage,
                 DirectoryRecord& record);
  base::UniqueFd StopToReplace(const Context& ctx, const std::string& name);
  void Begin(const Context& ctx, Locked& sandbox, bool detached);
  void TakeBack(Locked& sandbox, const DirectoryRecord& before);
  void End(const Context& ctx, Locked& sandbox, std::chrono::milliseconds timeout);
  void FinishSeal(Locked& sandbox) const;

  const std::filesystem::path dir_;
  const std::optional<DiskFormat> upper_format_;
  const Log log_;
  ImageStore images_;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_DIRECTORY_BACKEND_H_
