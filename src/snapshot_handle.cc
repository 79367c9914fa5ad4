// SPDX-License-Identifier: Apache-2.0

#include <utility>

#include "msb/handle.h"
#include "src/base/call_scope.h"
#include "src/ops/open.h"
#include "src/ops/remove.h"
#include "src/wrap.h"

namespace msb {

using internal::HandleState;

SnapshotHandle HandleState::Wrap(std::shared_ptr<internal::ClientState> client, index::Row row) {
  auto state = std::make_shared<HandleState>();
  state->client = std::move(client);
  state->row = std::move(row);
  return SnapshotHandle(std::move(state));
}

std::vector<SnapshotHandle> HandleState::WrapAll(
    const std::shared_ptr<internal::ClientState>& client, std::vector<index::Row> rows) {
  std::vector<SnapshotHandle> wrapped;
  wrapped.reserve(rows.size());
  for (index::Row& row : rows) wrapped.push_back(Wrap(client, std::move(row)));
  return wrapped;
}

SnapshotHandle::SnapshotHandle(std::shared_ptr<const HandleState> state)
    : state_(std::move(state)) {}

const std::string& SnapshotHandle::Digest() const { return state_->row.digest; }
std::optional<std::string> SnapshotHandle::Name() const { return index::FullName(state_->row); }
std::optional<std::string> SnapshotHandle::ParentDigest() const {
  return state_->row.parent_digest;
}
const std::string& SnapshotHandle::ImageRef() const { return state_->row.image_ref; }
const std::string& SnapshotHandle::Format() const { return state_->row.format; }
std::optional<std::uint64_t> SnapshotHandle::SizeBytes() const { return state_->row.size_bytes; }
const std::string& SnapshotHandle::Path() const { return state_->row.artifact_path; }
std::chrono::system_clock::time_point SnapshotHandle::CreatedAt() const {
  return state_->row.created_at.ToTimePoint();
}

SnapshotArtifact SnapshotHandle::Open(const Context& ctx) const {
  const base::CallScope scope;
  const auto& client = state_->client;
  return internal::ArtifactState::Wrap(client, ops::OpenSnapshot(ctx, *client, Path()).artifact);
}

void SnapshotHandle::Remove(const Context& ctx, bool force) const {
  const base::CallScope scope;
  ops::RemoveSnapshot(ctx, *state_->client, state_->row, force);
}

}  // namespace msb
