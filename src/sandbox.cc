#include "msb/sandbox.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

#include "msb/snapshot.h"
#include "src/base/call_scope.h"
#include "src/base/fork.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/client_state.h"
#include "src/handle/lineage.h"
#include "src/vmm/qemu_machine.h"

namespace msb {

using base::Throw;
using internal::ClientState;
using internal::SandboxHandleState;
using internal::SandboxState;

struct internal::SandboxState {
  static Sandbox Wrap(std::shared_ptr<ClientState> client, const vmm::SandboxRecord& record,
                      bool detached) {
    auto state = std::make_unique<SandboxState>();
    state->client = std::move(client);
    state->name = record.name;
    state->created_at = record.created_at;
    state->started_at = record.started_at;
    state->detached = detached;
    return Sandbox(std::move(state));
  }

  std::shared_ptr<ClientState> client;
  std::string name;
  // Distinguish this sandbox from a later one of the same name, and this boot from a later one.
  std::chrono::system_clock::time_point created_at;
  std::chrono::system_clock::time_point started_at;
  bool detached = false;
  // The process that has to end the sandbox, and not one that was forked from it.
  const std::uint64_t process = base::ForkGeneration();
};

struct internal::SandboxHandleState {
  static SandboxHandle Wrap(std::shared_ptr<ClientState> client, vmm::SandboxRecord record) {
    return SandboxHandle(std::make_unique<SandboxHandleState>(
        SandboxHandleState{.client = std::move(client), .record = std::move(record)}));
  }

