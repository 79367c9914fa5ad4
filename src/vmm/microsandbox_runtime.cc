// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/microsandbox_runtime.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <system_error>

#include "src/base/fork.h"
#include "src/base/spawn.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::vmm {
namespace {

using base::Throw;
using Words = std::vector<std::string>;

constexpr RuntimeVersion kFirstWithRootDisk{0, 6, 7};      // --oci-upper-size before.
constexpr RuntimeVersion kFirstWithFromSnapshot{0, 6, 7};  // run --snapshot before.
constexpr RuntimeVersion kFirstWithRestore{0, 7, 0};       // run --from-snapshot before.

constexpr std::size_t kMaxMessage = 2000;
constexpr std::uint32_t kMaxCpus = 255;
constexpr std::size_t kMaxExecOutput = std::size_t{16} << 20;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

// Adds an option with its value, as one word if the value would otherwise be mistaken for an
// option.
void AddOption(Words& words, const std::string& option, const std::string& value) {
  if (value.starts_with('-')) {
    words.push_back(fmt::format("{}={}", option, value));
  } else {
    words.insert(words.end(), {option, value});
  }
}

void AddOperand(Words& words, const std::string& value) {
  if (value.starts_with('-')) words.emplace_back("--");
  words.push_back(value);
}

void AddResources(Words& words, const SandboxSpec& spec) {
  if (spec.cpus > kMaxCpus) {
    Throw(ErrorKind::kInvalidArgument, "a microsandbox sandbox has at most {} CPUs, not {}",
          kMaxCpus, spec.cpus);
  }
  if (spec.cpus != 0) AddOption(words, "--cpus", std::to_string(spec.cpus));
  if (spec.memory_mib != 0) AddOption(words, "--memory", fmt::format("{}M", spec.memory_mib));
}

void AddLabels(Words& words, const SandboxSpec& spec) {
  for (const auto& [key, value] : spec.labels) {
    // The runtime takes everything after the first '=' as the value.
    if (key.empty() || key.find('=') != std::string::npos) {
      Throw(
          ErrorKind::kUnsupportedOperation,
          "the microsandbox runtime does not support the label '{}': the key must not be empty or "
          "contain '='",
          base::Quoted(key));
    }
    AddOption(words, "--label", fmt::format("{}={}", key, value));
  }
}

// Uses `create` and not `run`: `run` would start an existing sandbox of that name and, from 0.6.7
// on, run the image's command.
Words CreateFromImage(const RuntimeVersion& version, const SandboxSpec& spec) {
  Words words = {"create"};
  AddOption(words, "--name", spec.name);
  AddResources(words, spec);
  if (spec.upper_size_mib) {
    AddOption(words, version < kFirstWithRootDisk ? "--oci-upper-size" : "--root-disk",
              fmt::format("{}M", *spec.upper_size_mib));
  }
  AddLabels(words, spec);
  AddOperand(words, spec.image);
  return words;
}

void CheckBootable(const SandboxSpec& spec) {
  const SnapshotSource& snapshot = *spec.snapshot;
  if (snapshot.upper.format == DiskFormat::kQcow2 || !snapshot.backing.empty()) {
    Throw(
        ErrorKind::kUnsupportedOperation,
        "the microsandbox backend boots only raw snapshots of one layer, and {} is not one; create "
        "a raw snapshot from it with Snapshot::Squash and boot that",
        snapshot.artifact.native());
  }
  if (spec.upper_size_mib) {
    Throw(
        ErrorKind::kUnsupportedOperation,
        "the microsandbox runtime cannot change the size of a disk that it boots from snapshot {}",
        snapshot.artifact.native());
  }
}

std::vector<Words> CreateFromSnapshot(const RuntimeVersion& version, const SandboxSpec& spec) {
  CheckBootable(spec);
  const std::string& artifact = spec.snapshot->artifact.native();
  Words words = version < kFirstWithRestore ? Words{"run", "--detach"} : Words{"restore"};
  AddOption(words, "--name", spec.name);
  AddResources(words, spec);
  if (version < kFirstWithRestore) {
    AddLabels(words, spec);
    AddOption(words, version < kFirstWithFromSnapshot ? "--snapshot" : "--from-snapshot", artifact);
    return {words};
  }
  AddOperand(words, artifact);
  if (spec.labels.empty()) return {words};
  // `restore` accepts no labels, and a running sandbox accepts them only with --next-start. They
  // are visible at once nevertheless.
  Words labels = {"modify", "--next-start"};
  AddLabels(labels, spec);
  AddOperand(labels, spec.name);
  return {words, labels};
}

Words OnSandbox(Words words, const std::string& name) {
  AddOperand(words, name);
  return words;
}

// Returns what the user can do about an error of the runtime of this kind.
std::string_view StepForRuntimeError(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kIO:
      return "solve the problem that the runtime reports, and try again";
    case ErrorKind::kInvalidConfig:
      return "correct what the runtime names, or install the runtime again";
    case ErrorKind::kInvalidArgument:
      return "correct what the runtime names";
    case ErrorKind::kUnsupportedOperation:
      return "update the runtime, or set Config::msb_path to a newer one";
    case ErrorKind::kSandboxNotFound:
      return "correct the name of the sandbox";
    case ErrorKind::kSandboxAlreadyExists:
      return "choose another name, or pass WithReplace";
    case ErrorKind::kSandboxStillRunning:
      return "stop the sandbox first";
    case ErrorKind::kImageNotFound:
      return "correct the reference of the image, or load the image into the runtime";
    case ErrorKind::kSnapshotNotFound:
      return "correct the name of the snapshot";
    case ErrorKind::kSnapshotImageMissing:
      return "load the image of the snapshot into the runtime";
    default:
      return "restore what the runtime names from a backup, or remove it";
  }
}

