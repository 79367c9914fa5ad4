// SPDX-License-Identifier: Apache-2.0
//
// Lists the sandboxes for the decision whether a snapshot may be removed or replaced.

#ifndef MSB_SRC_OPS_SANDBOX_USERS_H_
#define MSB_SRC_OPS_SANDBOX_USERS_H_

#include <optional>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"
#include "msb/vmm/backend.h"
#include "src/handle/catalog.h"
#include "src/ops/client_state.h"

namespace msb::ops {

struct ListedSandboxes {
  std::vector<vmm::SandboxRecord> sandboxes = {};
  // The error of the first sandbox that cannot be read. Damaged records do not count.
  std::optional<Error> unreadable = {};
};

// Returns the sandboxes of the client's backend. A backend of the program's own does not report
// the sandboxes that it cannot read.
ListedSandboxes ListSandboxes(const Context& ctx, ClientState& client);

// Returns a function that lists the sandboxes each time it is called. ctx and client must outlive
// it.
handle::Catalog::Users UsersOf(const Context& ctx, ClientState& client);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_SANDBOX_USERS_H_
