// SPDX-License-Identifier: Apache-2.0

#include "src/ops/restore.h"

#include "src/ops/boot.h"
#include "src/ops/snapshot_source.h"
#include "src/vmm/same_image.h"

namespace msb::ops {

void RestoreSandbox(const Context& ctx, ClientState& client, const std::string& sandbox,
                    const std::string& name_or_path) {
  CheckSandboxName(sandbox);
  WithSource(ctx, client, name_or_path, [&](const vmm::SnapshotSource& snapshot) {
    vmm::CheckSameImage(client.backend->Inspect(ctx, sandbox), snapshot);
    return client.backend->Restore(ctx, sandbox, snapshot);
  });
}

}  // namespace msb::ops
