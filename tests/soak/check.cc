// SPDX-License-Identifier: Apache-2.0

#include "tests/soak/check.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "src/base/digest.h"
#include "tests/soak/content.h"
#include "tests/soak/worker.h"
#include "tests/support/support.h"

namespace msb::soak {
namespace {

namespace fs = std::filesystem;

// Returns the names in a directory, except those that begin with a dot. Returns none if the
// directory is absent.
std::vector<std::string> VisibleIn(const fs::path& dir) {
  std::vector<std::string> names;
  if (!fs::is_directory(dir)) return names;
  for (const auto& entry : fs::directory_iterator(dir)) {
    std::string name = entry.path().filename();
    if (!name.starts_with('.')) names.push_back(std::move(name));
  }
  return names;
}

std::uint64_t NumberOf(const std::string& text) {
  return text.empty() ? 0 : std::strtoull(text.c_str(), nullptr, 10);
}

std::string LabelOf(const SnapshotArtifact& artifact, const std::string& key) {
  const auto labels = artifact.Labels();
  const auto label = labels.find(key);
  return label == labels.end() ? std::string() : label->second;
}

// Returns the number of bytes allocated to the files below a directory, counting each inode once.
std::uint64_t AllocatedIn(const fs::path& dir) {
  std::map<ino_t, std::uint64_t> bytes;
  if (!fs::exists(dir)) return 0;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    struct stat stat;
    if (lstat(entry.path().c_str(), &stat) != 0 || S_ISDIR(stat.st_mode)) continue;
    bytes[stat.st_ino] = static_cast<std::uint64_t>(stat.st_blocks) * 512;
  }
  std::uint64_t sum = 0;
  for (const auto& [inode, size] : bytes) sum += size;
  return sum;
}

// Returns true for the hidden files that the runtimes keep.
bool IsOfRuntime(const std::string& name) {
  return name == ".manifest.json.legacy" || name == ".snapshot-migration.lock" ||
         name == ".group.lock" || name == ".groups.lock";
}

// The cache may not grow beyond this size in bytes, since only a few images are in use.
constexpr std::uint64_t kMostCached = 8 << 20;

}  // namespace

Checker::Checker(const Places& places, Shared& shared, const Chaos& chaos)
    : places_(places), shared_(shared), chaos_(chaos), client_([&] {
        Config config{.home = places.home, .backend = "local"};
        config.log = [log = places.root / "log.txt"](std::string_view message) {
          AppendLine(log, "checker: " + std::string(message));
        };
        return Client(std::move(config));
      }()) {}

template <typename Call>
bool Checker::Must(const std::string& what, Call call) {
  try {
    call();
    return true;
  } catch (const Error& e) {
    Find(fmt::format("after a round, {}: {}: {}", what, ErrorKindName(e.kind()), e.what()));
  } catch (const std::exception& e) {
    Find(fmt::format("after a round, {}: {}", what, e.what()));
  }
  return false;
}

void Checker::Begin() {
  CheckArtifacts();
  CheckSandboxes();
  snapshots_before_ = std::exchange(snapshots_now_, {});
  sandboxes_before_ = std::exchange(sandboxes_now_, {});
}

void Checker::CheckRound() {
  ++rounds_;
  indexed_.clear();
  Must("list", [&] {
    for (const SnapshotHandle& row : Snapshot::List(ctx_, client_)) indexed_.insert(row.Digest());
  });
  CheckSandboxes();
  CheckArtifacts();
  Explain();
  Sweep();
  CheckLeftovers();
  CheckIndex();
  CheckSpace();
  snapshots_before_ = std::exchange(snapshots_now_, {});
  sandboxes_before_ = std::exchange(sandboxes_now_, {});
  for (auto& worker : shared_.slots) {
    for (Slot& slot : worker) slot.used = 0;
  }
  shared_.peer.used = 0;
}

void Checker::Explain() {
  const std::vector<Event> events = EventsOf(shared_);
  AccountRemovals(events);
  CheckIndexed(events);
  std::vector<std::string> wrong =
      Unexplained(Kind::kSnapshots, snapshots_before_, snapshots_now_, events);
  std::ranges::move(Unexplained(Kind::kSandboxes, sandboxes_before_, sandboxes_now_, events),
                    std::back_inserter(wrong));
  std::ranges::move(UnexplainedOrphans(), std::back_inserter(wrong));
  if (wrong.empty()) return;
  const fs::path journal = places_.root / fmt::format("journal-{}.txt", rounds_);
  for (const Event& event : events) AppendLine(journal, event.Describe());
  for (const std::string& text : wrong) Find(fmt::format("round {}: {}", rounds_, text));
}

