// SPDX-License-Identifier: Apache-2.0
//
// fork, and the commands for sandboxes.

#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/document.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/snapshot_argument.h"
#include "tools/msb-snapshot/table.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

// The options of a new sandbox, as they are given.
struct NewSandbox {
  SandboxConfig config = {};
  QemuConfig machine = {};
  std::vector<std::string> labels = {};
  bool no_start = false;
};

void AddMachineOptions(CLI::App& command, QemuConfig& machine) {
  AddNumberOption(command, "--memory", machine.memory_mib, "Memory of the VM in MiB", 1)
      ->type_name("MIB");
  AddNumberOption(command, "--cpus", machine.cpus, "Number of virtual CPUs", 1)->type_name("COUNT");
  command.add_option("--kernel", machine.kernel, "qemu: kernel to boot")->type_name(kFile);
  command.add_option("--initrd", machine.initrd, "qemu: initial RAM disk of the kernel")
      ->type_name(kFile);
  command.add_option("--append", machine.append, "qemu: command line of the kernel")
      ->type_name("TEXT");
  command
      .add_option("--qemu-arg", machine.extra_arguments,
                  "qemu: an argument to append to QEMU's command line; may be repeated")
      ->type_name("ARG")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
}

void AddCreateOptions(CLI::App& command, Session& session, NewSandbox& sandbox) {
  AddMachineOptions(command, sandbox.machine);
  AddNumberOption(command, "--disk-size", sandbox.config.oci_upper_size_mib,
                  "Size of the writable disk in MiB. Default: that of the image or snapshot", 1)
      ->type_name("MIB");
  AddFormatOption(command, "--disk-format", "Format of the writable disk",
                  [&session](DiskFormat format) { session.upper_format = format; });
  AddLabelOption(command, sandbox.labels);
  command.add_flag("--replace", sandbox.config.replace,
                   "Replace a sandbox of the same name, after stopping it");
  command.add_flag("--no-start", sandbox.no_start, "Do not leave the sandbox running");
}

bool IsSet(const QemuConfig& machine) {
  return !machine.kernel.empty() || !machine.initrd.empty() || !machine.append.empty() ||
         !machine.extra_arguments.empty();
}

// Throws kUnsupportedOperation: the backend would ignore these options.
[[noreturn]] void RefuseOptions(const std::string& backend, std::string_view names) {
  throw Error(ErrorKind::kUnsupportedOperation,
              fmt::format("the {} backend does not support {}; leave them out, or select another "
                          "backend with --backend",
                          backend, names));
}

// Moves the options that are not stored in config itself there.
void Complete(NewSandbox& sandbox) {
  sandbox.config.labels = ParseLabels(sandbox.labels);
  if (sandbox.machine.memory_mib != 0) sandbox.config.memory_mib = sandbox.machine.memory_mib;
  if (sandbox.machine.cpus != 0) sandbox.config.cpus = sandbox.machine.cpus;
  QemuConfig machine = sandbox.machine;
  machine.memory_mib = machine.cpus = 0;  // SandboxConfig has these for every backend.
  if (IsSet(machine)) sandbox.config.qemu = machine;
}

// Returns a client of the same home that creates sandboxes without booting them.
Client NotBooting(const Session& session) {
  Config config = session.ClientConfig();
  config.backend = "local";
  config.log = session.log;
  if (!config.upper_format) config.upper_format = DiskFormat::kQcow2;
  return Client(std::move(config));
}

// Returns a sandbox that was just changed. A cancellation would only hide the change.
SandboxHandle GetChanged(Session& session, const std::string& name) {
  const Context ctx = Context::Background().WithTimeout(std::chrono::seconds(10));
  return GetSandbox(ctx, name, session.client());
}

// Creates a sandbox of the qemu backend without booting it.
Sandbox CreateUnbooted(Session& session, const std::string& name, const SandboxConfig& config) {
  const Client client = NotBooting(session);
  try {
    return CreateSandbox(session.context(), name, config, client);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kUnsupportedOperation || !config.replace) throw;
    if (GetSandbox(session.context(), name, client).Status() != SandboxStatus::kRunning) throw;
  }
  // Only a client of the backend can stop the sandbox that is to be replaced.
  GetSandbox(session.context(), name, session.client()).Stop(session.context());
  return CreateSandbox(session.context(), name, config, client);
}

