// The sandboxes of an installed microsandbox runtime, read from its database. Booting and ending
// them is not available yet.

#ifndef MSB_SRC_VMM_MICROSANDBOX_BACKEND_H_
#define MSB_SRC_VMM_MICROSANDBOX_BACKEND_H_

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/vmm/backend.h"

namespace msb::vmm {

class MicrosandboxBackend : public Backend {
 public:
  // database is the runtime's db/msb.db.
  MicrosandboxBackend(std::filesystem::path database, std::filesystem::path sandboxes_dir,
                      std::function<void(std::string_view message)> log)
      : database_(std::move(database)),
        sandboxes_dir_(std::move(sandboxes_dir)),
        log_(std::move(log)) {}

  std::string_view Name() const override { return "microsandbox"; }
  SandboxRecord Inspect(const Context& ctx, const std::string& name) override;
  std::vector<SandboxRecord> List(const Context& ctx) override;

  // All of these throw kUnsupportedOperation.
  SandboxRecord Create(const Context& ctx, const SandboxSpec& spec) override;
  SandboxRecord Start(const Context& ctx, const std::string& name, bool detached) override;
  void Stop(const Context& ctx, const std::string& name,
            std::chrono::milliseconds timeout) override;
  void Kill(const Context& ctx, const std::string& name) override;
  void Detach(const Context& ctx, const std::string& name) override;
  void Remove(const Context& ctx, const std::string& name) override;

 private:
  const std::filesystem::path database_;
  const std::filesystem::path sandboxes_dir_;
  const std::function<void(std::string_view message)> log_;  // Takes what List leaves out.
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_MICROSANDBOX_BACKEND_H_
