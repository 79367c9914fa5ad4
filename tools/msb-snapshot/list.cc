// SPDX-License-Identifier: Apache-2.0
//
// list and reindex.

#include <fmt/format.h>

#include <memory>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/document.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/table.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

int List(Session& session) {
  const std::vector<SnapshotHandle> snapshots = Snapshot::List(session.context(), session.client());
  if (session.options.json) {
    Json document = Json::array();
    for (const SnapshotHandle& snapshot : snapshots) document.push_back(ToJson(snapshot));
    session.Print({std::move(document), ""});
    return 0;
  }
  if (session.options.quiet) {
    for (const SnapshotHandle& snapshot : snapshots) Put(fmt::format("{}\n", snapshot.Digest()));
    return 0;
  }
  if (snapshots.empty()) {
    Put(fmt::format(
        "There are no snapshots in {}. To make one: msb-snapshot create NAME --from SANDBOX\n",
        Printable(session.client().config().snapshots_dir.native())));
    return 0;
  }
  Table table({{"NAME"}, {"IMAGE", 4}, {"SIZE", 1}, {"CREATED", 3}, {"DIGEST", 2}});
  for (const SnapshotHandle& snapshot : snapshots) {
    const auto size = snapshot.SizeBytes();
    table.Add({snapshot.Name().value_or(snapshot.Path()), snapshot.ImageRef(),
               size ? HumanBytes(*size) : "-", HumanTime(snapshot.CreatedAt()),
               ShortDigest(snapshot.Digest())});
  }
  table.Print();
  return 0;
}

}  // namespace

void AddList(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const list =
      AddCommand(app, invocation, "list",
                 "List the snapshots in the index, newest first; --quiet prints the digests only");
  list->alias("ls");
  // The runtime's spelling of --json.
  list->add_option_function<std::string>(
          "--format", [&session](const std::string&) { session.options.json = true; },
          "The same as --json")
      ->type_name("json")
      ->check(CLI::IsMember({"json"}).description(""));
  list->callback([&] { invocation.run = [&session] { return List(session); }; });

  CLI::App* const reindex =
      AddCommand(app, invocation, "reindex", "Rebuild the index from the snapshots on disk");
  const auto directory = std::make_shared<std::string>();
  reindex
      ->add_option(kDirectory, *directory, "Directory to index. Default: the snapshots directory")
      ->type_name("")
      ->check(NotEmpty());
  reindex->callback([&, directory] {
    invocation.run = [&session, directory] {
      const std::uint32_t count =
          Snapshot::Reindex(session.context(), *directory, session.client());
      session.Print({{{"indexed", count}},
                     fmt::format("indexed {} in {}\n", Count(count, "snapshot"),
                                 Printable(directory->empty()
                                               ? session.client().config().snapshots_dir.native()
                                               : *directory))});
      return 0;
    };
  });
}

}  // namespace msb::program
