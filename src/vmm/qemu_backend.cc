// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "src/base/fork.h"
#include "src/base/json.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/unix_socket.h"
#include "src/vmm/guest_exec.h"
#include "src/vmm/qemu_accelerator.h"
#include "src/vmm/qemu_agent.h"
#include "src/vmm/qemu_events.h"
#include "src/vmm/qemu_live_disk.h"
#include "src/vmm/qemu_machine.h"
#include "src/vmm/qemu_nodes.h"
#include "src/vmm/qmp_client.h"
#include "src/vmm/run_lock.h"

namespace msb::vmm {
namespace {

using base::Json;
using base::ProcessHandle;
using base::Throw;
using base::UniqueFd;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kPidFile = "qemu.pid";
constexpr const char* kLogFile = "qemu.log";
constexpr const char* kConsoleFile = "console.log";

// How long QEMU may take to open its disks and accept commands. The boot of the guest has no limit.
constexpr auto kReadyTimeout = seconds(30);
// The interval at which the power button is pressed.
constexpr auto kPressAgain = seconds(1);
// How long QEMU may take to answer a command, and to end after "quit".
constexpr auto kAnswerTimeout = seconds(2);
// How long the kernel may take to end QEMU: kKillGrace even if the context has ended, then
// kKillTimeout unless the context ends.
constexpr auto kKillGrace = seconds(1);
constexpr auto kKillTimeout = seconds(30);
// The interval at which the lock of a QEMU process that cannot be waited for is checked.
constexpr auto kLockPollInterval = milliseconds(10);
// How long the firmware waits, after it has found nothing to boot, before it resets the VM.
constexpr auto kNothingToBoot = milliseconds(1000);
constexpr std::size_t kMaxLogBytes = 2000;

// Returns the end of QEMU's output, for messages.
std::string LogOf(int dir) {
  const base::Entry log = base::OpenEntryAt(dir, kLogFile);
  if (!log.fd) return {};
  std::string text = base::ReadAll(log.fd.get(), 1 << 20).value_or("");
  while (text.ends_with('\n')) text.pop_back();
  if (text.size() > kMaxLogBytes) text.erase(0, text.size() - kMaxLogBytes);
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return base::IsUtf8(text) && !base::HasControlCharacter(text) ? text : base::Quoted(text);
}

// Sends QEMU a command without arguments. Returns false if that fails or QEMU does not answer in
// time. A "quit" counts as sent if the connection fails, since QEMU may have ended.
bool Ask(const Context& ctx, int dir, const std::string& command) {
  try {
    const Context limited = ctx.WithTimeout(kAnswerTimeout);
    UniqueFd socket = base::TryConnectAt(limited, dir, kQmpSocketFile);
    if (!socket) return false;
    QmpClient(limited, std::move(socket)).Execute(limited, command);
    return true;
  } catch (const Error& e) {
    // QEMU may end before it answers. If it hangs, the caller takes stronger measures.
    return e.kind() != ErrorKind::kCancelled && command == "quit";
  }
}

// Presses the power button until the guest has shut down, since a guest that is still booting does
// not notice. Returns false if the guest still runs after timeout. Throws kCancelled if ctx ends
// first; the guest is then left running.
bool PowerDown(const Context& ctx, milliseconds timeout, int dir,
               const std::function<bool(const Context& limited)>& await_end) {
  const Context patience = ctx.WithTimeout(timeout);
  while (!patience.Done()) {
    Ask(patience, dir, "system_powerdown");
    if (await_end(patience.WithTimeout(kPressAgain))) return true;
  }
  ctx.Check();
  return false;
}

// Sends SIGKILL and returns when the process has ended. Throws kCancelled or kIO if it has not when
// ctx ends or after kKillTimeout, respectively; the process may then still use the disk.
void KillAndWait(const Context& ctx, const ProcessHandle& process, const std::string& sandbox) {
  process.Kill();
  // Killing usually takes milliseconds, so a context that ends now does not hide the result.
  if (process.AwaitEnd(Context::Background().WithTimeout(kKillGrace))) return;
  if (process.AwaitEnd(ctx.WithTimeout(kKillTimeout))) return;
  Throw(
      ctx.Done() ? ErrorKind::kCancelled : ErrorKind::kIO,
      "QEMU of sandbox '{}' was killed but has not ended yet; wait until the sandbox is no longer "
      "running",
      sandbox);
}

// Throws kIO unless name is a regular file in dir or, if may_be_absent is set, absent. QEMU follows
// symbolic links, with which a sandbox from elsewhere could make it read or write any file.
void CheckFile(int dir, const std::string& name, bool may_be_absent) {
  const base::EntryType type = base::OpenEntryAt(dir, name).type;
  if (type == base::EntryType::kRegularFile) return;
  if (may_be_absent && type == base::EntryType::kAbsent) return;
  Throw(ErrorKind::kIO, "{} must be a regular file, but is {}; move it away",
        base::PathOf(dir, name), base::Describe(type));
}

void RemoveRuntimeFiles(const std::filesystem::path& dir) {
  base::RemoveFile(dir / kQmpSocketFile);
  base::RemoveFile(dir / kPidFile);
  RemoveAgentFiles(dir);
  RemoveEventLog(dir);
}

bool Mentions(const std::vector<std::string>& arguments, std::string_view word) {
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
    return argument.find(word) != std::string::npos;
  });
}

