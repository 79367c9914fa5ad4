// The local backend: a sandbox is a directory, and there is no VM. It is for programs that run
// their own, for tests, and for a first try.
//
// A sandbox runs from its creation or start until it is stopped; unless it is detached, it has
// crashed when the process that started it has ended.

#ifndef MSB_SRC_VMM_LOCAL_BACKEND_H_
#define MSB_SRC_VMM_LOCAL_BACKEND_H_

#include "src/vmm/directory_backend.h"

namespace msb::vmm {

class LocalBackend : public DirectoryBackend {
 public:
  using DirectoryBackend::DirectoryBackend;

  std::string_view Name() const override { return "local"; }

 private:
  void Boot(const Context& /*ctx*/, Locked& sandbox, bool detached) override {
    if (!detached) sandbox.record.process = base::ProcessIdentity::Self();
    Save(sandbox);
  }
  void LetGo(Locked& sandbox) override { sandbox.record.process.reset(); }
  void Halt(const Context& /*ctx*/, Locked& /*sandbox*/,
            std::chrono::milliseconds /*timeout*/) override {}
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_LOCAL_BACKEND_H_
