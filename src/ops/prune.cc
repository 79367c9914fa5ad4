// SPDX-License-Identifier: Apache-2.0

#include "src/ops/prune.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "src/artifact/store.h"
#include "src/base/throw.h"
#include "src/base/time.h"
#include "src/handle/dependents.h"
#include "src/handle/row_paths.h"
#include "src/ops/remove.h"
#include "src/ops/sandbox_users.h"

namespace msb::ops {
namespace {

using artifact::Artifact;
using base::Throw;
using index::Row;

void CheckPruneOptions(const SnapshotPruneOptions& options) {
  if (!options.keep_last && !options.older_than && options.labels.empty()) {
    Throw(ErrorKind::kInvalidArgument,
          "Prune would remove every snapshot: set keep_last, older_than or labels in "
          "SnapshotPruneOptions");
  }
  if (options.older_than && options.older_than->count() < 0) {
    Throw(ErrorKind::kInvalidArgument,
          "SnapshotPruneOptions::older_than must not be negative, but is {} s",
          options.older_than->count());
  }
}

// Opens the artifact of a row. Returns nullopt if it is absent, replaced, damaged or a symbolic
// link, which Remove refuses.
std::optional<Artifact> OpenListed(ClientState& client, const Row& row) {
  std::error_code error;
  if (std::filesystem::is_symlink(row.artifact_path, error)) {
    client.Log(
        fmt::format("Prune skips {}: it is a symbolic link; remove the snapshot that it "
                    "points to, by its own path",
                    row.artifact_path));
    return std::nullopt;
  }
  try {
    Artifact artifact = artifact::OpenArtifactAt(row.artifact_path);
    if (artifact.manifest.digest == row.digest) return artifact;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kSnapshotNotFound) client.Log(e.what());
  }
  return std::nullopt;
}

bool HasLabels(const Artifact& artifact, const std::map<std::string, std::string>& labels) {
  const auto& own = artifact.manifest.labels;
  return std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
    const auto found = own.find(label.first);
    return found != own.end() && found->second == label.second;
  });
}

// The years 0 to 9999 are more than system_clock can represent.
bool IsOlder(const Row& row, const base::UtcTime& now, std::chrono::seconds age) {
  const std::chrono::seconds difference = now.seconds - row.created_at.seconds;
  return difference > age || (difference == age && now.nanoseconds >= row.created_at.nanoseconds);
}

// A PrunePlan determines the order in which snapshots can be removed, by the rules of
// Catalog::Remove without force.
class PrunePlan {
 public:
  PrunePlan(const std::vector<Row>& rows, std::filesystem::path snapshots_dir);

  // Notes that the artifact of this row is in its place.
  void NoteSound(std::size_t row) { is_sound_[row] = true; }
  // Reads the snapshots and sandboxes that may depend on others.
  void ReadDependents(const Context& ctx, ClientState& client);
  // Returns those candidates that can be removed, children before parents. Throws kIO if there are
  // any, but a snapshot or sandbox that may depend on them cannot be read.
  std::vector<Row> Order(std::vector<std::size_t> candidates);

 private:
  void CheckRead(const Row& planned) const;
  bool IsNeeded(std::size_t row) const;
  bool HasOtherCopy(std::size_t row) const;
  bool HasChild(std::size_t row, const std::string& id) const;

  const std::vector<Row>& rows_;
  const std::filesystem::path snapshots_dir_;
  ListedSandboxes sandboxes_;
  std::set<std::string> unlisted_parents_;  // The parents of snapshots without a row.
  std::optional<Error> unreadable_;         // The error of a snapshot that cannot be read.
  std::vector<bool> is_sound_;
  std::vector<bool> is_planned_;
  std::unordered_multimap<std::string, std::size_t> by_digest_;
  std::unordered_multimap<std::string, std::size_t> by_parent_;
};

PrunePlan::PrunePlan(const std::vector<Row>& rows, std::filesystem::path snapshots_dir)
    : rows_(rows),
      snapshots_dir_(std::move(snapshots_dir)),
      is_sound_(rows.size()),
      is_planned_(rows.size()) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    by_digest_.emplace(rows[i].digest, i);
    if (rows[i].parent_digest) by_parent_.emplace(*rows[i].parent_digest, i);
  }
}

void PrunePlan::ReadDependents(const Context& ctx, ClientState& client) {
  std::set<std::pair<std::string_view, std::string_view>> listed;
  for (const Row& row : rows_) listed.emplace(row.artifact_path, row.digest);
  const auto children = handle::DependentsIn(ctx, snapshots_dir_, /*parents=*/{});
  for (const Artifact& child : children.snapshots) {
    if (listed.contains({child.path.native(), child.manifest.digest})) continue;
    unlisted_parents_.insert(*child.manifest.parent);
  }
  unreadable_ = children.unreadable;
  sandboxes_ = ListSandboxes(ctx, client);
}