// Returns the kind of QEMU's failure to start, judged by its output: kIO if the system lacks a
// resource, else kInvalidConfig, since a setting is wrong.
ErrorKind KindOfFailure(std::string_view log) {
  for (const std::string_view text :
       {"Cannot allocate memory", "No space left", "Too many open files", "Input/output error",
        "Resource temporarily unavailable", "Read-only file system"}) {
    if (log.find(text) != std::string_view::npos) return ErrorKind::kIO;
  }
  return ErrorKind::kInvalidConfig;
}

// Returns true if the user wants to start the guest, for example with a debugger.
bool StaysPaused(const QemuConfig& machine) {
  const auto& arguments = machine.extra_arguments;
  return std::find(arguments.begin(), arguments.end(), "-S") != arguments.end();
}

}  // namespace

std::vector<std::string> QemuArguments(const QemuConfig& machine, const std::string& accelerator,
                                       const SandboxRecord& sandbox, const QemuSockets& sockets) {
  std::vector<std::string> arguments = {
      "-nodefaults", "-no-user-config",
      "-S",          // Paused until events are recorded, so that no end is missed.
      "-no-reboot",  // A guest that is reset ends its VM.
      "-display",    "none",
      "-machine",    "pc",
      "-accel",      accelerator,
      "-cpu",        accelerator == "kvm" ? "host" : "max",
      "-smp",        std::to_string(machine.cpus),
      "-m",          fmt::format("{}M", machine.memory_mib),
      "-chardev",    fmt::format("socket,id=qmp,server=on,wait=off,fd={}", sockets.qmp),
      "-mon",        "chardev=qmp,mode=control",
      "-chardev",    fmt::format("file,id=console,path={},append=on", kConsoleFile),
      "-serial",     "chardev:console",
      "-pidfile",    kPidFile};
  const std::vector<std::string> event_log = EventLogArguments();
  arguments.insert(arguments.end(), event_log.begin(), event_log.end());
  const std::vector<std::string> disk = DiskArguments(sandbox);
  arguments.insert(arguments.end(), disk.begin(), disk.end());
  // The device by which a guest reports that it panicked. QEMU refuses a second one.
  if (!Mentions(machine.extra_arguments, "pvpanic")) {
    arguments.insert(arguments.end(), {"-device", "pvpanic"});
  }
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) arguments.insert(arguments.end(), {option, value});
  };
  const auto absolute = [](const std::filesystem::path& path) {
    return path.empty() ? std::string() : base::AbsolutePath(path.native()).native();
  };
  add("-kernel", absolute(machine.kernel));
  add("-initrd", absolute(machine.initrd));
  add("-append", machine.append);
  // The firmware resets a VM in which it finds nothing to boot.
  if (machine.kernel.empty())
    add("-boot", fmt::format("reboot-timeout={}", kNothingToBoot.count()));
  arguments.insert(arguments.end(), machine.extra_arguments.begin(), machine.extra_arguments.end());
  // Last, so that the devices of extra_arguments keep the PCI slots that they have without it.
  if (sockets.agent >= 0) {
    const std::vector<std::string> port = AgentPortArguments(sockets.agent);
    arguments.insert(arguments.end(), port.begin(), port.end());
  }
  return arguments;
}

