// SPDX-License-Identifier: Apache-2.0
//
// LocalBackend keeps each sandbox in a directory and runs no VM. It is intended for programs that
// run VMs themselves, for tests, and for trying out the library.
//
// A sandbox runs from its creation or start until it is stopped. Unless the sandbox is detached,
// the process that started it holds its run lock (run_lock.h). If that process ends before the
// sandbox is stopped, the sandbox counts as crashed.

#ifndef MSB_SRC_VMM_LOCAL_BACKEND_H_
#define MSB_SRC_VMM_LOCAL_BACKEND_H_

#include <utility>

#include "src/base/process.h"
#include "src/vmm/directory_backend.h"
#include "src/vmm/run_lock.h"

namespace msb::vmm {

class LocalBackend : public DirectoryBackend {
 public:
  using DirectoryBackend::DirectoryBackend;

  std::string_view Name() const override { return "local"; }

 private:
  void Boot(const Context& /*ctx*/, Locked& sandbox, bool detached) override {
    if (detached) return Save(sandbox);
    RunLock lock = MakeRunLock(sandbox.dir);
    sandbox.record.process = lock.HeldBy(base::ProcessIdentity::Self());
    HoldRunLock(std::move(lock));
    Save(sandbox);
  }
  void LetGo(Locked& sandbox) override { sandbox.record.process.reset(); }
  void Halt(const Context& /*ctx*/, Locked& /*sandbox*/,
            std::chrono::milliseconds /*timeout*/) override {}
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_LOCAL_BACKEND_H_
