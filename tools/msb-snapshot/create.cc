// SPDX-License-Identifier: Apache-2.0
//
// create and squash.

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/document.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/snapshot_argument.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

// The options of a new snapshot, as they are given.
struct NewSnapshot {
  std::string name = {};
  std::string path = {};
  std::string parent_directory = {};
  std::vector<std::string> labels = {};
  bool integrity = false;
  bool force = false;
  LiveSnapshot live = LiveSnapshot::kOff;
};

void AddOptions(CLI::App& command, NewSnapshot& destination) {
  command.add_option("NAME", destination.name, "Name of the new snapshot")
      ->type_name("")
      ->check(NotEmpty());
  auto* const path =
      command
          .add_option(
              "--path", destination.path,
              "The artifact directory to create, instead of NAME in the snapshots directory")
          ->type_name(kDirectory)
          ->check(NotEmpty());
  command.add_option("--dest-dir", destination.parent_directory, "Create the snapshot in DIR/NAME")
      ->type_name(kDirectory)
      ->check(NotEmpty())
      ->excludes(path);
  AddLabelOption(command, destination.labels);
  command.add_flag("--integrity", destination.integrity,
                   "Record a hash of the content, so that it can be verified");
  command.add_flag("-f,--force", destination.force, "Replace an existing snapshot");
}

// Checks a name that becomes a part of a path, by the rules of the library for names.
void CheckName(const std::string& name) {
  const bool has_invalid = std::ranges::any_of(name, [](char c) {
    return c == '/' || c == '\\' || c == ':' || static_cast<unsigned char>(c) < ' ' || c == '\x7f';
  });
  if (!has_invalid && !name.starts_with('.') && !name.starts_with('~')) return;
  throw Error(
      ErrorKind::kInvalidConfig,
      fmt::format("the name '{}' is invalid with --dest-dir: it must not contain '/', '\\', "
                  "':' or control characters, or begin with '.' or '~'; use --path for a "
                  "path",
                  name));
}

SnapshotCreateOptions CreateOptions(const NewSnapshot& destination) {
  if (destination.name.empty() == destination.path.empty()) {
    throw CLI::ValidationError("give either a name or --path DIR");
  }
  SnapshotCreateOptions options{.name = destination.name,
                                .path = destination.path,
                                .labels = ParseLabels(destination.labels),
                                .force = destination.force,
                                .record_integrity = destination.integrity,
                                .live = destination.live};
  if (!destination.parent_directory.empty()) {
    CheckName(options.name);
    options.path = std::filesystem::path(destination.parent_directory) / options.name;
    options.name.clear();
  }
  return options;
}

// Adds --live and --consistency, which set destination.live.
void AddLiveOptions(CLI::App& command, NewSnapshot& destination) {
  auto* const live = command.add_flag_callback(
      "--live",
      [&destination] {
        if (destination.live == LiveSnapshot::kOff) destination.live = LiveSnapshot::kAuto;
      },
      "Permit a sandbox that is running, and let its guest continue to run (qemu backend)");
  command
      .add_option_function<std::string>(
          "--consistency",
          [&destination](const std::string& level) {
            destination.live = level == "auto"               ? LiveSnapshot::kAuto
                               : level == "crash-consistent" ? LiveSnapshot::kCrashConsistent
                                                             : LiveSnapshot::kFilesystemConsistent;
          },
          "With --live: freeze the guest's file systems if possible (auto, the default), never "
          "(crash-consistent), or fail if they cannot be frozen (filesystem-consistent)")
      ->type_name("auto|crash-consistent|filesystem-consistent")
      ->check(CLI::IsMember({"auto", "crash-consistent", "filesystem-consistent"}).description(""))
      ->needs(live);
}

Report CreatedReport(const SnapshotArtifact& artifact) {
  return {ToJson(artifact),
          fmt::format("created snapshot {} ({}, {})\n", Printable(artifact.Path()),
                      ShortDigest(artifact.Digest()), HumanBytes(artifact.SizeBytes()))};
}

}  // namespace

void AddCreate(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const create =
      AddCommand(app, invocation, "create", "Create a snapshot from a sandbox");
  const auto destination = std::make_shared<NewSnapshot>();
  const auto source = std::make_shared<std::string>();
  AddOptions(*create, *destination);
  create
      ->add_option("--from,--from-sandbox", *source,
                   "The sandbox, which must be stopped unless --live is given")
      ->type_name(kSandbox)
      ->required();
  AddLiveOptions(*create, *destination);
  create->callback([&, destination, source] {
    invocation.run = [&session, source, options = CreateOptions(*destination)] {
      session.Print(
          CreatedReport(Snapshot::Create(session.context(), *source, options, session.client())));
      return 0;
    };
  });

  CLI::App* const squash =
      AddCommand(app, invocation, "squash",
                 "Copy the complete disk of a snapshot into a new one without a parent");
  const auto new_snapshot = std::make_shared<NewSnapshot>();
  const auto old_snapshot = std::make_shared<std::string>();
  squash->add_option(kSnapshot, *old_snapshot, "Name, digest or path of the snapshot")
      ->type_name("")
      ->required();
  AddOptions(*squash, *new_snapshot);
  squash->callback([&, old_snapshot, new_snapshot] {
    invocation.run = [&session, old_snapshot, options = CreateOptions(*new_snapshot)] {
      session.Print(CreatedReport(Snapshot::Squash(
          session.context(), NameOrPath(session, *old_snapshot), options, session.client())));
      return 0;
    };
  });
}

}  // namespace msb::program
