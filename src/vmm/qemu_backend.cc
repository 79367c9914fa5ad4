#include "src/vmm/qemu_backend.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "src/base/json.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/unix_socket.h"
#include "src/vmm/qemu_accelerator.h"
#include "src/vmm/qmp_client.h"

namespace msb::vmm {
namespace {

using base::Json;
using base::ProcessHandle;
using base::Throw;
using base::UniqueFd;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kSocketFile = "qmp.sock";
constexpr const char* kPidFile = "qemu.pid";
constexpr const char* kLogFile = "qemu.log";
constexpr const char* kConsoleFile = "console.log";

// For QEMU to open its disks and take commands; the guest may take what it likes.
constexpr auto kReadyTimeout = seconds(30);
// Between two times that the power button is pressed.
constexpr auto kPressAgain = seconds(1);
// For QEMU to answer a command, and to end after "quit".
constexpr auto kAnswerTimeout = seconds(2);
// For the kernel to end it.
constexpr auto kKillTimeout = seconds(30);
constexpr std::size_t kMaxLogBytes = 2000;

// One file of the disk as two nodes: the file, and its format on top of that. What a header says
// of its backing file is not followed, since that is named here.
void AddNode(std::vector<std::string>& arguments, const std::string& node, const std::string& file,
             DiskFormat format, bool read_only, const Json& backing) {
  const Json protocol = {{"driver", "file"},
                         {"node-name", node + "-file"},
                         {"filename", file},
                         {"read-only", read_only},
                         {"discard", "unmap"}};
  Json image = {{"driver", ToString(format)},
                {"node-name", node},
                {"file", node + "-file"},
                {"read-only", read_only},
                {"discard", "unmap"}};
  if (format == DiskFormat::kQcow2) image["backing"] = backing;
  for (const Json& description : {protocol, image}) {
    arguments.emplace_back("-blockdev");
    arguments.push_back(description.dump());
  }
}

void AddDisk(std::vector<std::string>& arguments, const SandboxRecord& sandbox) {
  Json below;  // null: stands on nothing
  for (std::size_t i = sandbox.backing.size(); i-- > 0;) {
    const BackingFile& file = sandbox.backing[i];
    const std::string node = fmt::format("backing{}", i);
    AddNode(arguments, node, file.name, file.disk.format, true, below);
    below = node;
  }
  AddNode(arguments, "upper", sandbox.upper->path.filename(), sandbox.upper->format, false, below);
  arguments.insert(arguments.end(), {"-device", "virtio-blk-pci,drive=upper"});
}

// The end of what QEMU said, for messages.
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

// Asks QEMU for one thing; false if it cannot be asked.
bool Ask(const Context& ctx, int dir, const std::string& command) {
  try {
    UniqueFd socket = base::TryConnectAt(dir, kSocketFile);
    if (!socket) return false;
    const Context limited = ctx.WithTimeout(kAnswerTimeout);
    QmpClient(limited, std::move(socket)).Execute(limited, command);
    return true;
  } catch (const Error& e) {
    // It may end while it is asked, or be stuck: what follows is sterner.
    return e.kind() == ErrorKind::kInternal && command == "quit";
  }
}

// Presses the power button until the guest has shut down, since one that is still booting does not
// notice; false if it has not before patience ends.
bool PowerDown(const Context& patience, int dir, const ProcessHandle& process) {
  while (!patience.Done()) {
    Ask(patience, dir, "system_powerdown");
    if (process.AwaitEnd(patience.WithTimeout(kPressAgain))) return true;
  }
  return false;
}

// A cancellation ends the waiting, but a deadline only the patience with the guest.
void CheckCancelled(const Context& ctx) {
  const auto left = ctx.TimeLeft();
  if (!left || left->count() > 0) ctx.Check();
}

// QEMU would follow links: a sandbox from elsewhere could read or write any file with them.
void CheckFile(int dir, const std::string& name, bool may_be_absent) {
  const base::EntryType type = base::OpenEntryAt(dir, name).type;
  if (type == base::EntryType::kRegularFile) return;
  if (may_be_absent && type == base::EntryType::kAbsent) return;
  Throw(ErrorKind::kIO, "{} must be a regular file, but is {}", name, base::Describe(type));
}

void RemoveRuntimeFiles(const std::filesystem::path& dir) {
  base::RemoveFile(dir / kSocketFile);
  base::RemoveFile(dir / kPidFile);
}

}  // namespace

std::vector<std::string> QemuArguments(const QemuConfig& config, const std::string& accelerator,
                                       const DirectoryRecord& record, int socket) {
  std::vector<std::string> arguments = {
      "-nodefaults",
      "-no-user-config",
      "-no-reboot",  // A guest that reboots or panics ends its VM.
      "-display",
      "none",
      "-machine",
      "pc",
      "-accel",
      accelerator,
      "-cpu",
      accelerator == "kvm" ? "host" : "max",
      "-smp",
      std::to_string(record.cpus != 0 ? record.cpus : config.cpus),
      "-m",
      fmt::format("{}M", record.memory_mib != 0 ? record.memory_mib : config.memory_mib),
      "-chardev",
      fmt::format("socket,id=qmp,server=on,wait=off,fd={}", socket),
      "-mon",
      "chardev=qmp,mode=control",
      "-chardev",
      fmt::format("file,id=console,path={},append=on", kConsoleFile),
      "-serial",
      "chardev:console",
      "-pidfile",
      kPidFile};
  AddDisk(arguments, record.sandbox);
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) arguments.insert(arguments.end(), {option, value});
  };
  const auto absolute = [](const std::filesystem::path& path) {
    return path.empty() ? std::string() : base::AbsolutePath(path.native()).native();
  };
  add("-kernel", absolute(config.kernel));
  add("-initrd", absolute(config.initrd));
  add("-append", config.append);
  arguments.insert(arguments.end(), config.extra_arguments.begin(), config.extra_arguments.end());
  return arguments;
}