// Returns the end of the text, in one line, for messages.
std::string Excerpt(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto last = text.find_last_not_of(kSpace);
  if (last == std::string_view::npos) return "it printed nothing";
  text = text.substr(0, last + 1);
  text.remove_prefix(text.find_first_not_of(kSpace));
  if (text.size() > kMaxMessage) text.remove_prefix(text.size() - kMaxMessage);
  std::string line(text);
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  return base::Quoted(line, 2 * kMaxMessage);
}

// Returns the rest of the first line that begins with prefix, or nullopt if no line does.
std::optional<std::string_view> LineAfter(std::string_view text, std::string_view prefix) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (line.starts_with(prefix)) return line.substr(prefix.size());
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  return std::nullopt;
}

// Returns true if `run` warned that it started an existing sandbox of that name.
bool HasAdopted(std::string_view message) {
  const auto warning = LineAfter(message, "warn: sandbox '");
  return warning && warning->find("' already exists") != std::string_view::npos;
}

// Returns the kind of error if `exec` failed rather than the command that it ran: the exit status
// and the standard error of both are the same. The runtime's message is then all of the standard
// error.
std::optional<ErrorKind> KindOfExecFailure(const base::CommandResult& result) {
  constexpr int kNotFound = 127;
  constexpr int kNotExecutable = 126;
  const std::string_view message = result.error;
  const int status = result.exit_status;
  if (message.starts_with("error: failed to exec \"") &&
      (status == kNotFound || status == kNotExecutable || status == 1)) {
    return ErrorKind::kInvalidConfig;
  }
  if (status != 1) return std::nullopt;
  constexpr std::array<std::pair<std::string_view, ErrorKind>, 8> kFailures = {{
      {"error: sandbox not found", ErrorKind::kSandboxNotFound},
      {"error: connect to ", ErrorKind::kIO},
      {"error: exec session ended", ErrorKind::kIO},
      {"error: exec failed", ErrorKind::kIO},
      {"error: database error", ErrorKind::kIO},
      {"error: local database was updated by a newer msb", ErrorKind::kUnsupportedOperation},
      {"error: runtime error: ", ErrorKind::kIO},
      {"error: microsandbox runtime", ErrorKind::kInvalidConfig},
  }};
  for (const auto& [text, kind] : kFailures) {
    if (message.starts_with(text)) return kind;
  }
  return std::nullopt;
}

// Returns the program file that path leads to through symbolic links, and its stamp, which shows
// when the program is replaced. The stamp is not set if there is no such file.
std::pair<std::filesystem::path, std::optional<base::FileStamp>> Resolve(
    const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::path file = std::filesystem::canonical(path, error);
  if (error) return {path, std::nullopt};
  auto stamp = base::StampOf(file);
  return {std::move(file), stamp};
}

}  // namespace

std::optional<RuntimeVersion> ParseRuntimeVersion(std::string_view output) {
  RuntimeVersion version{};
  const std::size_t start = output.find_first_of("0123456789");
  // The output is "msb 0.6.18" and a line end. A number elsewhere is not a version.
  if (start == std::string_view::npos || output.substr(0, start) != "msb ") return std::nullopt;
  const char* at = output.data() + start;
  const char* const end = output.data() + output.size();
  for (int& part : version) {
    if (&part != &version[0] && (at == end || *at++ != '.')) return std::nullopt;
    const auto [next, error] = std::from_chars(at, end, part);
    if (error != std::errc() || part < 0) return std::nullopt;
    at = next;
  }
  return version;
}

std::vector<Words> CreateCommands(const RuntimeVersion& version, const SandboxSpec& spec) {
  if (spec.snapshot) return CreateFromSnapshot(version, spec);
  return {CreateFromImage(version, spec)};
}

