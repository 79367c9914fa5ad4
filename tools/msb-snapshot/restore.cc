// SPDX-License-Identifier: Apache-2.0
//
// restore.

#include <fmt/format.h>

#include <memory>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/document.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/snapshot_argument.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

Report RestoreOne(Session& session, const std::string& sandbox, const std::string& snapshot) {
  Snapshot::Restore(session.context(), sandbox, NameOrPath(session, snapshot), session.client());
  const SandboxHandle restored = GetSandbox(session.context(), sandbox, session.client());
  return {ToJson(restored), fmt::format("restored sandbox {} to snapshot {}\n", Printable(sandbox),
                                        Printable(snapshot))};
}

}  // namespace

void AddRestore(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const restore =
      AddCommand(app, invocation, "restore",
                 "Reset a stopped sandbox to a snapshot; changes since its last snapshot are lost");
  const auto sandbox = std::make_shared<std::string>();
  const auto snapshot = std::make_shared<std::string>();
  restore->add_option(kSandbox, *sandbox, "Name of the sandbox")->type_name("")->required();
  restore->add_option(kSnapshot, *snapshot, "Name, digest or path of the snapshot")
      ->type_name("")
      ->required();
  restore->callback([&, sandbox, snapshot] {
    invocation.run = [&session, sandbox, snapshot] {
      session.Print(RestoreOne(session, *sandbox, *snapshot));
      return 0;
    };
  });
}

}  // namespace msb::program
