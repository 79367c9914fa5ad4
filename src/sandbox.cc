#include "msb/sandbox.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "msb/snapshot.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/client_state.h"
#include "src/handle/lineage.h"

namespace msb {

using base::Throw;
using internal::ClientState;
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

  static SandboxHandle Handle(std::shared_ptr<ClientState> client, vmm::SandboxRecord record) {
    return SandboxHandle(std::move(client), std::move(record));
  }

  std::shared_ptr<ClientState> client;
  std::string name;
  // Tell it from a later sandbox of its name, and this boot of it from a later one.
  std::chrono::system_clock::time_point created_at;
  std::chrono::system_clock::time_point started_at;
  bool detached = false;
};

namespace {

constexpr std::size_t kMaxSandboxName = 128;
constexpr auto kPollInterval = std::chrono::milliseconds(20);

// The state behind a handle that is still open.
SandboxState& Open(const std::unique_ptr<SandboxState>& state) {
  if (!state) Throw(ErrorKind::kInvalidHandle, "the sandbox handle was closed");
  return *state;
}

std::chrono::milliseconds TimeoutOf(const std::vector<StopOption>& options) {
  StopConfig config;
  for (const StopOption& option : options) option(config);
  // Backends count in nanoseconds.
  constexpr auto kLongest =
      std::chrono::floor<std::chrono::milliseconds>(std::chrono::nanoseconds::max());
  return std::clamp(config.timeout, std::chrono::milliseconds::zero(), kLongest);
}

vmm::SnapshotSource SourceOf(const Context& ctx, ClientState& client,
                             const artifact::Artifact& artifact) {
  handle::CheckBootable(artifact);
  const artifact::Manifest& manifest = artifact.manifest;
  const artifact::Layer& layer = manifest.layers[0];
  return {.digest = manifest.digest,
          .artifact = artifact.path,
          .image = manifest.image,
          .upper = {artifact.path / layer.file, layer.format, manifest.fstype},
          .backing = handle::BackingOf(ctx, client.catalog, client.config.snapshots_dir,
                                       client.config.cache_dir, artifact),
          .size_bytes = manifest.size_bytes};
}

vmm::SandboxSpec SpecFor(const Context& ctx, const std::string& name, const SandboxConfig& config,
                         const std::shared_ptr<ClientState>& client) {
  if (config.image.empty() == config.snapshot.empty()) {
    Throw(ErrorKind::kInvalidArgument, "give exactly one of WithImage and WithSnapshot");
  }
  if (config.cpus == 0U || config.memory_mib == 0U) {
    Throw(ErrorKind::kInvalidArgument, "a sandbox needs at least one CPU and 1 MiB of memory");
  }
  if (config.oci_upper_size_mib == 0U) {
    Throw(ErrorKind::kInvalidArgument, "a writable disk needs at least 1 MiB");
  }
  const auto has_nul = [](const std::string& text) { return text.find('\0') != std::string::npos; };
  if (has_nul(config.image)) {
    Throw(ErrorKind::kInvalidArgument, "the image '{}' has a NUL", base::Quoted(config.image));
  }
  for (const auto& [key, value] : config.labels) {
    if (has_nul(key) || has_nul(value)) {
      Throw(ErrorKind::kInvalidArgument, "label '{}' has a NUL", base::Quoted(key));
    }
    if (!base::IsUtf8(key) || !base::IsUtf8(value)) {
      Throw(ErrorKind::kInvalidArgument, "label '{}' is not UTF-8", base::Quoted(key));
    }
  }
  vmm::SandboxSpec spec{.name = name, .image = config.image, .snapshot = std::nullopt};
  if (!config.snapshot.empty()) {
    spec.snapshot = SourceOf(ctx, *client, internal::OpenSnapshot(ctx, *client, config.snapshot));
  }
  spec.cpus = config.cpus.value_or(0);
  spec.memory_mib = config.memory_mib.value_or(0);
  spec.upper_size_mib = config.oci_upper_size_mib;
  spec.labels = config.labels;
  spec.replace = config.replace;
  spec.detached = config.detached;
  return spec;
}

}  // namespace

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
  if (!state_) return;
  const auto client = state_->client;
  try {
    Close();
  } catch (const std::exception& e) {
    try {
      client->Log(e.what());
    } catch (...) {
      // A destructor has nobody left to tell.
    }
  }
}

const std::string& Sandbox::Name() const { return Open(state_).name; }

void Sandbox::Stop(const Context& ctx, const std::vector<StopOption>& options) {
  const SandboxState& state = Open(state_);
  state.client->backend->Stop(ctx, state.name, TimeoutOf(options));
}

void Sandbox::Kill(const Context& ctx) {
  const SandboxState& state = Open(state_);
  state.client->backend->Kill(ctx, state.name);
}

SandboxStatus Sandbox::WaitUntilStopped(const Context& ctx) const {
  const SandboxState& state = Open(state_);
  for (;;) {
    ctx.Check();
    const SandboxStatus status = state.client->backend->Inspect(ctx, state.name).status;
    if (status == SandboxStatus::kStopped || status == SandboxStatus::kCrashed) return status;
    std::this_thread::sleep_for(kPollInterval);
  }
}