Words ExecArguments(const std::string& name, const Words& command, const ExecOptions& options) {
  if (name.starts_with('-')) {
    Throw(
        ErrorKind::kUnsupportedOperation,
        "the microsandbox runtime takes the name of sandbox '{}' for an option; create the sandbox "
        "with a name that does not begin with '-'",
        base::Quoted(name));
  }
  // --stream passes the input and both outputs on byte by byte.
  Words words = {"exec", "--quiet", "--no-tty", "--stream"};
  for (const auto& [key, value] : options.env) {
    AddOption(words, "--env", fmt::format("{}={}", key, value));
  }
  if (!options.cwd.empty()) AddOption(words, "--workdir", options.cwd);
  if (!options.user.empty()) AddOption(words, "--user", options.user);
  words.insert(words.end(), {name, "--"});
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

ErrorKind KindOfRuntimeError(std::string_view message) {
  // Matched against the beginning of the error line. The first match counts.
  constexpr std::array<std::pair<std::string_view, ErrorKind>, 23> kMeanings = {{
      {"sandbox not found", ErrorKind::kSandboxNotFound},
      {"sandbox already exists", ErrorKind::kSandboxAlreadyExists},
      {"sandbox still running", ErrorKind::kSandboxStillRunning},
      {"image error", ErrorKind::kImageNotFound},
      {"image not found", ErrorKind::kImageNotFound},
      {"invalid config: disk image does not exist", ErrorKind::kImageNotFound},
      {"invalid config: rootfs bind path does not exist", ErrorKind::kImageNotFound},
      {"snapshot not found", ErrorKind::kSnapshotNotFound},
      {"snapshot image missing", ErrorKind::kSnapshotImageMissing},
      {"snapshot integrity check failed: snapshot base image", ErrorKind::kSnapshotImageMissing},
      {"snapshot integrity check failed", ErrorKind::kSnapshotIntegrity},
      {"invalid config", ErrorKind::kInvalidConfig},
      {"libkrunfw not found", ErrorKind::kInvalidConfig},
      {"microsandbox runtime installation is incomplete", ErrorKind::kInvalidConfig},
      {"microsandbox runtime is not installed", ErrorKind::kInvalidConfig},
      {"io error", ErrorKind::kIO},
      {"database error", ErrorKind::kIO},
      {"local database was updated by a newer msb", ErrorKind::kUnsupportedOperation},
      {"runtime error: database schema is newer", ErrorKind::kUnsupportedOperation},
      {"connect to ", ErrorKind::kIO},
      {"invalid value", ErrorKind::kInvalidArgument},
      {"unexpected argument", ErrorKind::kUnsupportedOperation},
      {"unrecognized subcommand", ErrorKind::kUnsupportedOperation},
  }};
  if (HasAdopted(message)) return ErrorKind::kSandboxAlreadyExists;
  const std::string_view error = LineAfter(message, "error: ").value_or("");
  for (const auto& [text, kind] : kMeanings) {
    if (error.starts_with(text)) return kind;
  }
  return ErrorKind::kIO;
}

std::filesystem::path MicrosandboxRuntime::Find() const {
  const bool configured = !configured_.empty();
  std::filesystem::path wanted =
      configured ? configured_ : std::filesystem::path(Environment("MSB_PATH"));
  if (wanted.empty()) wanted = "msb";
  std::filesystem::path program = base::FindProgram(wanted);
  if (!program.empty() && Resolve(program).second) return program;
  Throw(ErrorKind::kInvalidConfig,
        "cannot find the microsandbox runtime '{}': install it, or set {}Config::msb_path",
        base::Quoted(wanted.native()), configured ? "" : "MSB_PATH or ");
}

RuntimeVersion MicrosandboxRuntime::VersionOf(const Context& ctx,
                                              const std::filesystem::path& program) {
  const auto [file, stamp] = Resolve(program);
  {
    const base::ForkSafeSection section;
    const std::lock_guard lock(mutex_);
    const auto known = versions_.find(file);
    if (known != versions_.end() && stamp && known->second.first.SameContent(*stamp)) {
      return known->second.second;
    }
  }
  // Not under the lock: the program may take a while, and each caller has its own context.
  const std::string output = Run(ctx, program, "get the version of the runtime", {"--version"});
  const auto version = ParseRuntimeVersion(output);
  if (!version) {
    Throw(ErrorKind::kInvalidConfig,
          "{} is not a microsandbox runtime: expected a version like 'msb 0.6.18', found '{}'; set "
          "Config::msb_path to the runtime",
          program.native(), base::Quoted(output));
  }
  if (stamp) {
    const base::ForkSafeSection section;
    const std::lock_guard lock(mutex_);
    versions_.insert_or_assign(file, std::pair(*stamp, *version));
  }
  return *version;
}

base::Command MicrosandboxRuntime::CommandOf(const std::filesystem::path& program,
                                             const Words& arguments) const {
  base::Command command{.program = program,
                        .arguments = arguments,
                        .environment = {{"MSB_HOME", home_.native()},
                                        // For the runtime, this variable selects this machine or a
                                        // cloud.
                                        {"MSB_BACKEND", "local"},
                                        // Its output is parsed, so it must have no colors. Some
                                        // messages honor the first of these variables, some the
                                        // second.
                                        {"NO_COLOR", "1"},
                                        {"CLICOLOR_FORCE", "0"}}};
  // If MSB_PATH is set, the runtime starts its VMs with the program that it names.
  if (!Environment("MSB_PATH").empty()) {
    command.environment.emplace_back("MSB_PATH", std::filesystem::absolute(program).native());
  }
  return command;
}

std::string MicrosandboxRuntime::Run(const Context& ctx, const std::filesystem::path& program,
                                     const std::string& action, const Words& arguments,
                                     const std::string& mark) const {
  base::Command command = CommandOf(program, arguments);
  if (!mark.empty()) command.environment.emplace_back(kMark, mark);
  base::CommandResult result = base::RunCommand(ctx, command);
  if (result.exit_status == 0 && !HasAdopted(result.error)) return std::move(result.output);
  const std::string& message = result.error.empty() ? result.output : result.error;
  const ErrorKind kind = KindOfRuntimeError(message);
  Throw(kind, "cannot {}: {} {} ended with status {}: {}; {}", action, program.native(),
        arguments.front(), result.exit_status, Excerpt(message), StepForRuntimeError(kind));
}

ExecResult MicrosandboxRuntime::Exec(const Context& ctx, const std::string& name,
                                     const Words& command, const ExecOptions& options) const {
  base::Command program = CommandOf(Find(), ExecArguments(name, command, options));
  program.input = options.input;
  program.max_output = kMaxExecOutput;
  base::CommandResult result = base::RunCommand(ctx, program);
  if (result.is_truncated) {
    Throw(ErrorKind::kIO,
          "'{}' in sandbox '{}' wrote more than {} bytes; let it write to a file in the sandbox",
          base::Quoted(command.front()), name, kMaxExecOutput);
  }
  if (const auto kind = KindOfExecFailure(result)) {
    Throw(*kind, "cannot run '{}' in sandbox '{}': {}; {}", base::Quoted(command.front()), name,
          Excerpt(result.error), StepForRuntimeError(*kind));
  }
  return {.exit_code = result.exit_status,
          .out = std::move(result.output),
          .err = std::move(result.error)};
}

void MicrosandboxRuntime::CheckCanCreate(const Context& ctx, const SandboxSpec& spec) {
  if (spec.qemu) {
    Throw(ErrorKind::kUnsupportedOperation,
          "WithQemu requires the qemu backend, but the client uses the microsandbox backend");
  }
  CreateCommands(VersionOf(ctx, Find()), spec);
}

void MicrosandboxRuntime::Create(const Context& ctx, const SandboxSpec& spec,
                                 const std::string& mark) {
  const std::filesystem::path program = Find();
  for (const Words& words : CreateCommands(VersionOf(ctx, program), spec)) {
    Run(ctx, program, fmt::format("create sandbox '{}'", base::Quoted(spec.name)), words, mark);
  }
}

void MicrosandboxRuntime::Start(const Context& ctx, const std::string& name,
                                const std::string& mark) {
  Run(ctx, Find(), fmt::format("start sandbox '{}'", base::Quoted(name)),
      OnSandbox({"start"}, name), mark);
}

void MicrosandboxRuntime::Stop(const Context& ctx, const std::string& name,
                               std::chrono::milliseconds timeout) {
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(timeout).count();
  Run(ctx, Find(), fmt::format("stop sandbox '{}'", base::Quoted(name)),
      OnSandbox({"stop", "-t", std::to_string(seconds)}, name));
}

void MicrosandboxRuntime::Kill(const Context& ctx, const std::string& name) {
  Run(ctx, Find(), fmt::format("kill sandbox '{}'", base::Quoted(name)),
      OnSandbox({"stop", "--force"}, name));
}

void MicrosandboxRuntime::Remove(const Context& ctx, const std::string& name) {
  Run(ctx, Find(), fmt::format("remove sandbox '{}'", base::Quoted(name)),
      OnSandbox({"remove"}, name));
}

void MicrosandboxRuntime::ForceRemove(const Context& ctx, const std::string& name) {
  Run(ctx, Find(), fmt::format("remove sandbox '{}'", base::Quoted(name)),
      OnSandbox({"remove", "--force"}, name));
}

}  // namespace msb::vmm
