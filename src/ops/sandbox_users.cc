// SPDX-License-Identifier: Apache-2.0

#include "src/ops/sandbox_users.h"

#include <string_view>

#include "src/handle/dependents.h"
#include "src/vmm/sandbox_lister.h"

namespace msb::ops {

ListedSandboxes ListSandboxes(const Context& ctx, ClientState& client) {
  ListedSandboxes listed;
  auto* lister = dynamic_cast<vmm::SandboxLister*>(client.backend.get());
  if (lister == nullptr) {
    listed.sandboxes = client.backend->List(ctx);
    return listed;
  }
  listed.sandboxes = lister->ListReadable(ctx, [&](const Error& e) {
    if (e.kind() != ErrorKind::kInvalidConfig && !listed.unreadable) listed.unreadable = e;
  });
  return listed;
}

handle::Catalog::Users UsersOf(const Context& ctx, ClientState& client) {
  return [&ctx, &client](std::string_view digest) {
    try {
      const ListedSandboxes listed = ListSandboxes(ctx, client);
      return handle::Catalog::SandboxUsers{handle::SandboxesBackedBy(listed.sandboxes, digest),
                                           listed.unreadable};
    } catch (const Error& e) {
      // Catalog must not mistake an error of the backend's database for one of the index.
      throw Error(e.kind(), e.what(), e.os_error());
    }
  };
}

}  // namespace msb::ops