QemuBackend::QemuBackend(const base::Home& home, std::optional<DiskFormat> upper_format,
                         QemuConfig config, SnapshotQueries queries, Log log)
    : DirectoryBackend(home, upper_format.value_or(DiskFormat::kQcow2), std::move(queries),
                       std::move(log)),
      config_(std::move(config)),
      cache_dir_(home.cache_dir()) {}

void QemuBackend::Boot(const Context& ctx, Locked& sandbox, bool /*detached*/) {
  const std::filesystem::path wanted =
      config_.binary.empty() ? "qemu-system-x86_64" : config_.binary;
  const std::filesystem::path binary = base::FindProgram(wanted);
  if (binary.empty() || !base::IsProgram(binary)) {
    Throw(ErrorKind::kInvalidConfig,
          "cannot find an executable program '{}': install QEMU (on Debian: apt-get install "
          "qemu-system-x86), or set Config::qemu.binary",
          wanted.native());
  }
  QemuConfig machine = MachineOf(sandbox.record, config_);
  machine.binary = binary;
  CheckBootable(ctx, sandbox.dir, sandbox.path.filename(), sandbox.record.sandbox, machine);
  const std::string accelerator = ChooseAccelerator(ctx, binary, cache_dir_);
  for (const BackingFile& file : sandbox.record.sandbox.backing) {
    CheckFile(sandbox.dir, file.name, /*may_be_absent=*/false);
  }
  CheckFile(sandbox.dir, kConsoleFile, /*may_be_absent=*/true);
  ForgetEnded();
  RemoveRuntimeFiles(sandbox.path);
  base::RemoveFile(sandbox.path / kLogFile);
  UniqueFd qmp = base::ListenAt(sandbox.dir, kQmpSocketFile);
  UniqueFd agent =
      HasOwnAgentPort(machine) ? UniqueFd() : base::ListenAt(sandbox.dir, kAgentSocketFile);
  const UniqueFd log = base::CreateFileAt(sandbox.dir, kLogFile, 0666);
  const UniqueFd events = MakeEventLog(sandbox.dir);
  // Created in advance, so that QEMU counts as crashed if it ends before it writes the file.
  base::CreateFileAt(sandbox.dir, kPidFile, 0666);
  // QEMU holds the lock from the moment it starts.
  RunLock run_lock = MakeRunLock(sandbox.dir);
  base::Leash leash;
  // The record names the process before it can open the disk. However this process ends, the next
  // operation on the sandbox can then find out whether QEMU still uses the disk.
  std::optional<ProcessHandle> process;
  const auto record_process = [&](const base::ProcessIdentity& identity) {
    process = ProcessHandle::Open(identity);
    sandbox.record.process = run_lock.HeldBy(identity);
    Save(sandbox);
  };
  std::vector<int> inherited = {qmp.get()};
  if (agent) inherited.push_back(agent.get());
  if (run_lock.fd) inherited.push_back(run_lock.fd.get());
  base::Spawn({.path = binary,
               .arguments = QemuArguments(machine, accelerator, sandbox.record.sandbox,
                                          {.qmp = qmp.get(), .agent = agent.get()}),
               .directory = sandbox.path,
               .output = log.get(),
               .inherited = inherited},
              leash, record_process);
  run_lock.fd.Reset(-1);  // So that the lock is released when QEMU ends.
  // So that they are closed when QEMU ends, and no client waits for an answer.
  qmp.Reset(-1);
  agent.Reset(-1);
  if (process) {
    const base::ForkSafeSection section;
    const std::lock_guard lock(mutex_);
    own_.insert_or_assign(sandbox.record.process->pid,
                          OwnVm{*std::move(process), std::move(leash)});
  }
  Run(ctx, sandbox, machine);
  RemoveEventInput(sandbox.path);  // It would block programs that read every file of a directory.
}

