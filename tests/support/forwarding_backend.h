// SPDX-License-Identifier: Apache-2.0

#ifndef MSB_TESTS_SUPPORT_FORWARDING_BACKEND_H_
#define MSB_TESTS_SUPPORT_FORWARDING_BACKEND_H_

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "msb/vmm/backend.h"

namespace msb::test {

// A backend that passes each call that every backend has on to another one. Tests override the
// calls that matter to them.
class ForwardingBackend : public vmm::Backend {
 public:
  explicit ForwardingBackend(std::shared_ptr<vmm::Backend> inner) : inner_(std::move(inner)) {}

  std::string_view Name() const override { return inner_->Name(); }
  vmm::SandboxRecord Inspect(const Context& ctx, const std::string& name) override {
    return inner_->Inspect(ctx, name);
  }
  std::vector<vmm::SandboxRecord> List(const Context& ctx) override { return inner_->List(ctx); }
  vmm::SandboxRecord Create(const Context& ctx, const vmm::SandboxSpec& spec) override {
    return inner_->Create(ctx, spec);
  }
  vmm::SandboxRecord Start(const Context& ctx, const std::string& name, bool detached) override {
    return inner_->Start(ctx, name, detached);
  }
  void Stop(const Context& ctx, const std::string& name,
            std::chrono::milliseconds timeout) override {
    inner_->Stop(ctx, name, timeout);
  }
  void Kill(const Context& ctx, const std::string& name) override { inner_->Kill(ctx, name); }
  void Detach(const Context& ctx, const std::string& name) override { inner_->Detach(ctx, name); }
  void Remove(const Context& ctx, const std::string& name) override { inner_->Remove(ctx, name); }

 private:
  const std::shared_ptr<vmm::Backend> inner_;
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_FORWARDING_BACKEND_H_
