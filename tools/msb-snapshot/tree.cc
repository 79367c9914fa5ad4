// SPDX-License-Identifier: Apache-2.0
//
// tree: which snapshot descends from which, and which sandboxes were made from them.

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/document.h"
#include "tools/msb-snapshot/snapshot_argument.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

// The strings that a tree is drawn with.
struct Lines {
  std::string_view branch, last, pass, blank;
};

const Lines& LinesOfLocale() {
  static const Lines utf8{"├── ", "└── ", "│   ", "    "};
  static const Lines ascii{"|-- ", "`-- ", "|   ", "    "};
  return IsUtf8Locale() ? utf8 : ascii;
}

// The snapshots and sandboxes of a home, by the snapshot that they descend from.
class Lineage {
 public:
  // If there are several copies of a snapshot, the others descend from the one at the path that
  // find_path returns for its digest.
  Lineage(std::vector<SnapshotHandle> snapshots, const std::vector<SandboxHandle>& sandboxes,
          const std::function<std::string(const std::string& digest)>& find_path)
      : snapshots_(std::move(snapshots)) {
    // Oldest first, as a history is read.
    std::ranges::stable_sort(snapshots_, {}, &SnapshotHandle::CreatedAt);
    std::map<std::string, std::size_t> known;
    for (std::size_t i = 0; i < snapshots_.size(); ++i) {
      const auto [copy, is_new] = known.emplace(snapshots_[i].Digest(), i);
      if (!is_new && snapshots_[i].Path() == find_path(copy->first)) copy->second = i;
      // Release 0.7 names parents by their id, which is also the name of their directory.
      known.emplace(std::filesystem::path(snapshots_[i].Path()).filename().native(), i);
    }
    for (std::size_t i = 0; i < snapshots_.size(); ++i) {
      const auto parent = known.find(snapshots_[i].ParentDigest().value_or(""));
      if (parent == known.end() || parent->second == i) {
        roots_.push_back(i);
      } else {
        children_[parent->second].push_back(i);
      }
    }
    // The list has the newest sandbox first.
    for (auto sandbox = sandboxes.rbegin(); sandbox != sandboxes.rend(); ++sandbox) {
      const auto upper = UpperOf(*sandbox);
      const auto base = known.find(upper ? upper->base_digest : "");
      if (base != known.end()) sandboxes_[base->second].push_back(*sandbox);
    }
  }

  bool empty() const { return snapshots_.empty(); }

  Json Document() const {
    Json roots = Json::array();
    for (const std::size_t root : roots_) roots.push_back(Node(root));
    return {{"roots", std::move(roots)}};
  }

  std::string Text() const {
    std::string text;
    for (const std::size_t root : roots_) text += Title(root) + "\n" + Branches(root, "");
    return text;
  }

 private:
  template <typename Map>
  static typename Map::mapped_type At(const Map& map, std::size_t i) {
    const auto found = map.find(i);
    return found == map.end() ? typename Map::mapped_type() : found->second;
  }

  Json Node(std::size_t i) const {
    Json node = ToJson(snapshots_[i]);
    node["sandboxes"] = Json::array();
    for (const SandboxHandle& sandbox : At(sandboxes_, i)) {
      node["sandboxes"].push_back(
          {{"name", sandbox.Name()}, {"status", StatusName(sandbox.Status())}});
    }
    node["children"] = Json::array();
    for (const std::size_t child : At(children_, i)) node["children"].push_back(Node(child));
    return node;
  }

  std::string Title(std::size_t i) const {
    const SnapshotHandle& snapshot = snapshots_[i];
    const bool incomplete = snapshot.ParentDigest() && std::ranges::count(roots_, i) > 0;
    return fmt::format("{}  {}{}",
                       Colored(Color::kBold, Printable(snapshot.Name().value_or(snapshot.Path()))),
                       Printable(ShortDigest(snapshot.Digest())),
                       incomplete ? fmt::format("  (parent {} is absent)",
                                                Printable(ShortDigest(*snapshot.ParentDigest())))
                                  : "");
  }

  std::string Branches(std::size_t i, const std::string& indent) const {
    const Lines& lines = LinesOfLocale();
    const auto sandboxes = At(sandboxes_, i);
    const auto children = At(children_, i);
    std::size_t left = sandboxes.size() + children.size();
    std::string text;
    for (const SandboxHandle& sandbox : sandboxes) {
      text += fmt::format("{}{}{} (sandbox, {})\n", indent, --left == 0 ? lines.last : lines.branch,
                          Printable(sandbox.Name()), StatusName(sandbox.Status()));
    }
    for (const std::size_t child : children) {
      const bool last = --left == 0;
      text += fmt::format("{}{}{}\n", indent, last ? lines.last : lines.branch, Title(child));
      text += Branches(child, indent + std::string(last ? lines.blank : lines.pass));
    }
    return text;
  }

  std::vector<SnapshotHandle> snapshots_;
  // Snapshots whose records name each other as parents, so that none of them is a root, cannot be
  // reached and are left out; `verify` reports them.
  std::vector<std::size_t> roots_;
  std::map<std::size_t, std::vector<std::size_t>> children_;
  std::map<std::size_t, std::vector<SandboxHandle>> sandboxes_;
};

}  // namespace

void AddTree(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const tree = AddCommand(app, invocation, "tree",
                                    "Show snapshots, their children and their sandboxes as a tree");
  tree->callback([&] {
    invocation.run = [&session] {
      const Lineage lineage(
          Snapshot::List(session.context(), session.client()),
          ListSandboxes(session.context(), session.client()),
          [&](const std::string& digest) { return PathInIndex(session, digest); });
      session.Print(
          {lineage.Document(), lineage.empty() ? "There are no snapshots.\n" : lineage.Text()});
      return 0;
    };
  });
}

}  // namespace msb::program
