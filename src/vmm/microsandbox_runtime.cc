#include "src/vmm/microsandbox_runtime.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <system_error>

#include "src/base/command.h"
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

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

// One word where the value would else be taken for an option.
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
    Throw(ErrorKind::kInvalidArgument,
          "the microsandbox runtime gives a sandbox at most {} CPUs, not {}", kMaxCpus, spec.cpus);
  }
  if (spec.cpus != 0) AddOption(words, "--cpus", std::to_string(spec.cpus));
  if (spec.memory_mib != 0) AddOption(words, "--memory", fmt::format("{}M", spec.memory_mib));
}

void AddLabels(Words& words, const SandboxSpec& spec) {
  for (const auto& [key, value] : spec.labels) {
    // The runtime would take what follows the first '=' for the value.
    if (key.empty() || key.find('=') != std::string::npos) {
      Throw(ErrorKind::kUnsupportedOperation,
            "the microsandbox runtime takes no label '{}': a key is not empty and has no '='",
            base::Quoted(key));
    }
    AddOption(words, "--label", fmt::format("{}={}", key, value));
  }
}

// `create`, not `run`: that would start a sandbox that has the name already, and from 0.6.7 on run
// the image's command.
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
    Throw(ErrorKind::kUnsupportedOperation,
          "the microsandbox backend boots raw snapshots of one layer only, and {} is not one; make "
          "one of it with Snapshot::Flatten",
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
  // They cannot be given to `restore`, and a running sandbox takes them only like this; they are
  // seen at once all the same.
  Words labels = {"modify", "--next-start"};
  AddLabels(labels, spec);
  AddOperand(labels, spec.name);
  return {words, labels};
}

Words OnSandbox(Words words, const std::string& name) {
  AddOperand(words, name);
  return words;
}

// For messages: the end of it, in one line.
std::string Excerpt(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto last = text.find_last_not_of(kSpace);
  if (last == std::string_view::npos) return "it said nothing";
  text = text.substr(0, last + 1);
  text.remove_prefix(text.find_first_not_of(kSpace));
  if (text.size() > kMaxMessage) text.remove_prefix(text.size() - kMaxMessage);
  std::string line(text);
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  return base::Quoted(line, 2 * kMaxMessage);
}

// The rest of the first line that begins so; nothing if none does.
std::optional<std::string_view> LineAfter(std::string_view text, std::string_view prefix) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (line.starts_with(prefix)) return line.substr(prefix.size());
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  return std::nullopt;
}

// `run` warns like this when it starts the sandbox of that name that is there already.
bool HasAdopted(std::string_view message) {
  const auto warning = LineAfter(message, "warn: sandbox '");
  return warning && warning->find("' already exists") != std::string_view::npos;
}

// The program file behind path, whatever links lead there, to notice when it is another one.
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
  // "msb 0.6.18" and a line end; a number elsewhere is no version.
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

ErrorKind KindOfRuntimeError(std::string_view message) {
  // By how the line begins; the first that fits counts.
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
  return ErrorKind::kInternal;
}

std::filesystem::path MicrosandboxRuntime::Find() const {
  const bool configured = !configured_.empty();
  std::filesystem::path wanted =
      configured ? configured_ : std::filesystem::path(Environment("MSB_PATH"));
  if (wanted.empty()) wanted = "msb";
  std::filesystem::path program = base::FindProgram(wanted);
  if (!program.empty() && Resolve(program).second) return program;
  Throw(ErrorKind::kInvalidConfig,
        "no microsandbox runtime '{}': install it, or set {}Config::msb_path",
        base::Quoted(wanted.native()), configured ? "" : "MSB_PATH or ");
}

RuntimeVersion MicrosandboxRuntime::VersionOf(const Context& ctx,
                                              const std::filesystem::path& program) {
  const auto [file, stamp] = Resolve(program);
  {
    const std::lock_guard lock(mutex_);
    const auto known = versions_.find(file);
    if (known != versions_.end() && stamp && known->second.first.SameContent(*stamp)) {
      return known->second.second;
    }
  }
  // Not under the lock: it may take its time, and each caller has its own context.
  const std::string output = Run(ctx, program, "tell the version of the runtime", {"--version"});
  const auto version = ParseRuntimeVersion(output);
  if (!version) {
    Throw(
        ErrorKind::kInvalidConfig,
        "{} is no microsandbox runtime: as its version it says '{}', not 'msb 0.6.18' or the like",
        program.native(), base::Quoted(output));
  }
  if (stamp) {
    const std::lock_guard lock(mutex_);
    versions_.insert_or_assign(file, std::pair(*stamp, *version));
  }
  return *version;
}

std::string MicrosandboxRuntime::Run(const Context& ctx, const std::filesystem::path& program,
                                     const std::string& action, const Words& arguments,
                                     const std::string& mark) const {
  base::Command command{.program = program,
                        .arguments = arguments,
                        .environment = {{"MSB_HOME", home_.native()},
                                        // To the runtime it means this machine, or a cloud.
                                        {"MSB_BACKEND", "local"},
                                        // What it says is read; some messages heed the one, some
                                        // the other.
                                        {"NO_COLOR", "1"},
                                        {"CLICOLOR_FORCE", "0"}}};
  if (!mark.empty()) command.environment.emplace_back(kMark, mark);
  // The runtime starts its VMs with the one that this names.
  if (!Environment("MSB_PATH").empty()) {
    command.environment.emplace_back("MSB_PATH", std::filesystem::absolute(program).native());
  }
  base::CommandResult result = base::RunCommand(ctx, command);
  if (result.exit_status == 0 && !HasAdopted(result.error)) return std::move(result.output);
  const std::string& message = result.error.empty() ? result.output : result.error;
  Throw(KindOfRuntimeError(message), "cannot {}: {} {} ended with status {}: {}", action,
        program.native(), arguments.front(), result.exit_status, Excerpt(message));
}

void MicrosandboxRuntime::CheckCanCreate(const Context& ctx, const SandboxSpec& spec) {
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