QemuBackend::QemuBackend(const Config& config, Log log)
    : DirectoryBackend(config.sandboxes_dir, config.cache_dir,
                       config.upper_format.value_or(DiskFormat::kQcow2), std::move(log)),
      config_(config.qemu),
      cache_dir_(config.cache_dir) {}

void QemuBackend::Boot(const Context& ctx, Locked& sandbox, bool /*detached*/) {
  const std::filesystem::path wanted =
      config_.binary.empty() ? "qemu-system-x86_64" : config_.binary;
  const std::filesystem::path binary = base::FindProgram(wanted);
  if (binary.empty()) {
    Throw(ErrorKind::kInvalidConfig, "no program '{}': install QEMU, or set Config::qemu.binary",
          wanted.native());
  }
  const std::string accelerator = ChooseAccelerator(ctx, binary, cache_dir_);
  for (const BackingFile& file : sandbox.record.sandbox.backing) {
    CheckFile(sandbox.dir, file.name, /*may_be_absent=*/false);
  }
  CheckFile(sandbox.dir, kConsoleFile, /*may_be_absent=*/true);
  ForgetEnded();
  RemoveRuntimeFiles(sandbox.path);
  base::RemoveFile(sandbox.path / kLogFile);
  UniqueFd socket = base::ListenAt(sandbox.dir, kSocketFile);
  const UniqueFd log = base::CreateFileAt(sandbox.dir, kLogFile, 0666);
  base::CreateFileAt(sandbox.dir, kPidFile, 0666);  // One that ends before it writes this crashed.
  base::Leash leash;
  // However this process ends: whoever looks at the sandbox next knows what may still have its
  // disk.
  std::optional<ProcessHandle> process;
  const auto record_process = [&](const base::ProcessIdentity& identity) {
    process = ProcessHandle::Open(identity);
    sandbox.record.process = identity;
    Save(sandbox);
  };
  base::Spawn({.path = binary,
               .arguments = QemuArguments(config_, accelerator, sandbox.record, socket.get()),
               .directory = sandbox.path,
               .output = log.get(),
               .inherited = {socket.get()}},
              leash, record_process);
  socket.Reset(-1);  // So that it is closed when QEMU ends, and nobody waits for an answer.
  if (process) {
    const std::lock_guard lock(mutex_);
    own_.insert_or_assign(sandbox.record.process->pid,
                          OwnVm{*std::move(process), std::move(leash)});
  }
  AwaitReady(ctx, sandbox);
}

void QemuBackend::ForgetEnded() {
  const Context now = Context::Background().WithTimeout(milliseconds::zero());
  const std::lock_guard lock(mutex_);
  std::erase_if(own_, [&](const auto& entry) {
    const ProcessHandle& process = entry.second.process;
    if (!process.AwaitEnd(now)) return false;
    process.Reap();
    return true;
  });
}

void QemuBackend::AwaitReady(const Context& ctx, const Locked& sandbox) const {
  const Context limited = ctx.WithTimeout(kReadyTimeout);
  try {
    // The socket has listened since before QEMU was there.
    QmpClient client(limited, base::TryConnectAt(sandbox.dir, kSocketFile));
    client.Execute(limited, "query-status");
  } catch (const Error& e) {
    ctx.Check();
    const std::string log = LogOf(sandbox.dir);
    Throw(ErrorKind::kInternal, "QEMU did not start sandbox '{}': {}",
          sandbox.path.filename().native(), log.empty() ? e.what() : log);
  }
}

void QemuBackend::LetGo(Locked& sandbox) {
  const std::lock_guard lock(mutex_);
  const auto found = own_.find(sandbox.record.process->pid);
  // One that another process booted is detached already, or that process must do it.
  if (found == own_.end() || !found->second.leash) return;
  found->second.leash->LetGo();
  found->second.leash.reset();
}

void QemuBackend::Halt(const Context& ctx, Locked& sandbox, milliseconds timeout) {
  const auto process = sandbox.record.process;
  const auto handle = process ? ProcessHandle::Open(*process) : std::nullopt;
  if (handle) {
    bool ended = false;
    if (timeout.count() > 0) {
      ended = PowerDown(ctx.WithTimeout(timeout), sandbox.dir, *handle);
      if (!ended) CheckCancelled(ctx);
      if (!ended && Ask(Context::Background(), sandbox.dir, "quit")) {
        ended = handle->AwaitEnd(Context::Background().WithTimeout(kAnswerTimeout));
      }
    }
    if (!ended) handle->Kill();
    if (!ended && !handle->AwaitEnd(Context::Background().WithTimeout(kKillTimeout))) {
      Throw(ErrorKind::kIO, "process {} of sandbox '{}' does not end", process->pid,
            sandbox.path.filename().native());
    }
    handle->Reap();
  }
  ForgetEnded();
  RemoveRuntimeFiles(sandbox.path);
}

bool QemuBackend::HasVm(int dir) const {
  return static_cast<bool>(base::TryConnectAt(dir, kSocketFile));
}

SandboxStatus QemuBackend::StatusOfEnded(int dir) const {
  const bool orderly = base::OpenEntryAt(dir, kPidFile).type == base::EntryType::kAbsent;
  return orderly ? SandboxStatus::kStopped : SandboxStatus::kCrashed;
}

}  // namespace msb::vmm