void Checker::CheckIndexed(const std::vector<Event>& events) {
  const fs::path log_file = places_.root / "log.txt";
  std::string log = fs::exists(log_file) ? test::ReadFile(log_file) : std::string();
  const std::size_t length = log.size();
  log.erase(0, std::exchange(log_read_, length));
  // When a runtime reindexes, it drops the rows of snapshots that were made during its walk.
  if (shared_.has_peer) return;
  for (const Event& event : events) {
    const bool made = event.op == Op::kCreate || event.op == Op::kSquash;
    const auto there = snapshots_now_.find(event.name);
    if (!made || event.unfinished() || event.outcome != kSuccess || there == snapshots_now_.end() ||
        there->second.id != event.id || indexed_.contains(there->second.digest)) {
      continue;
    }
    // A failure to index is logged, not thrown.
    const std::string name = event.name.substr(event.name.starts_with('@') ? 1 : 0);
    if (log.find(fmt::format("/{} is complete, but could not be added", name)) != std::string::npos)
      continue;
    Find(fmt::format("{} was made, but is not in the index: {}", event.name, event.Describe()));
  }
}

void Checker::AccountRemovals(const std::vector<Event>& events) {
  for (const Event& event : events) {
    const bool makes = event.op == Op::kCreate || event.op == Op::kSquash;
    const bool is_outside = event.name.starts_with('@');
    if (makes && event.unfinished() && is_outside) unindexed_.insert(event.id);
    if (event.op == Op::kImport && event.unfinished()) unindexed_imports_ = true;
    if (event.op != Op::kRemove || !event.forced || !event.MayHaveHappened()) continue;
    if (!event.digest.empty()) removed_by_force_.insert(event.digest);
    if (event.name.empty()) continue;
    for (const Namespace* snapshots : {&snapshots_before_, &snapshots_now_}) {
      const auto there = snapshots->find(event.name);
      if (there != snapshots->end()) removed_by_force_.insert(there->second.digest);
    }
    for (const Event& made : events) {
      if (made.name == event.name && !made.digest.empty()) removed_by_force_.insert(made.digest);
    }
  }
}

std::vector<std::string> Checker::UnexplainedOrphans() {
  std::vector<std::string> wrong;
  for (const std::string& orphan : orphans_) {
    ++orphans_seen_;
    bool unindexed = false;  // If so, Remove could not know of the child.
    std::string digest = orphan;
    while (ancestry_.contains(digest) && ancestry_[digest].seen) {
      const Ancestry& ancestry = ancestry_[digest];
      unindexed = unindexed || unindexed_.contains(ancestry.id);
      digest = ancestry.parent;
    }
    if (unindexed || unindexed_imports_ || removed_by_force_.contains(digest)) continue;
    wrong.push_back(
        fmt::format("overlay {} (id {}) lacks {} (id {}), which was not removed by force", orphan,
                    ancestry_[orphan].id, digest, ancestry_[digest].id));
  }
  orphans_.clear();
  for (auto& [digest, ancestry] : ancestry_) ancestry.seen = false;
  return wrong;
}

void Checker::CheckArtifacts() {
  for (const std::string& name : VisibleIn(snapshots_)) {
    const fs::path path = snapshots_ / name;
    if (!chaos_.IsPlaced(path)) CheckArtifact(name, path);
  }
  for (const std::string& name : VisibleIn(places_.outside)) {
    CheckArtifact("@" + name, places_.outside / name);
  }
}

void Checker::CheckArtifact(const std::string& name, const fs::path& path) {
  // A group of a 0.7 runtime.
  if (fs::exists(path / "group.json")) return;
  Must("open the snapshot " + name, [&] {
    const SnapshotArtifact artifact = Snapshot::Open(ctx_, path.native(), client_);
    snapshots_now_[name] = {NumberOf(LabelOf(artifact, "id")), artifact.Digest()};
    const fs::path manifest =
        path / (fs::exists(path / "snapshot.json") ? "snapshot.json" : "manifest.json");
    const std::string digest = base::Sha256Digest(test::ReadFile(manifest));
    if (digest != artifact.Digest()) {
      Find(fmt::format("{} says {}, but its manifest is {}", name, artifact.Digest(), digest));
    }
    ancestry_[digest] = {snapshots_now_[name].id, artifact.Parent().value_or(""), true};
    CheckContent(name, artifact);
  });
}