void PrunePlan::CheckRead(const Row& planned) const {
  const auto check = [&](std::string_view dependent, const std::optional<Error>& error) {
    if (!error) return;
    Throw(ErrorKind::kIO,
          "{} is not removed, since a {} that may need it cannot be read: {}; make that {} "
          "readable, or remove snapshots with Remove and force",
          planned.artifact_path, dependent, error->what(), dependent);
  };
  check("snapshot", unreadable_);
  check("sandbox", sandboxes_.unreadable);
}

bool PrunePlan::HasOtherCopy(std::size_t row) const {
  const auto [begin, end] = by_digest_.equal_range(rows_[row].digest);
  return std::any_of(begin, end, [&](const auto& copy) {
    const std::size_t i = copy.second;
    const std::filesystem::path path = rows_[i].artifact_path;
    return i != row && is_sound_[i] && !is_planned_[i] && path.parent_path() == snapshots_dir_ &&
           !handle::IsAlias(path, rows_[row].artifact_path);
  });
}

bool PrunePlan::HasChild(std::size_t row, const std::string& id) const {
  if (unlisted_parents_.contains(id)) return true;
  const auto [begin, end] = by_parent_.equal_range(id);
  return std::any_of(begin, end, [&](const auto& child) {
    return child.second != row && !is_planned_[child.second];
  });
}

bool PrunePlan::IsNeeded(std::size_t row) const {
  const Row& wanted = rows_[row];
  if (HasOtherCopy(row)) return false;
  if (HasChild(row, wanted.digest)) return true;
  if (wanted.snapshot_id && HasChild(row, *wanted.snapshot_id)) return true;
  return !handle::SandboxesBackedBy(sandboxes_.sandboxes, wanted.digest).empty();
}

std::vector<Row> PrunePlan::Order(std::vector<std::size_t> candidates) {
  std::vector<Row> order;
  for (bool found = true; found;) {
    // A snapshot that is planned may free its parent, which as a rule comes later.
    const std::size_t before = order.size();
    std::erase_if(candidates, [&](std::size_t row) {
      if (IsNeeded(row)) return false;
      is_planned_[row] = true;
      order.push_back(rows_[row]);
      return true;
    });
    found = order.size() > before;
  }
  if (!order.empty()) CheckRead(order.front());
  return order;
}

// Returns the rows to remove, in this order. rows are all rows, newest first.
std::vector<Row> PlanPrune(const Context& ctx, ClientState& client,
                           const SnapshotPruneOptions& options, const std::vector<Row>& rows) {
  PrunePlan plan(rows, client.home.snapshots_dir());
  const auto now = base::UtcTime::Now();
  std::vector<std::size_t> candidates;
  std::set<std::string> kept;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ctx.Check();
    const auto artifact = OpenListed(client, rows[i]);
    if (!artifact) continue;
    plan.NoteSound(i);
    const bool is_inside = artifact->path.parent_path() == client.home.snapshots_dir();
    if (!is_inside && !artifact->member) continue;
    if (!HasLabels(*artifact, options.labels)) continue;
    if (kept.size() < options.keep_last.value_or(0)) kept.insert(rows[i].digest);
    if (kept.contains(rows[i].digest)) continue;
    if (options.older_than && !IsOlder(rows[i], now, *options.older_than)) continue;
    // Only the runtime can remove a member of a group.
    if (!artifact->member && !rows[i].group_path) candidates.push_back(i);
  }
  plan.ReadDependents(ctx, client);
  return plan.Order(std::move(candidates));
}

// Removes a snapshot unless it is gone, or is needed since the plan was made.
bool RemoveUnlessNeeded(const Context& ctx, ClientState& client, const Row& row) {
  try {
    RemoveListed(ctx, client, row);
    return true;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kSnapshotHasChildren && e.kind() != ErrorKind::kSnapshotNotFound) {
      throw;
    }
    return false;
  }
}

}  // namespace

std::vector<Row> PruneSnapshots(const Context& ctx, ClientState& client,
                                const SnapshotPruneOptions& options) {
  CheckPruneOptions(options);
  const std::vector<Row> rows = client.catalog.List(ctx);
  std::vector<Row> planned = PlanPrune(ctx, client, options, rows);
  if (options.dry_run) return planned;
  std::optional<Error> failure;
  std::vector<Row> removed;
  for (const Row& row : planned) {
    try {
      if (RemoveUnlessNeeded(ctx, client, row)) removed.push_back(row);
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::kCancelled) throw;
      if (failure) {
        client.Log(e.what());
      } else {
        failure = e;
      }
    }
  }
  if (failure) throw *std::move(failure);
  return removed;
}

}  // namespace msb::ops
