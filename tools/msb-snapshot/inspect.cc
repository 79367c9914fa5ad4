// SPDX-License-Identifier: Apache-2.0
//
// inspect, verify and remove.

#include <fmt/format.h>

#include <memory>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/document.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/snapshot_argument.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

int Inspect(Session& session, const std::string& name, bool verify) {
  const SnapshotArtifact artifact = OpenSnapshot(session, name);
  Report report{ToJson(artifact), Details(artifact)};
  if (verify) {
    const SnapshotVerifyReport verified = artifact.Verify(session.context());
    report.document["verification"] = ToJson(verified);
    report.text += Details(verified);
  }
  session.Print(report);
  return 0;
}

Report Verify(Session& session, const std::string& name) {
  const SnapshotVerifyReport verified = OpenSnapshot(session, name).Verify(session.context());
  Report report{{{"name", name}}, {}};
  report.document.update(ToJson(verified));
  report.text = fmt::format("{:<16}{}\n{:<16}{}\n{:<16}{}\n", "Snapshot:", Printable(name),
                            "Digest:", verified.digest, "Path:", Printable(verified.path)) +
                Details(verified);
  return report;
}

Report Remove(Session& session, const std::string& name, bool force) {
  Snapshot::Remove(session.context(), CompleteDigest(session, name), force, session.client());
  return {{{"name", name}}, fmt::format("removed snapshot {}\n", Printable(name))};
}

}  // namespace

void AddInspect(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const inspect = AddCommand(app, invocation, "inspect", "Show what a snapshot records");
  const auto name = std::make_shared<std::string>();
  const auto verify_too = std::make_shared<bool>(false);
  inspect->add_option(kSnapshot, *name, "Name, digest or path of the snapshot")
      ->type_name("")
      ->required();
  inspect->add_flag("--verify", *verify_too, "Verify the content too");
  inspect->callback([&, name, verify_too] {
    invocation.run = [&session, name, verify_too] { return Inspect(session, *name, *verify_too); };
  });

  CLI::App* const verify = AddCommand(app, invocation, "verify",
                                      "Verify the content of snapshots and of their backing files");
  const auto names = std::make_shared<std::vector<std::string>>();
  verify->add_option(kSnapshot, *names, "Names, digests or paths of the snapshots")
      ->type_name("")
      ->required();
  verify->callback([&, names] {
    invocation.run = [&session, names] {
      return session.ForEach(*names,
                             [&](const std::string& each) { return Verify(session, each); });
    };
  });
}

void AddRemove(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const remove = AddCommand(app, invocation, "remove", "Delete snapshots");
  remove->alias("rm");
  const auto names = std::make_shared<std::vector<std::string>>();
  const auto force = std::make_shared<bool>(false);
  remove->add_option(kSnapshot, *names, "Names, digests or paths of the snapshots")
      ->type_name("")
      ->required();
  remove->add_flag("-f,--force", *force,
                   "Delete a snapshot even if others descend from it or a sandbox needs it");
  remove->callback([&, names, force] {
    invocation.run = [&session, names, force] {
      return session.ForEach(
          *names, [&](const std::string& each) { return Remove(session, each, *force); });
    };
  });
}

}  // namespace msb::program
