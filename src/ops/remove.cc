// SPDX-License-Identifier: Apache-2.0

#include "src/ops/remove.h"

#include "src/ops/sandbox_users.h"

namespace msb::ops {

void RemoveSnapshot(const Context& ctx, ClientState& client, const std::string& path_or_name,
                    bool force) {
  client.catalog.Remove(ctx, path_or_name, force, UsersOf(ctx, client));
}

void RemoveSnapshot(const Context& ctx, ClientState& client, const index::Row& row, bool force) {
  client.catalog.Remove(ctx, row, force, UsersOf(ctx, client));
}

void RemoveListed(const Context& ctx, ClientState& client, const index::Row& row) {
  client.catalog.RemoveListed(ctx, row, UsersOf(ctx, client));
}

}  // namespace msb::ops
