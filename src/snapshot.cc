// SPDX-License-Identifier: Apache-2.0

#include "msb/snapshot.h"

#include <utility>

#include "src/base/call_scope.h"
#include "src/ops/create.h"
#include "src/ops/export.h"
#include "src/ops/flatten.h"
#include "src/ops/import.h"
#include "src/ops/list.h"
#include "src/ops/open.h"
#include "src/ops/prune.h"
#include "src/ops/pull.h"
#include "src/ops/push.h"
#include "src/ops/remove.h"
#include "src/ops/restore.h"
#include "src/ops/squash.h"
#include "src/ops/usage.h"
#include "src/wrap.h"

namespace msb {

using internal::ArtifactState;
using internal::ClientState;
using internal::HandleState;

SnapshotArtifact Snapshot::Create(const Context& ctx, const std::string& source_sandbox,
                                  const SnapshotCreateOptions& options, const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return ArtifactState::Wrap(state, ops::CreateSnapshot(ctx, *state, source_sandbox, options));
}

SnapshotArtifact Snapshot::Open(const Context& ctx, const std::string& path_or_name,
                                const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return ArtifactState::Wrap(state, ops::OpenSnapshot(ctx, *state, path_or_name).artifact);
}

SnapshotHandle Snapshot::Get(const Context& ctx, const std::string& name_or_digest,
                             const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return HandleState::Wrap(state, state->catalog.Get(ctx, name_or_digest));
}

std::vector<SnapshotHandle> Snapshot::List(const Context& ctx, const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return HandleState::WrapAll(state, state->catalog.List(ctx));
}

std::vector<SnapshotArtifact> Snapshot::ListDir(const Context& ctx,
                                                const std::filesystem::path& dir,
                                                const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return ArtifactState::WrapAll(state, ops::ListArtifacts(ctx, *state, dir));
}

void Snapshot::Remove(const Context& ctx, const std::string& path_or_name, bool force,
                      const Client& client) {
  const base::CallScope scope;
  ops::RemoveSnapshot(ctx, *ClientState::Of(client), path_or_name, force);
}

std::uint32_t Snapshot::Reindex(const Context& ctx, const std::filesystem::path& dir,
                                const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return state->catalog.Reindex(ctx, state->DirectoryOrDefault(dir));
}

SnapshotArtifact Snapshot::Squash(const Context& ctx, const std::string& name_or_path,
                                  const SnapshotCreateOptions& destination, const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return ArtifactState::Wrap(state, ops::SquashSnapshot(ctx, *state, name_or_path, destination));
}

void Snapshot::Restore(const Context& ctx, const std::string& sandbox,
                       const std::string& name_or_path, const Client& client) {
  const base::CallScope scope;
  ops::RestoreSandbox(ctx, *ClientState::Of(client), sandbox, name_or_path);
}

std::vector<SnapshotUsage> Snapshot::Usage(const Context& ctx, const Client& client) {
  const base::CallScope scope;
  return ops::UsageOfSnapshots(ctx, *ClientState::Of(client));
}

std::vector<SnapshotHandle> Snapshot::Prune(const Context& ctx, const SnapshotPruneOptions& options,
                                            const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return HandleState::WrapAll(state, ops::PruneSnapshots(ctx, *state, options));
}

void Snapshot::Export(const Context& ctx, const std::string& name_or_path,
                      const std::filesystem::path& out_path, const SnapshotExportOptions& options,
                      const Client& client) {
  const base::CallScope scope;
  ops::ExportSnapshot(ctx, *ClientState::Of(client), name_or_path, out_path, options);
}

std::string Snapshot::Push(const Context& ctx, const std::string& name_or_path,
                           const std::string& reference, const SnapshotPushOptions& options,
                           const Client& client) {
  const base::CallScope scope;
  return ops::PushSnapshot(ctx, *ClientState::Of(client), name_or_path, reference, options);
}

SnapshotHandle Snapshot::Pull(const Context& ctx, const std::string& reference,
                              const std::filesystem::path& dest, const SnapshotPullOptions& options,
                              const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return HandleState::Wrap(state, ops::PullSnapshot(ctx, *state, reference, dest, options));
}

void Snapshot::Flatten(const Context& ctx, const std::string& name_or_path,
                       const std::filesystem::path& out_path, const SnapshotFlattenOptions& options,
                       const Client& client) {
  const base::CallScope scope;
  ops::FlattenSnapshot(ctx, *ClientState::Of(client), name_or_path, out_path, options);
}

SnapshotHandle Snapshot::Import(const Context& ctx, const std::filesystem::path& archive,
                                const std::filesystem::path& dest,
                                const SnapshotImportOptions& options, const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return HandleState::Wrap(state, ops::ImportSnapshot(ctx, *state, archive, dest, options));
}

}  // namespace msb
