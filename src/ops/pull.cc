// SPDX-License-Identifier: Apache-2.0

#include "src/ops/pull.h"

#include <string_view>
#include <vector>

#include "src/handle/finder.h"
#include "src/ops/receiver.h"
#include "src/registry/origins.h"
#include "src/registry/pull.h"

namespace msb::ops {

index::Row PullSnapshot(const Context& ctx, ClientState& client, const std::string& reference,
                        const std::filesystem::path& dest, const SnapshotPullOptions& options) {
  handle::SnapshotFinder finder(ctx, client.catalog);
  const registry::PullSpec spec{.reference = registry::Reference::Parse(reference),
                                .options = options.registry,
                                .receiver = ReceiverAt(ctx, client, finder, dest, options.name)};
  registry::Origins origins(client.home.RegistriesFile(),
                            [&client](std::string_view message) { client.Log(message); });
  const std::vector<artifact::Artifact> pulled = registry::PullSnapshots(ctx, spec, origins);
  // From here on they exist, so neither a cancellation nor the index may make this fail.
  return client.catalog.RecordCopies(ctx, pulled);
}

}  // namespace msb::ops