  std::shared_ptr<ClientState> client;
  vmm::SandboxRecord record;
};

namespace {

constexpr std::size_t kMaxSandboxName = 128;
constexpr auto kPollInterval = std::chrono::milliseconds(20);

// Returns the state of a handle that is still open. Throws kInvalidHandle if it was closed.
SandboxState& Open(const std::unique_ptr<SandboxState>& state) {
  if (!state) Throw(ErrorKind::kInvalidHandle, "the sandbox handle was closed");
  return *state;
}

// Applies options, in their order, to a configuration with the defaults.
template <typename T>
T ConfigOf(const std::vector<std::function<void(T&)>>& options) {
  T config;
  for (const auto& option : options) option(config);
  return config;
}

// Returns the time-out of Stop for a backend, which counts in nanoseconds.
std::chrono::milliseconds TimeoutOf(const StopConfig& config) {
  constexpr auto kLongest =
      std::chrono::floor<std::chrono::milliseconds>(std::chrono::nanoseconds::max());
  return std::clamp(config.timeout, std::chrono::milliseconds::zero(), kLongest);
}

vmm::SnapshotSource SourceOf(const artifact::Artifact& artifact, const artifact::DiskChain& disk) {
  const artifact::Manifest& manifest = artifact.manifest;
  return {.digest = manifest.digest,
          .artifact = artifact.path,
          .image = manifest.image,
          .upper = disk.files[0].disk,
          .backing = disk.Backing(),
          .size_bytes = manifest.size_bytes};
}

// Checks the machine settings of a sandbox, and returns them with paths that do not depend on the
// working directory.
QemuConfig MachineFor(const QemuConfig& machine) {
  if (!machine.binary.empty()) {
    Throw(ErrorKind::kInvalidArgument,
          "WithQemu must not set binary '{}': set it in Config::qemu of the client",
          base::Quoted(machine.binary.native()));
  }
  return vmm::RecordableMachine(machine);
}

vmm::SandboxSpec SpecFor(const std::string& name, const SandboxConfig& config) {
  if (config.image.empty() == config.snapshot.empty()) {
    Throw(ErrorKind::kInvalidArgument,
          "set exactly one of image and snapshot, with WithImage or WithSnapshot or in "
          "SandboxConfig");
  }
  if (config.cpus == 0U || config.memory_mib == 0U) {
    Throw(ErrorKind::kInvalidArgument, "a sandbox needs at least one CPU and 1 MiB of memory");
  }
  if (config.oci_upper_size_mib == 0U) {
    Throw(ErrorKind::kInvalidArgument, "a writable disk needs at least 1 MiB");
  }
  const auto has_nul = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  if (has_nul(config.image)) {
    Throw(ErrorKind::kInvalidArgument, "image '{}' contains a NUL byte",
          base::Quoted(config.image));
  }
  for (const auto& [key, value] : config.labels) {
    if (has_nul(key) || has_nul(value)) {
      Throw(ErrorKind::kInvalidArgument, "label '{}' contains a NUL byte", base::Quoted(key));
    }
    if (!base::IsUtf8(key) || !base::IsUtf8(value)) {
      Throw(ErrorKind::kInvalidArgument, "label '{}' is not UTF-8", base::Quoted(key));
    }
  }
  vmm::SandboxSpec spec{.name = name, .image = config.image, .snapshot = std::nullopt};
  if (config.qemu) spec.qemu = MachineFor(*config.qemu);
  const QemuConfig machine = config.qemu.value_or(QemuConfig{});
  spec.cpus = config.cpus.value_or(machine.cpus);
  spec.memory_mib = config.memory_mib.value_or(machine.memory_mib);
  spec.upper_size_mib = config.oci_upper_size_mib;
  spec.labels = config.labels;
  spec.replace = config.replace;
  spec.detached = config.detached;
  return spec;
}

// How many times to open a snapshot that keeps being replaced while it is booted.
constexpr int kMaxBootAttempts = 20;

bool MayComeFromReplacement(const Error& error) {
  return error.kind() == ErrorKind::kSnapshotNotFound ||
         error.kind() == ErrorKind::kSnapshotIntegrity ||
         error.kind() == ErrorKind::kSnapshotImageMissing || error.kind() == ErrorKind::kIO;
}

// Boots a snapshot. The backend gets paths, so if booting fails and one of them no longer leads to
// the file that was found there, the snapshot is opened again.
vmm::SandboxRecord BootSnapshot(const Context& ctx, ClientState& client,
                                const std::string& snapshot, vmm::SandboxSpec spec) {
  for (int attempt = 1;; ++attempt) {
    artifact::OpenedArtifact opened = internal::OpenSnapshot(ctx, client, snapshot);
    handle::CheckBootable(opened.artifact);
    const artifact::Artifact artifact = opened.artifact;
    artifact::DiskChain disk = internal::OpenDisk(ctx, client, std::move(opened));
    disk.CloseFiles();
    spec.snapshot = SourceOf(artifact, disk);
    try {
      return client.backend->Create(ctx, spec);
    } catch (const Error& e) {
      if (!MayComeFromReplacement(e) || !disk.IsReplaced()) throw;
      if (attempt == kMaxBootAttempts) {
        Throw(ErrorKind::kSnapshotNotFound,
              "snapshot '{}' was removed or replaced while it was booted, {} times in a row; try "
              "again",
              base::Quoted(snapshot), attempt);
      }
    }
    ctx.Check();
  }
}

}  // namespace

void internal::CheckSandboxName(const std::string& name) {
  if (base::IsPlainFileName(name) && !name.starts_with('.')) return;
  Throw(ErrorKind::kSandboxNotFound, "no sandbox '{}'", base::Quoted(name));
}

SandboxOption WithImage(std::string reference) {
  return [reference = std::move(reference)](SandboxConfig& c) { c.image = reference; };
}
SandboxOption WithSnapshot(std::string path_or_name) {
  return [path_or_name = std::move(path_or_name)](SandboxConfig& c) { c.snapshot = path_or_name; };
}
SandboxOption WithMemory(std::uint32_t mib) {
  return [mib](SandboxConfig& c) { c.memory_mib = mib; };
}
SandboxOption WithCPUs(std::uint32_t cpus) {
  return [cpus](SandboxConfig& c) { c.cpus = cpus; };
}
SandboxOption WithOCIUpperSize(std::uint32_t mib) {
  return [mib](SandboxConfig& c) { c.oci_upper_size_mib = mib; };
}
SandboxOption WithQemu(QemuConfig machine) {
  return [machine = std::move(machine)](SandboxConfig& c) { c.qemu = machine; };
}
SandboxOption WithLabel(std::string key, std::string value) {
  return WithLabels({{std::move(key), std::move(value)}});
}
SandboxOption WithLabels(std::map<std::string, std::string> labels) {
  return [labels = std::move(labels)](SandboxConfig& c) {
    for (const auto& [key, value] : labels) c.labels[key] = value;
  };
}
SandboxOption WithReplace() {
  return [](SandboxConfig& c) { c.replace = true; };
}
SandboxOption WithDetached() {
  return [](SandboxConfig& c) { c.detached = true; };
}
StopOption WithStopTimeout(std::chrono::milliseconds timeout) {
  return [timeout](StopConfig& c) { c.timeout = timeout; };
}

Sandbox::Sandbox(std::unique_ptr<SandboxState> state) : state_(std::move(state)) {}
Sandbox::Sandbox(Sandbox&&) noexcept = default;

Sandbox& Sandbox::operator=(Sandbox&& other) noexcept {
  if (this != &other) {
    const Sandbox closes_the_old(std::move(*this));
    state_ = std::move(other.state_);
  }
  return *this;
}

Sandbox::~Sandbox() {
  const base::CallScope scope;
  if (!state_ || state_->process != base::ForkGeneration()) return;
  const auto client = state_->client;
  try {
    Close();
  } catch (const std::exception& e) {
    try {
      client->Log(e.what());
    } catch (...) {
      // A destructor cannot report that the log callback failed.
    }
  }
}

const std::string& Sandbox::Name() const { return Open(state_).name; }

void Sandbox::Stop(const Context& ctx, const std::vector<StopOption>& options) {
  Stop(ctx, ConfigOf<StopConfig>(options));
}

void Sandbox::Stop(const Context& ctx, const StopConfig& config) {
  const base::CallScope scope;
  const SandboxState& state = Open(state_);
  state.client->backend->Stop(ctx, state.name, TimeoutOf(config));
}

void Sandbox::Kill(const Context& ctx) {
  const base::CallScope scope;
  const SandboxState& state = Open(state_);
  state.client->backend->Kill(ctx, state.name);
}

SandboxStatus Sandbox::WaitUntilStopped(const Context& ctx) const {
  const base::CallScope scope;
  const SandboxState& state = Open(state_);
  for (;;) {
    ctx.Check();
    const SandboxStatus status = state.client->backend->Inspect(ctx, state.name).status;
    if (status == SandboxStatus::kStopped || status == SandboxStatus::kCrashed) return status;
    std::this_thread::sleep_for(kPollInterval);
  }
}

void Sandbox::Detach(const Context& ctx) {
  const base::CallScope scope;
  const SandboxState& state = Open(state_);
  state.client->backend->Detach(ctx, state.name);
  state_.reset();
}

void Sandbox::Close() {
  const base::CallScope scope;
  Open(state_);
  const std::unique_ptr<SandboxState> state = std::move(state_);
  if (state->detached) return;
  try {
    const Context ctx = Context::Background();
    vmm::Backend& backend = *state->client->backend;
    // By now the name may belong to another sandbox, or another program may have started this one.
    const vmm::SandboxRecord now = backend.Inspect(ctx, state->name);
    if (now.created_at != state->created_at || now.started_at != state->started_at) return;
    backend.Stop(ctx, state->name, StopConfig{}.timeout);
  } catch (const Error& e) {
    // A sandbox that was removed meanwhile is stopped as well.
    if (e.kind() != ErrorKind::kSandboxNotFound) throw;
  }
}

SandboxHandle::SandboxHandle(std::unique_ptr<SandboxHandleState> state)
    : state_(std::move(state)) {}
SandboxHandle::SandboxHandle(const SandboxHandle& other)
    : state_(other.state_ ? std::make_unique<SandboxHandleState>(*other.state_) : nullptr) {}
SandboxHandle& SandboxHandle::operator=(const SandboxHandle& other) {
  return *this = SandboxHandle(other);
}
SandboxHandle::SandboxHandle(SandboxHandle&&) noexcept = default;
SandboxHandle& SandboxHandle::operator=(SandboxHandle&&) noexcept = default;
SandboxHandle::~SandboxHandle() = default;

const std::string& SandboxHandle::Name() const { return state_->record.name; }
SandboxStatus SandboxHandle::Status() const { return state_->record.status; }
std::chrono::system_clock::time_point SandboxHandle::CreatedAt() const {
  return state_->record.created_at;
}
std::chrono::system_clock::time_point SandboxHandle::UpdatedAt() const {
  return state_->record.updated_at;
}
const std::string& SandboxHandle::ConfigJSON() const { return state_->record.config_json; }

SandboxUpper SandboxHandle::Upper() const {
  const vmm::SandboxRecord& record = state_->record;
  if (!record.upper) {
    Throw(ErrorKind::kInvalidConfig, "sandbox '{}' has no root disk of its own", record.name);
  }
  const std::string image = record.image ? record.image->manifest_digest : std::string();
  return {.path = record.upper->path.native(),
          .format = record.upper->format,
          .fstype = record.upper->fstype,
          .base_digest = record.snapshot_digest.value_or(image)};
}

void SandboxHandle::Refresh(const Context& ctx) {
  const base::CallScope scope;
  state_->record = state_->client->backend->Inspect(ctx, Name());
}

Sandbox SandboxHandle::Start(const Context& ctx) const {
  const base::CallScope scope;
  const vmm::SandboxRecord started =
      state_->client->backend->Start(ctx, Name(), /*detached=*/false);
  return SandboxState::Wrap(state_->client, started, /*detached=*/false);
}

void SandboxHandle::Stop(const Context& ctx, const std::vector<StopOption>& options) const {
  Stop(ctx, ConfigOf<StopConfig>(options));
}

void SandboxHandle::Stop(const Context& ctx, const StopConfig& config) const {
  const base::CallScope scope;
  state_->client->backend->Stop(ctx, Name(), TimeoutOf(config));
}

void SandboxHandle::Kill(const Context& ctx) const {
  const base::CallScope scope;
  state_->client->backend->Kill(ctx, Name());
}

void SandboxHandle::Remove(const Context& ctx) const {
  const base::CallScope scope;
  state_->client->backend->Remove(ctx, Name());
}

SnapshotArtifact SandboxHandle::Snapshot(const Context& ctx, const std::string& name) const {
  const base::CallScope scope;
  // An empty name is invalid, but in the options it would stand for "not set".
  base::CheckBareName("snapshot", name, internal::kMaxSnapshotName);
  return internal::CreateSnapshot(ctx, state_->client, Name(), {.name = name});
}

SnapshotArtifact SandboxHandle::SnapshotTo(const Context& ctx,
                                           const std::filesystem::path& path) const {
  const base::CallScope scope;
  return internal::CreateSnapshot(ctx, state_->client, Name(), {.path = path});
}

Sandbox CreateSandbox(const Context& ctx, const std::string& name,
                      const std::vector<SandboxOption>& options, const Client& client) {
  return CreateSandbox(ctx, name, ConfigOf<SandboxConfig>(options), client);
}

Sandbox CreateSandbox(const Context& ctx, const std::string& name, const SandboxConfig& config,
                      const Client& client) {
  const base::CallScope scope;
  base::CheckBareName("sandbox", name, kMaxSandboxName);
  const auto state = ClientState::Of(client);
  vmm::SandboxSpec spec = SpecFor(name, config);
  const vmm::SandboxRecord created =
      config.snapshot.empty() ? state->backend->Create(ctx, spec)
                              : BootSnapshot(ctx, *state, config.snapshot, std::move(spec));
  return SandboxState::Wrap(state, created, config.detached);
}

SandboxHandle GetSandbox(const Context& ctx, const std::string& name, const Client& client) {
  const base::CallScope scope;
  internal::CheckSandboxName(name);
  const auto state = ClientState::Of(client);
  return SandboxHandleState::Wrap(state, state->backend->Inspect(ctx, name));
}

std::vector<SandboxHandle> ListSandboxes(const Context& ctx, const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  std::vector<vmm::SandboxRecord> records = state->backend->List(ctx);
  std::stable_sort(records.begin(), records.end(),
                   [](const auto& a, const auto& b) { return a.created_at > b.created_at; });
  std::vector<SandboxHandle> handles;
  handles.reserve(records.size());
  for (vmm::SandboxRecord& record : records) {
    handles.push_back(SandboxHandleState::Wrap(state, std::move(record)));
  }
  return handles;
}

Sandbox StartSandbox(const Context& ctx, const std::string& name, const Client& client) {
  const base::CallScope scope;
  return GetSandbox(ctx, name, client).Start(ctx);
}

void RemoveSandbox(const Context& ctx, const std::string& name, const Client& client) {
  const base::CallScope scope;
  internal::CheckSandboxName(name);
  ClientState::Of(client)->backend->Remove(ctx, name);
}

}  // namespace msb