void QemuBackend::RecordMachine(DirectoryRecord& record) const {
  record.machine_defaults = RecordableMachine(config_);
}

void QemuBackend::ForgetEnded() {
  const Context now = Context::Background().WithTimeout(milliseconds::zero());
  const base::ForkSafeSection section;
  const std::lock_guard lock(mutex_);
  std::erase_if(own_, [&](const auto& entry) {
    const ProcessHandle& process = entry.second.process;
    if (!process.AwaitEnd(now)) return false;
    process.Reap();
    return true;
  });
}

void QemuBackend::Run(const Context& ctx, const Locked& sandbox, const QemuConfig& machine) const {
  const Context limited = ctx.WithTimeout(kReadyTimeout);
  try {
    // The socket has been listening since before QEMU was started.
    base::UniqueFd socket = base::TryConnectAt(limited, sandbox.dir, kQmpSocketFile);
    if (!socket) Throw(ErrorKind::kIO, "QEMU ended before it accepted commands");
    QmpClient client(limited, std::move(socket));
    client.Execute(limited, "query-status");
    const Context patience = limited.WithTimeout(kAnswerTimeout);
    while (!EventLogHasBegun(sandbox.dir) && !patience.Done()) {
      client.Execute(limited, "query-status");
    }
    if (!StaysPaused(machine)) client.Execute(limited, "cont");
  } catch (const Error& e) {
    ctx.Check();
    const std::string log = LogOf(sandbox.dir);
    // Without any output, the program is not QEMU (kInvalidConfig), or QEMU was killed or is short
    // of CPU time.
    const ErrorKind silent = e.kind() == ErrorKind::kInvalidConfig ? e.kind() : ErrorKind::kIO;
    const ErrorKind kind = log.empty() ? silent : KindOfFailure(log);
    Throw(
        kind, "{} did not start sandbox '{}': {}; {}", machine.binary.native(),
        sandbox.path.filename().native(), log.empty() ? e.what() : log,
        kind == ErrorKind::kIO
            ? "look at the kernel's log (dmesg), free the resource that is exhausted, and try again"
            : "correct the QemuConfig of the sandbox or the client: binary, kernel, initrd, "
              "append, memory_mib, cpus, extra_arguments");
  }
}

void QemuBackend::LetGo(Locked& sandbox) {
  const base::ForkSafeSection section;
  const std::lock_guard lock(mutex_);
  const auto found = own_.find(sandbox.record.process->pid);
  // A VM that another process booted is either detached already, or must be detached by that
  // process.
  if (found == own_.end() || !found->second.leash) return;
  found->second.leash->LetGo();
  found->second.leash.reset();
}

void QemuBackend::Halt(const Context& ctx, Locked& sandbox, milliseconds timeout) {
  const auto process = sandbox.record.process;
  // In a copy of a home, the process of the record is that of the original.
  const bool is_own = process && IsOwner(*process, sandbox.dir);
  const auto handle = is_own ? ProcessHandle::Open(*process) : std::nullopt;
  const bool graceful = timeout.count() > 0;
  if (handle) {
    const auto await_end = [&](const Context& limited) { return handle->AwaitEnd(limited); };
    bool ended = graceful && PowerDown(ctx, timeout, sandbox.dir, await_end);
    // From here on the VM is ended, even if ctx ends meanwhile.
    if (!ended && graceful && Ask(ctx, sandbox.dir, "quit")) {
      ended = handle->AwaitEnd(ctx.WithTimeout(kAnswerTimeout));
    }
    if (!ended) KillAndWait(ctx, *handle, sandbox.path.filename().native());
    handle->Reap();
  } else if (process && sandbox.record.sandbox.status == SandboxStatus::kRunning) {
    HaltElsewhere(ctx, sandbox, timeout);
  }
  ForgetEnded();
}

