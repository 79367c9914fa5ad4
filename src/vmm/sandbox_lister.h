// SPDX-License-Identifier: Apache-2.0
//
// A SandboxLister is a backend that reports the sandboxes that it cannot read. Backend::List skips
// them, but then a caller must not conclude that no sandbox uses a snapshot.

#ifndef MSB_SRC_VMM_SANDBOX_LISTER_H_
#define MSB_SRC_VMM_SANDBOX_LISTER_H_

#include <functional>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"
#include "msb/vmm/backend.h"

namespace msb::vmm {

class SandboxLister {
 public:
  SandboxLister() = default;
  SandboxLister(const SandboxLister&) = delete;
  SandboxLister& operator=(const SandboxLister&) = delete;
  virtual ~SandboxLister() = default;

  // Returns the records of the sandboxes that can be read. Calls failed with the error of each
  // other sandbox: kInvalidConfig if its record is damaged. The message names the sandbox.
  virtual std::vector<SandboxRecord> ListReadable(
      const Context& ctx, const std::function<void(const Error&)>& failed) = 0;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_SANDBOX_LISTER_H_