void Checker::CheckContent(const std::string& name, const SnapshotArtifact& artifact) {
  const fs::path disk = places_.scratch / "checked.raw";
  try {
    const SnapshotVerifyReport report = artifact.Verify(ctx_);
    const bool recorded = LabelOf(artifact, "integrity") == "1";
    if (report.upper.kind != "verified" && recorded) {
      Find(fmt::format("{} has no integrity, which was asked for", name));
    }
    Snapshot::Flatten(ctx_, artifact.Path(), disk.native(), {}, client_);
  } catch (const Error& e) {
    // Its parent may have been removed by force.
    const bool orphan = e.kind() == ErrorKind::kSnapshotNotFound && artifact.Format() == "qcow2" &&
                        fs::exists(artifact.Path());
    if (!orphan) throw;
    orphans_.push_back(artifact.Digest());
    return;
  }
  if (LabelOf(artifact, "id").empty()) return;
  const auto content = ReadDisk(disk);
  if (const auto* wrong = std::get_if<std::string>(&content)) {
    return Find(fmt::format("snapshot {} ({}) has wrong content: {}", name, LabelOf(artifact, "id"),
                            *wrong));
  }
  const auto expected = State::Parse(LabelOf(artifact, "state"));
  if (!expected || *expected == std::get<State>(content)) return;
  Find(fmt::format("snapshot {} (id {}) has not the content of its label: found {}, expected {}",
                   name, LabelOf(artifact, "id"), std::get<State>(content).ToString(),
                   expected->ToString()));
}

void Checker::CheckSandboxes() {
  for (const std::string& name : VisibleIn(sandboxes_)) {
    // Skip sandboxes that belong to others: those of the chaos thread, and the one of the runtime.
    if (!chaos_.IsPlaced(sandboxes_ / name) && name != "baseline") CheckSandbox(name);
  }
}

void Checker::CheckSandbox(const std::string& name) {
  Must("look at the sandbox " + name, [&] {
    GetSandbox(ctx_, name, client_).Stop(ctx_);
    const SandboxHandle sandbox = GetSandbox(ctx_, name, client_);
    const auto config = nlohmann::json::parse(sandbox.ConfigJSON());
    sandboxes_now_[name] = {NumberOf(config.at("labels").value("id", std::string())), ""};
    for (int worker = 0; worker < kWorkers; ++worker) {
      for (int i = 0; i < kOwnSandboxes; ++i) {
        const bool torn =
            shared_.torn[static_cast<std::size_t>(worker)][static_cast<std::size_t>(i)];
        if (torn && name == OwnSandboxName(worker, i)) return;
      }
    }
    const SandboxUpper upper = sandbox.Upper();
    const auto content = ReadDisk(upper.path, upper.format, places_.scratch / "sandbox.raw");
    if (const auto* wrong = std::get_if<std::string>(&content)) {
      Find(fmt::format("sandbox {} has wrong content: {}", name, *wrong));
    }
  });
}

