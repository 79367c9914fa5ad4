// SPDX-License-Identifier: Apache-2.0

#include "src/ops/remove.h"

#include <string_view>

#include "src/handle/dependents.h"

namespace msb::ops {
namespace {

// Returns the users argument of Catalog::Remove: a function that finds the sandboxes whose disks
// are currently backed by a snapshot. Returns an empty function if force is set, because sandboxes
// do not prevent the removal then.
handle::Catalog::Users UsersUnless(bool force, const Context& ctx, ClientState& client) {
  if (force) return {};
  return [sandboxes = client.backend->List(ctx)](std::string_view digest) {
    return handle::SandboxesBackedBy(sandboxes, digest);
  };
}

}  // namespace

void RemoveSnapshot(const Context& ctx, ClientState& client, const std::string& path_or_name,
                    bool force) {
  client.catalog.Remove(ctx, path_or_name, force, UsersUnless(force, ctx, client));
}

void RemoveSnapshot(const Context& ctx, ClientState& client, const index::Row& row, bool force) {
  client.catalog.Remove(ctx, row, force, UsersUnless(force, ctx, client));
}

void RemoveListed(const Context& ctx, ClientState& client, const index::Row& row) {
  client.catalog.RemoveListed(ctx, row, UsersUnless(false, ctx, client));
}

}  // namespace msb::ops