// QEMU in another container is controlled through its control socket, which any process of this
// kernel can connect to. The run lock shows when it has ended.
void QemuBackend::HaltElsewhere(const Context& ctx, Locked& sandbox, milliseconds timeout) {
  const Runner& runner = *sandbox.record.process;
  const std::string upper = sandbox.record.sandbox.upper->path.filename();
  const auto has_ended = [&] {
    return StateOf(runner, sandbox.dir, upper) != RunState::kRuns && !HasVm(sandbox.dir);
  };
  const auto await_end = [&](const Context& limited) {
    while (!has_ended() && !limited.Done()) std::this_thread::sleep_for(kLockPollInterval);
    return has_ended();
  };
  const std::string name = sandbox.path.filename();
  if (!HasVm(sandbox.dir)) {
    if (StateOf(runner, sandbox.dir, upper) == RunState::kEnded) return;
    // Whether the VM runs cannot be determined. By calling Kill, the user states that it does not.
    if (has_ended() && timeout.count() <= 0) return;
    Throw(ErrorKind::kUnsupportedOperation,
          "sandbox '{}' is recorded as running, as {}, and cannot be reached from here: stop it "
          "there{}",
          name, Describe(runner),
          has_ended() ? "; if it no longer exists there, call Kill to record that it has stopped"
                      : "");
  }
  if (timeout.count() > 0 && PowerDown(ctx, timeout, sandbox.dir, await_end)) return;
  if (Ask(ctx, sandbox.dir, "quit") && await_end(ctx.WithTimeout(kAnswerTimeout))) return;
  Throw(ErrorKind::kIO,
        "sandbox '{}' did not end when asked to, and is running as {}: kill it there", name,
        Describe(runner));
}

ExecResult QemuBackend::Exec(const Context& ctx, const std::string& name,
                             const std::vector<std::string>& command, const ExecOptions& options) {
  ctx.Check();
  const Viewed sandbox = View(name);
  const DirectoryRecord& record = sandbox.record;
  if (record.sandbox.status != SandboxStatus::kRunning) {
    Throw(ErrorKind::kIO, "cannot run a command in sandbox '{}', which is {}; start it first", name,
          ToString(record.sandbox.status));
  }
  if (record.backend != Name()) {
    Throw(ErrorKind::kUnsupportedOperation,
          "sandbox '{}' is running under the {} backend; use that backend", name,
          base::Quoted(record.backend));
  }
  try {
    return ExecInGuest(ctx, {sandbox.dir.get(), name}, command, options);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kIO || HasVm(sandbox.dir.get())) throw;
    // Either the VM has ended meanwhile, or it runs where this process cannot reach it.
    const DirectoryRecord now = View(name).record;
    if (now.sandbox.status != SandboxStatus::kRunning) throw;
    Throw(ErrorKind::kUnsupportedOperation,
          "sandbox '{}' is recorded as running, as {}, and cannot be reached from here: run the "
          "command there",
          name, now.sandbox.runs_on);
  }
}

std::unique_ptr<LiveDisk> QemuBackend::OpenLiveDisk(const Context& ctx, const Locked& sandbox) {
  return std::make_unique<QemuLiveDisk>(
      ctx, GuestAddress{sandbox.dir, sandbox.path.filename().native()}, sandbox.record);
}

std::filesystem::path QemuBackend::Console(const Context& ctx, const std::string& name) {
  ctx.Check();
  return View(name).path / kConsoleFile;
}

void QemuBackend::ClearEnded(Locked& sandbox) { RemoveRuntimeFiles(sandbox.path); }

bool QemuBackend::HasVm(int dir) const { return base::IsServedAt(dir, kQmpSocketFile); }

SandboxStatus QemuBackend::StatusOfEnded(int dir) const {
  const bool orderly = base::OpenEntryAt(dir, kPidFile).type == base::EntryType::kAbsent;
  if (!orderly) return SandboxStatus::kCrashed;
  return EndAccordingToEvents(dir).value_or(SandboxStatus::kStopped);
}

}  // namespace msb::vmm
