// SPDX-License-Identifier: Apache-2.0
//
// push and pull.

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/document.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/snapshot_argument.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

constexpr const char* kReference = "REFERENCE";
constexpr const char* kPushReferenceHelp = "HOST[:PORT]/REPOSITORY[:TAG]. Default tag: latest";
constexpr const char* kPullReferenceHelp =
    "HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]. Default tag: latest";

// The longest password that is read from standard input, in bytes.
constexpr std::size_t kMaxPasswordBytes = 64 << 10;

struct RegistryArguments {
  std::string reference = {};
  bool password_from_input = false;
  RegistryOptions options = {};
};

// Reads standard input up to the end, without the line feed at the end.
std::string ReadPassword(const Context& ctx) {
  std::string password = ReadInput(ctx, kMaxPasswordBytes);
  while (!password.empty() && (password.back() == '\n' || password.back() == '\r')) {
    password.pop_back();
  }
  return password;
}

// Returns the options, with the password if it is on standard input.
RegistryOptions OptionsOf(const Context& ctx, const RegistryArguments& arguments) {
  RegistryOptions options = arguments.options;
  if (arguments.password_from_input) options.password = ReadPassword(ctx);
  return options;
}

// The bytes that were transferred, and those that did not have to be.
struct Traffic {
  std::uint64_t moved = 0;
  std::uint64_t saved = 0;
};

// Returns the session's context, which also counts the traffic.
Context Counting(Session& session, Traffic& traffic) {
  const Context ctx = session.context();
  return ctx.WithProgress([&traffic, show = ctx.progress()](const Progress& progress) {
    traffic = {progress.bytes_done, progress.bytes_saved};
    if (show) show(progress);
  });
}

int Push(Session& session, const std::string& name, const RegistryArguments& arguments,
         SnapshotPushOptions options) {
  options.registry = OptionsOf(session.context(), arguments);
  Traffic traffic;
  const std::string pushed = Snapshot::Push(Counting(session, traffic), NameOrPath(session, name),
                                            arguments.reference, options, session.client());
  Json document;
  document["name"] = name;
  document["reference"] = pushed;
  document["bytes_sent"] = traffic.moved;
  document["bytes_saved"] = traffic.saved;
  session.Print(
      {std::move(document),
       fmt::format("pushed {} to {} (sent {}, saved {})\n", Printable(name), Printable(pushed),
                   HumanBytes(traffic.moved), HumanBytes(traffic.saved))});
  return 0;
}

int Pull(Session& session, const RegistryArguments& arguments, const std::string& destination,
         SnapshotPullOptions options) {
  options.registry = OptionsOf(session.context(), arguments);
  Traffic traffic;
  const SnapshotHandle head = Snapshot::Pull(Counting(session, traffic), arguments.reference,
                                             destination, options, session.client());
  Json document = ToJson(head);
  document["bytes_received"] = traffic.moved;
  document["bytes_saved"] = traffic.saved;
  session.Print(
      {std::move(document), fmt::format("pulled {} ({}, received {}, saved {})\n",
                                        Printable(head.Path()), ShortDigest(head.Digest()),
                                        HumanBytes(traffic.moved), HumanBytes(traffic.saved))});
  return 0;
}

void AddRegistryOptions(CLI::App& command, RegistryArguments& arguments) {
  RegistryOptions& options = arguments.options;
  command
      .add_option("--username", options.username,
                  "User name at the registry. Default: from docker's configuration")
      ->type_name("NAME");
  command
      .add_flag("--password-stdin", arguments.password_from_input,
                "Read the password or token from standard input")
      ->needs("--username");
  command
      .add_option("--ca-file", options.ca_file,
                  "Trusted CA certificates, a PEM file. Default: those of the system")
      ->type_name(kFile);
  command.add_flag("--plain-http", options.plain_http,
                   "Use HTTP instead of HTTPS, even if the registry is on another machine");
  AddNumberOption(command, "--connections", options.connections,
                  "Number of concurrent requests. Default: 8", 1)
      ->type_name("COUNT");
  AddNumberOption(command, "--retries", options.retries,
                  "Maximum number of retries of a failed request. Default: 5", 0)
      ->type_name("COUNT");
}

void AddPush(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const command =
      AddCommand(app, invocation, "push", "Send a snapshot to an OCI registry");
  const auto name = std::make_shared<std::string>();
  const auto arguments = std::make_shared<RegistryArguments>();
  const auto options = std::make_shared<SnapshotPushOptions>();
  command->add_option(kSnapshot, *name, "Name, digest or path of the snapshot")
      ->type_name("")
      ->required();
  command->add_option(kReference, arguments->reference, kPushReferenceHelp)
      ->type_name("")
      ->required();
  command->add_flag("--with-parents", options->with_parents,
                    "Include every snapshot that it descends from");
  command->add_flag("--with-image", options->with_image, "Include the image");
  AddNumberOption(*command, "--level", options->level, "Compression level, 1 to 19. Default: 3", 1)
      ->type_name("LEVEL");
  AddRegistryOptions(*command, *arguments);
  command->callback([&, name, arguments, options] {
    invocation.run = [&session, name, arguments, options] {
      return Push(session, *name, *arguments, *options);
    };
  });
}

void AddPull(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const command =
      AddCommand(app, invocation, "pull", "Download a snapshot from an OCI registry, and check it");
  const auto destination = std::make_shared<std::string>();
  const auto arguments = std::make_shared<RegistryArguments>();
  const auto options = std::make_shared<SnapshotPullOptions>();
  command->add_option(kReference, arguments->reference, kPullReferenceHelp)
      ->type_name("")
      ->required();
  command->add_option("--name", options->name, "Name for the snapshot. Default: its digest")
      ->type_name("NAME")
      ->check(NotEmpty());
  command
      ->add_option("--dest", *destination,
                   "Directory to pull into. Default: the snapshots directory")
      ->type_name(kDirectory)
      ->check(NotEmpty());
  AddRegistryOptions(*command, *arguments);
  command->callback([&, destination, arguments, options] {
    invocation.run = [&session, destination, arguments, options] {
      return Pull(session, *arguments, *destination, *options);
    };
  });
}

}  // namespace

void AddRegistry(CLI::App& app, Invocation& invocation) {
  AddPush(app, invocation);
  AddPull(app, invocation);
}

}  // namespace msb::program
