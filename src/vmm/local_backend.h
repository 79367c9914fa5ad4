// The local backend: a sandbox is a directory with a record and a disk, and there is no VM. It is
// for programs that run their own, for tests, and for a first try. docs/architecture.md says more.
//
// A sandbox runs from its creation or start until it is stopped; unless it is detached, it has
// crashed when the process that started it has ended.

#ifndef MSB_SRC_VMM_LOCAL_BACKEND_H_
#define MSB_SRC_VMM_LOCAL_BACKEND_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "msb/vmm/backend.h"
#include "src/base/file.h"
#include "src/vmm/image_store.h"

namespace msb::vmm {

class LocalBackend : public Backend {
 public:
  LocalBackend(std::filesystem::path sandboxes_dir, const std::filesystem::path& cache_dir,
               std::optional<DiskFormat> upper_format,
               std::function<void(std::string_view message)> log);

  std::string_view Name() const override { return "local"; }
  SandboxRecord Inspect(const Context& ctx, const std::string& name) override;
  std::vector<SandboxRecord> List(const Context& ctx) override;
  SandboxRecord Create(const Context& ctx, const SandboxSpec& spec) override;
  SandboxRecord Start(const Context& ctx, const std::string& name, bool detached) override;
  void Stop(const Context& ctx, const std::string& name,
            std::chrono::milliseconds timeout) override;
  void Kill(const Context& ctx, const std::string& name) override;
  void Detach(const Context& ctx, const std::string& name) override;
  void Remove(const Context& ctx, const std::string& name) override;

 private:
  struct Locked;

  // The sandbox's directory, locked against other threads and processes. kSandboxNotFound.
  base::UniqueFd LockSandbox(const Context& ctx, const std::string& name) const;
  Locked OpenLocked(const Context& ctx, const std::string& name) const;
  void Save(Locked& sandbox) const;
  // The disk to copy for a new sandbox, and what is known of its origin.
  SandboxRecord OriginOf(const Context& ctx, const SandboxSpec& spec);

  const std::filesystem::path dir_;
  const std::optional<DiskFormat> upper_format_;
  const std::function<void(std::string_view message)> log_;
  ImageStore images_;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_LOCAL_BACKEND_H_
