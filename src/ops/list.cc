// SPDX-License-Identifier: Apache-2.0

#include "src/ops/list.h"

#include <algorithm>
#include <utility>

namespace msb::ops {

std::vector<artifact::Artifact> ListArtifacts(const Context& ctx, const ClientState& client,
                                              const std::filesystem::path& dir) {
  ctx.Check();
  std::vector<artifact::Artifact> artifacts;
  artifact::WalkArtifacts(
      ctx, client.DirectoryOrDefault(dir),
      [&](artifact::Artifact artifact) { artifacts.push_back(std::move(artifact)); },
      [&](const Error& error) { client.Log(error.what()); });
  return artifacts;
}

std::vector<vmm::SandboxRecord> SandboxesOf(const Context& ctx, const ClientState& client) {
  std::vector<vmm::SandboxRecord> records = client.backend->List(ctx);
  std::stable_sort(records.begin(), records.end(),
                   [](const auto& a, const auto& b) { return a.created_at > b.created_at; });
  return records;
}

}  // namespace msb::ops