// Creates a sandbox, and leaves it running if it has a VM.
Report CreateOne(Session& session, const std::string& name, const NewSandbox& sandbox) {
  const std::string backend = session.BackendName();
  // The local backend has no VM, so a sandbox that "runs" would only refuse to be snapshotted.
  const bool start = backend != "local" && !sandbox.no_start;
  if (backend == "microsandbox" && session.upper_format) RefuseOptions(backend, "--disk-format");
  SandboxConfig config = sandbox.config;
  config.snapshot = NameOrPath(session, config.snapshot);
  config.detached = start;
  Sandbox created = backend == "qemu" && !start
                        ? CreateUnbooted(session, name, config)
                        : CreateSandbox(session.context(), name, config, session.client());
  if (!start) created.Stop(Context::Background());
  created.Close();
  const SandboxHandle handle = GetChanged(session, name);
  Json document{{"name", name}};
  document.update(ToJson(handle));
  std::string text =
      fmt::format("created sandbox {} ({})", Printable(name), StatusName(handle.Status()));
  if (const auto upper = UpperOf(handle)) text += "; disk: " + Printable(upper->path);
  return {std::move(document), text + "\n"};
}

int ListAll(Session& session) {
  const std::vector<SandboxHandle> sandboxes = ListSandboxes(session.context(), session.client());
  Json document = Json::array();
  Table table({{"NAME"}, {"STATUS"}, {"CREATED", 1}, {"BASE", 2}});
  for (const SandboxHandle& sandbox : sandboxes) {
    const Json fields = ToJson(sandbox);
    const std::string base =
        fields["upper"].is_null() ? "-" : fields["upper"]["base_digest"].get<std::string>();
    table.Add({sandbox.Name(), std::string(StatusName(sandbox.Status())),
               HumanTime(sandbox.CreatedAt()), ShortDigest(base)});
    document.push_back(fields);
  }
  if (session.options.json) {
    session.Print({std::move(document), ""});
  } else if (session.options.quiet) {
    for (const SandboxHandle& sandbox : sandboxes)
      Put(fmt::format("{}\n", Printable(sandbox.Name())));
  } else if (sandboxes.empty()) {
    Put("There are no sandboxes. To make one: msb-snapshot sandbox create NAME --image FILE\n");
  } else {
    table.Print();
  }
  return 0;
}

Report Changed(Session& session, const std::string& name, std::string_view verb) {
  const SandboxHandle handle = GetChanged(session, name);
  return {ToJson(handle), fmt::format("{} sandbox {}\n", verb, Printable(name))};
}

Report StartOne(Session& session, const std::string& name) {
  Sandbox sandbox = StartSandbox(session.context(), name, session.client());
  sandbox.Detach(session.context());
  return Changed(session, name, "started");
}

Report StopOne(Session& session, const std::string& name, std::int64_t seconds, bool force) {
  const SandboxHandle sandbox = GetSandbox(session.context(), name, session.client());
  if (force) {
    sandbox.Kill(session.context());
  } else {
    sandbox.Stop(session.context(), StopConfig{.timeout = std::chrono::seconds(seconds)});
  }
  return Changed(session, name, "stopped");
}

Report RemoveOne(Session& session, const std::string& name, bool force) {
  try {
    if (force) GetSandbox(session.context(), name, session.client()).Kill(session.context());
  } catch (const Error& e) {
    // A sandbox with a damaged record can only be removed.
    if (e.kind() != ErrorKind::kInvalidConfig) throw;
  }
  RemoveSandbox(session.context(), name, session.client());
  return {{{"name", name}}, fmt::format("removed sandbox {}\n", Printable(name))};
}

// Adds the positional argument for the names of sandboxes.
std::shared_ptr<std::vector<std::string>> AddNames(CLI::App& command) {
  auto names = std::make_shared<std::vector<std::string>>();
  command.add_option(kSandbox, *names, "Names of the sandboxes")->type_name("")->required();
  return names;
}

void AddCreateSandbox(CLI::App& sandbox, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const create =
      AddCommand(sandbox, invocation, "create", "Create a sandbox from an image or a snapshot");
  const auto name = std::make_shared<std::string>();
  const auto options = std::make_shared<NewSandbox>();
  create->add_option("NAME", *name, "Name of the new sandbox")->type_name("")->required();
  auto* const source = create->add_option_group("source");
  source
      ->add_option("--image", options->config.image,
                   "Disk image, raw or qcow2, or an image that the runtime knows")
      ->type_name(kFile)
      ->check(NotEmpty());
  source->add_option("--snapshot", options->config.snapshot, "Name, digest or path of a snapshot")
      ->type_name(kSnapshot)
      ->check(NotEmpty());
  source->require_option(1);
  AddCreateOptions(*create, session, *options);
  create->callback([&, name, options] {
    Complete(*options);
    invocation.run = [&session, name, options] {
      session.Print(CreateOne(session, *name, *options));
      return 0;
    };
  });
}

