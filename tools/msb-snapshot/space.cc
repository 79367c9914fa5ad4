// SPDX-License-Identifier: Apache-2.0
//
// df and prune.

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <system_error>
#include <utility>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/document.h"
#include "tools/msb-snapshot/exit_code.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/table.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

std::string NameOf(const SnapshotUsage& usage) { return usage.name.value_or(usage.path); }

Json SpaceDocument(const SnapshotUsage& usage) {
  return {{"apparent_bytes", usage.apparent},
          {"allocated_bytes", usage.allocated},
          {"exclusive_bytes", usage.exclusive}};
}

Json UsageDocument(const std::vector<SnapshotUsage>& usages, const SnapshotUsage& total) {
  Json snapshots = Json::array();
  for (const SnapshotUsage& usage : usages) {
    Json document{{"name", usage.name ? Json(*usage.name) : Json(nullptr)},
                  {"digest", usage.digest},
                  {"artifact_path", usage.path}};
    document.update(SpaceDocument(usage));
    snapshots.push_back(std::move(document));
  }
  return {{"snapshots", std::move(snapshots)}, {"total", SpaceDocument(total)}};
}

int ShowUsage(Session& session) {
  std::vector<SnapshotUsage> usages = Snapshot::Usage(session.context(), session.client());
  std::ranges::stable_sort(usages, std::ranges::greater(), &SnapshotUsage::allocated);
  SnapshotUsage total;
  Table table({{"NAME"}, {"SIZE", 2}, {"USED"}, {"EXCLUSIVE"}, {"DIGEST", 3}});
  const auto add = [&](const std::string& name, const SnapshotUsage& usage) {
    table.Add({name, HumanBytes(usage.apparent), HumanBytes(usage.allocated),
               HumanBytes(usage.exclusive), ShortDigest(usage.digest)});
  };
  for (const SnapshotUsage& usage : usages) {
    add(NameOf(usage), usage);
    total.apparent += usage.apparent;
    total.allocated += usage.allocated;
    total.exclusive += usage.exclusive;
  }
  add("TOTAL", total);
  if (session.options.json || usages.empty()) {
    session.Print({UsageDocument(usages, total), "There are no snapshots.\n"});
  } else if (!session.options.quiet) {
    table.Print();
  }
  return 0;
}

// What a prune is to remove, as it is given.
struct Rules {
  SnapshotPruneOptions options = {};
  std::vector<std::string> labels = {};
};

// Returns how many bytes removing each snapshot alone would free, by its path, or nullopt if that
// cannot be determined.
std::optional<std::map<std::string, std::uint64_t>> ExclusiveByPath(Session& session) {
  try {
    std::map<std::string, std::uint64_t> exclusive;
    for (const SnapshotUsage& usage : Snapshot::Usage(session.context(), session.client())) {
      exclusive[usage.path] = usage.exclusive;
    }
    return exclusive;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kIO) throw;
    return std::nullopt;  // That must not keep a full disk full.
  }
}

// Returns what Prune is going to remove, without printing the warnings that Prune prints.
std::vector<SnapshotHandle> Planned(Session& session, SnapshotPruneOptions options) {
  Config config = session.ClientConfig();
  config.log = [](std::string_view) {};
  options.dry_run = true;
  return Snapshot::Prune(session.context(), options, Client(std::move(config)));
}

// Returns those of the planned snapshots that are no longer there.
std::vector<SnapshotHandle> RemovedOf(const std::vector<SnapshotHandle>& planned) {
  std::vector<SnapshotHandle> removed;
  std::error_code error;
  std::ranges::copy_if(planned, std::back_inserter(removed), [&](const SnapshotHandle& snapshot) {
    return !std::filesystem::exists(snapshot.Path(), error);
  });
  return removed;
}