void Checker::Sweep() {
  // The image is a new one, so that storing it sweeps the cache, too.
  const fs::path image = places_.images / "sweep.raw";
  fs::remove(image);
  fs::copy_file(places_.images / "small.raw", image);
  const fs::path flat = places_.out / "sweep.raw";
  const fs::path archive = places_.out / "sweep.tar";
  Must("make a sandbox", [&] {
    CreateSandbox(ctx_, "sweep", {WithImage(image.native()), WithReplace()}, client_).Close();
  });
  Must("make a snapshot",
       [&] { Snapshot::Create(ctx_, "sweep", {.name = "sweep", .force = true}, client_); });
  Must("make a snapshot outside", [&] {
    Snapshot::Create(ctx_, "sweep", {.path = places_.outside / "sweep", .force = true}, client_);
  });
  Must("flatten", [&] { Snapshot::Flatten(ctx_, "sweep", flat.native(), {}, client_); });
  Must("export", [&] { Snapshot::Export(ctx_, "sweep", archive.native(), {}, client_); });
  Must("remove a snapshot", [&] { Snapshot::Remove(ctx_, "sweep", true, client_); });
  Must("import", [&] {
    const auto handle = Snapshot::Import(ctx_, archive.native(), "", client_);
    Snapshot::Remove(ctx_, handle.Path(), true, client_);
  });
  Must("remove a snapshot outside",
       [&] { Snapshot::Remove(ctx_, places_.outside / "sweep", true, client_); });
  Must("remove a sandbox", [&] { RemoveSandbox(ctx_, "sweep", client_); });
  for (const auto& [name, seen] : sandboxes_now_) {
    Must("start the sandbox " + name, [&] {
      Sandbox sandbox = StartSandbox(ctx_, name, client_);
      sandbox.Stop(ctx_);
      sandbox.Close();
    });
  }
}

void Checker::CheckLeftovers() {
  for (const fs::path& dir :
       {snapshots_, sandboxes_, places_.home / "cache", places_.out, places_.outside}) {
    if (!fs::exists(dir)) continue;
    for (auto at = fs::recursive_directory_iterator(dir); at != fs::end(at); ++at) {
      const std::string name = at->path().filename();
      if (!name.starts_with('.') || IsOfRuntime(name)) continue;
      // An interrupted pull keeps its stage for the next one.
      if (name.starts_with(".msb-pull-")) {
        at.disable_recursion_pending();
        continue;
      }
      Find("left behind: " + at->path().lexically_relative(places_.root).native());
    }
  }
}

void Checker::CheckIndex() {
  Must("reindex", [&] {
    Snapshot::Reindex(ctx_, "", client_);
    std::map<std::string, std::string> rows;
    for (const SnapshotHandle& handle : Snapshot::List(ctx_, client_)) {
      const fs::path path = handle.Path();
      if (path.parent_path() == snapshots_) rows[path.filename()] = handle.Digest();
    }
    for (const auto& [name, seen] : snapshots_now_) {
      if (name.starts_with("@")) continue;
      const auto row = rows.find(name);
      if (row == rows.end()) {
        // An index may have one row for each digest, while an imported snapshot may exist twice.
        bool other = false;
        for (const auto& [path, digest] : rows) other = other || digest == seen.digest;
        for (const SnapshotHandle& handle : Snapshot::List(ctx_, client_)) {
          other = other || handle.Digest() == seen.digest;
        }
        if (!other) Find(fmt::format("{} is not in the index after Reindex", name));
      } else if (row->second != seen.digest) {
        Find(fmt::format("{} is {}, but {} in the index", name, seen.digest, row->second));
      }
    }
    for (const auto& [name, digest] : rows) {
      if (!snapshots_now_.contains(name)) Find(fmt::format("{} is in the index only", name));
    }
  });
}

void Checker::CheckSpace() {
  const std::uint64_t cached = AllocatedIn(places_.home / "cache");
  if (cached > kMostCached) Find(fmt::format("the cache has grown to {} bytes", cached));
}

void Checker::CheckEmptied() {
  for (const auto& [name, seen] : sandboxes_before_) {
    Must("remove the sandbox " + name, [&] { RemoveSandbox(ctx_, name, client_); });
  }
  for (const auto& [name, seen] : snapshots_before_) {
    if (seen.id == 0) continue;
    const fs::path path =
        name.starts_with("@") ? places_.outside / name.substr(1) : snapshots_ / name;
    Must("remove the snapshot " + name,
         [&] { Snapshot::Remove(ctx_, path.native(), true, client_); });
  }
  for (const fs::path& dir : {snapshots_, sandboxes_, places_.outside}) {
    if (!fs::exists(dir)) continue;
    for (const auto& entry : fs::directory_iterator(dir)) {
      const std::string name = entry.path().filename();
      const auto before = snapshots_before_.find(name);
      const bool kept = name == "baseline" || IsOfRuntime(name) ||
                        fs::exists(entry.path() / "group.json") ||
                        (before != snapshots_before_.end() && before->second.id == 0);
      if (!kept) Find("left after everything was removed: " + entry.path().native());
    }
  }
}

}  // namespace msb::soak