void Sandbox::Detach(const Context& ctx) {
  const SandboxState& state = Open(state_);
  state.client->backend->Detach(ctx, state.name);
  state_.reset();
}

void Sandbox::Close() {
  Open(state_);
  const std::unique_ptr<SandboxState> state = std::move(state_);
  if (state->detached) return;
  try {
    const Context ctx = Context::Background();
    vmm::Backend& backend = *state->client->backend;
    // The name may be another's by now, and what runs somebody else's.
    const vmm::SandboxRecord now = backend.Inspect(ctx, state->name);
    if (now.created_at != state->created_at || now.started_at != state->started_at) return;
    backend.Stop(ctx, state->name, StopConfig{}.timeout);
  } catch (const Error& e) {
    // Somebody removed it meanwhile: then it is stopped as well.
    if (e.kind() != ErrorKind::kSandboxNotFound) throw;
  }
}

SandboxHandle::SandboxHandle(std::shared_ptr<ClientState> client, vmm::SandboxRecord record)
    : client_(std::move(client)), record_(std::move(record)) {}

const std::string& SandboxHandle::Name() const { return record_.name; }
SandboxStatus SandboxHandle::Status() const { return record_.status; }
std::chrono::system_clock::time_point SandboxHandle::CreatedAt() const {
  return record_.created_at;
}
std::chrono::system_clock::time_point SandboxHandle::UpdatedAt() const {
  return record_.updated_at;
}
const std::string& SandboxHandle::ConfigJSON() const { return record_.config_json; }

SandboxUpper SandboxHandle::Upper() const {
  if (!record_.upper) {
    Throw(ErrorKind::kInvalidConfig, "sandbox '{}' has no root disk of its own", Name());
  }
  const std::string image = record_.image ? record_.image->manifest_digest : std::string();
  return {.path = record_.upper->path.native(),
          .format = record_.upper->format,
          .fstype = record_.upper->fstype,
          .base_digest = record_.snapshot_digest.value_or(image)};
}

void SandboxHandle::Refresh(const Context& ctx) {
  record_ = client_->backend->Inspect(ctx, Name());
}

Sandbox SandboxHandle::Start(const Context& ctx) const {
  const vmm::SandboxRecord started = client_->backend->Start(ctx, Name(), /*detached=*/false);
  return SandboxState::Wrap(client_, started, /*detached=*/false);
}

void SandboxHandle::Stop(const Context& ctx, const std::vector<StopOption>& options) const {
  client_->backend->Stop(ctx, Name(), TimeoutOf(options));
}

void SandboxHandle::Kill(const Context& ctx) const { client_->backend->Kill(ctx, Name()); }

void SandboxHandle::Remove(const Context& ctx) const { client_->backend->Remove(ctx, Name()); }

SnapshotArtifact SandboxHandle::Snapshot(const Context& ctx, const std::string& name) const {
  // An empty name is none; in the options it would stand for "not set".
  base::CheckBareName("snapshot", name, internal::kMaxSnapshotName);
  return internal::CreateSnapshot(ctx, client_, Name(), {.name = name});
}

SnapshotArtifact SandboxHandle::SnapshotTo(const Context& ctx, const std::string& path) const {
  return internal::CreateSnapshot(ctx, client_, Name(), {.path = path});
}

Sandbox CreateSandbox(const Context& ctx, const std::string& name,
                      const std::vector<SandboxOption>& options, Client& client) {
  base::CheckBareName("sandbox", name, kMaxSandboxName);
  SandboxConfig config;
  for (const SandboxOption& option : options) option(config);
  const auto state = ClientState::Of(client);
  const vmm::SandboxRecord created = state->backend->Create(ctx, SpecFor(ctx, name, config, state));
  return SandboxState::Wrap(state, created, config.detached);
}

SandboxHandle GetSandbox(const Context& ctx, const std::string& name, Client& client) {
  const auto state = ClientState::Of(client);
  return SandboxState::Handle(state, state->backend->Inspect(ctx, name));
}

std::vector<SandboxHandle> ListSandboxes(const Context& ctx, Client& client) {
  const auto state = ClientState::Of(client);
  std::vector<vmm::SandboxRecord> records = state->backend->List(ctx);
  std::stable_sort(records.begin(), records.end(),
                   [](const auto& a, const auto& b) { return a.created_at > b.created_at; });
  std::vector<SandboxHandle> handles;
  handles.reserve(records.size());
  for (vmm::SandboxRecord& record : records) {
    handles.push_back(SandboxState::Handle(state, std::move(record)));
  }
  return handles;
}

Sandbox StartSandbox(const Context& ctx, const std::string& name, Client& client) {
  return GetSandbox(ctx, name, client).Start(ctx);
}

void RemoveSandbox(const Context& ctx, const std::string& name, Client& client) {
  ClientState::Of(client)->backend->Remove(ctx, name);
}

}  // namespace msb