// Returns the report on the snapshots that were removed or, with dry_run, would be. exclusive is
// what ExclusiveByPath returned.
Report PruneReport(const std::vector<SnapshotHandle>& pruned, bool dry_run,
                   const std::optional<std::map<std::string, std::uint64_t>>& exclusive) {
  std::uint64_t freed = 0;
  Json snapshots = Json::array();
  std::string text;
  for (const SnapshotHandle& snapshot : pruned) {
    const auto space = exclusive ? exclusive->find(snapshot.Path()) : decltype(exclusive->end())();
    const bool known = exclusive && space != exclusive->end();
    if (known) freed += space->second;
    snapshots.push_back(ToJson(snapshot));
    text += fmt::format("{} snapshot {} ({}{})\n", dry_run ? "would remove" : "removed",
                        Printable(snapshot.Name().value_or(snapshot.Path())),
                        Printable(ShortDigest(snapshot.Digest())),
                        known ? ", " + HumanBytes(space->second) : "");
  }
  if (pruned.empty()) {
    text = "There is nothing to remove.\n";
  } else if (exclusive) {
    text += fmt::format("{}: {} at least {}\n", Count(pruned.size(), "snapshot"),
                        dry_run ? "would free" : "freed", HumanBytes(freed));
  }
  return {{{"dry_run", dry_run},
           {"snapshots", std::move(snapshots)},
           {"freed_bytes", exclusive ? Json(freed) : Json(nullptr)}},
          text};
}

int Prune(Session& session, const SnapshotPruneOptions& options) {
  const auto exclusive = ExclusiveByPath(session);
  const auto prune = [&] {
    session.Print(PruneReport(Snapshot::Prune(session.context(), options, session.client()),
                              options.dry_run, exclusive));
    return kSuccess;
  };
  if (options.dry_run) return prune();
  const std::vector<SnapshotHandle> planned = Planned(session, options);
  try {
    return prune();
  } catch (const Error& e) {
    // What was removed before the failure stays removed.
    Report report = PruneReport(RemovedOf(planned), false, exclusive);
    report.document["error"] = ErrorDocument(e);
    if (report.document["snapshots"].empty()) report.text.clear();
    session.Print(report);
    return session.ExplainFailure(e);
  }
}

void AddUsage(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const df =
      AddCommand(app, invocation, "df",
                 "Show the disk space that each snapshot takes, and that removing it would free");
  df->callback([&] { invocation.run = [&session] { return ShowUsage(session); }; });
}

void AddPrune(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const prune =
      AddCommand(app, invocation, "prune",
                 "Remove old snapshots that no other snapshot and no sandbox depends on");
  const auto rules = std::make_shared<Rules>();
  AddNumberOption(*prune, "--keep-last", rules->options.keep_last, "Keep this many of the newest",
                  0)
      ->type_name("COUNT");
  prune
      ->add_option_function<std::string>(
          "--older-than",
          [rules](const std::string& age) { rules->options.older_than = ParseDuration(age); },
          "Remove only snapshots of at least this age: a number with the unit s, m, h, d or w, "
          "such as 12h or 30d")
      ->type_name("AGE")
      ->check(CLI::Validator(
          [](const std::string& age) {
            return ParseDuration(age) ? std::string()
                                      : fmt::format(
                                            "'{}' must be a number with the unit s, m, h, "
                                            "d or w, such as 30d",
                                            age);
          },
          ""));
  AddLabelOption(*prune, rules->labels, "Consider only snapshots with this label; may be repeated");
  prune->add_flag("-n,--dry-run", rules->options.dry_run, "Show what would be removed");
  prune->callback([&, rules] {
    SnapshotPruneOptions options = rules->options;
    options.labels = ParseLabels(rules->labels);
    if (!options.keep_last && !options.older_than && options.labels.empty()) {
      throw CLI::ValidationError("give --keep-last, --older-than or --label");
    }
    invocation.run = [&session, options] { return Prune(session, options); };
  });
}

}  // namespace

void AddSpace(CLI::App& app, Invocation& invocation) {
  AddUsage(app, invocation);
  AddPrune(app, invocation);
}

}  // namespace msb::program