void AddStart(CLI::App& sandbox, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const start = AddCommand(sandbox, invocation, "start", "Start stopped sandboxes");
  const auto names = AddNames(*start);
  AddMachineOptions(*start, session.qemu);
  start->callback([&, names] {
    invocation.run = [&session, names] {
      const std::string backend = session.BackendName();
      const QemuConfig& machine = session.qemu;
      if (backend != "qemu" && (IsSet(machine) || machine.memory_mib != 0 || machine.cpus != 0)) {
        RefuseOptions(backend, "options of the VM for 'sandbox start'");
      }
      return session.ForEach(*names,
                             [&](const std::string& name) { return StartOne(session, name); });
    };
  });
}

void AddStop(CLI::App& sandbox, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const stop = AddCommand(sandbox, invocation, "stop", "Stop running sandboxes");
  const auto names = AddNames(*stop);
  const auto seconds = std::make_shared<std::int64_t>(10);
  const auto force = std::make_shared<bool>(false);
  AddNumberOption(*stop, "--timeout", *seconds,
                  "Seconds that the guest has to shut down before the VM is ended. Default: 10", 0)
      ->type_name("SECONDS");
  stop->add_flag("-f,--force", *force, "End the VM at once");
  stop->callback([&, names, seconds, force] {
    invocation.run = [&session, names, seconds, force] {
      return session.ForEach(*names, [&](const std::string& name) {
        return StopOne(session, name, *seconds, *force);
      });
    };
  });
}

void AddRemoveSandbox(CLI::App& sandbox, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const remove =
      AddCommand(sandbox, invocation, "remove", "Delete sandboxes and their disks");
  remove->alias("rm");
  const auto names = AddNames(*remove);
  const auto force = std::make_shared<bool>(false);
  remove->add_flag("-f,--force", *force, "End the VM first if it runs");
  remove->callback([&, names, force] {
    invocation.run = [&session, names, force] {
      return session.ForEach(
          *names, [&](const std::string& name) { return RemoveOne(session, name, *force); });
    };
  });
}

void AddConsole(CLI::App& sandbox, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const console =
      AddCommand(sandbox, invocation, "console",
                 "Print the path of the file with the output of a sandbox's console");
  const auto name = std::make_shared<std::string>();
  console->add_option(kSandbox, *name, "Name of the sandbox")->type_name("")->required();
  console->callback([&, name] {
    invocation.run = [&session, name] {
      const std::string path =
          GetSandbox(session.context(), *name, session.client()).Console().native();
      session.Print({{{"name", *name}, {"console", path}}, Printable(path) + "\n"});
      return 0;
    };
  });
}

}  // namespace

void AddFork(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const fork = AddCommand(app, invocation, "fork",
                                    "Create sandboxes from a snapshot, each with its own disk");
  const auto options = std::make_shared<NewSandbox>();
  fork->add_option(kSnapshot, options->config.snapshot, "Name, digest or path of the snapshot")
      ->type_name("")
      ->required();
  const auto names = AddNames(*fork);
  AddCreateOptions(*fork, session, *options);
  fork->callback([&, names, options] {
    Complete(*options);
    invocation.run = [&session, names, options] {
      return session.ForEach(
          *names, [&](const std::string& name) { return CreateOne(session, name, *options); });
    };
  });
}

void AddSandbox(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const sandbox = app.add_subcommand("sandbox", "Manage sandboxes");
  sandbox->require_subcommand(1);
  CLI::App* const list =
      AddCommand(*sandbox, invocation, "list", "List the sandboxes; --quiet prints the names only");
  list->alias("ls");
  list->callback([&] { invocation.run = [&session] { return ListAll(session); }; });
  AddCreateSandbox(*sandbox, invocation);
  AddStart(*sandbox, invocation);
  AddStop(*sandbox, invocation);
  AddRemoveSandbox(*sandbox, invocation);
  AddConsole(*sandbox, invocation);
}

}  // namespace msb::program
