// SPDX-License-Identifier: Apache-2.0

#include "msb/sandbox.h"

#include <functional>
#include <utility>

#include "src/artifact/store.h"
#include "src/base/call_scope.h"
#include "src/base/throw.h"
#include "src/ops/boot.h"
#include "src/ops/create.h"
#include "src/ops/exec.h"
#include "src/ops/list.h"
#include "src/ops/stop.h"
#include "src/wrap.h"

namespace msb {

using internal::ArtifactState;
using internal::ClientState;
using internal::SandboxHandleState;
using internal::SandboxState;

struct internal::SandboxState {
  static Sandbox Wrap(std::shared_ptr<ClientState> client, const vmm::SandboxRecord& record,
                      bool detached) {
    return Sandbox(std::make_unique<SandboxState>(std::move(client), ops::Boot(record, detached)));
  }

  SandboxState(std::shared_ptr<ClientState> its_client, ops::Boot its_boot)
      : client(std::move(its_client)), boot(std::move(its_boot)) {}

  std::shared_ptr<ClientState> client;
  ops::Boot boot;
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

// Returns the state of a handle that is still open. Throws kInvalidHandle if it was closed.
SandboxState& Open(const std::unique_ptr<SandboxState>& state) {
  if (!state) {
    base::Throw(ErrorKind::kInvalidHandle,
                "the sandbox handle was closed; get another with GetSandbox");
  }
  return *state;
}

// Applies options, in their order, to a configuration with the defaults. Throws kInvalidArgument if
// one is empty.
template <typename T>
T ConfigOf(const std::vector<std::function<void(T&)>>& options) {
  T config;
  for (const auto& option : options) {
    if (!option) {
      base::Throw(ErrorKind::kInvalidArgument,
                  "an option is an empty function; leave it out, or use one of the With functions");
    }
    option(config);
  }
  return config;
}

}  // namespace

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
  if (state_) ops::EndOwnBoot(*state_->client, state_->boot);
}

const std::string& Sandbox::Name() const { return Open(state_).boot.name; }

ExecResult Sandbox::Exec(const Context& ctx, const std::vector<std::string>& command,
                         const ExecOptions& options) const {
  const base::CallScope scope;
  const SandboxState& state = Open(state_);
  return ops::ExecInSandbox(ctx, *state.client, state.boot.name, command, options);
}

std::filesystem::path Sandbox::Console() const {
  const base::CallScope scope;
  const SandboxState& state = Open(state_);
  return state.client->backend->Console(Context::Background(), state.boot.name);
}

void Sandbox::Stop(const Context& ctx, const std::vector<StopOption>& options) {
  Stop(ctx, ConfigOf<StopConfig>(options));
}

void Sandbox::Stop(const Context& ctx, const StopConfig& config) {
  const base::CallScope scope;
  const SandboxState& state = Open(state_);
  ops::StopSandbox(ctx, *state.client, state.boot.name, config);
}

void Sandbox::Kill(const Context& ctx) {
  const base::CallScope scope;
  const SandboxState& state = Open(state_);
  state.client->backend->Kill(ctx, state.boot.name);
}

SandboxStatus Sandbox::WaitUntilStopped(const Context& ctx) const {
  const base::CallScope scope;
  const SandboxState& state = Open(state_);
  return ops::WaitUntilStopped(ctx, *state.client, state.boot.name);
}

void Sandbox::Detach(const Context& ctx) {
  const base::CallScope scope;
  const SandboxState& state = Open(state_);
  state.client->backend->Detach(ctx, state.boot.name);
  state_.reset();
}

void Sandbox::Close() {
  const base::CallScope scope;
  Open(state_);
  const std::unique_ptr<SandboxState> state = std::move(state_);
  ops::EndBoot(*state->client, state->boot);
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
    base::Throw(
        ErrorKind::kInvalidConfig,
        "sandbox '{}' has no root disk of its own; create it again from an image or snapshot",
        record.name);
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
  const auto& client = state_->client;
  return SandboxState::Wrap(client, client->backend->Start(ctx, Name(), /*detached=*/false),
                            /*detached=*/false);
}

void SandboxHandle::Stop(const Context& ctx, const std::vector<StopOption>& options) const {
  Stop(ctx, ConfigOf<StopConfig>(options));
}

void SandboxHandle::Stop(const Context& ctx, const StopConfig& config) const {
  const base::CallScope scope;
  ops::StopSandbox(ctx, *state_->client, Name(), config);
}

void SandboxHandle::Kill(const Context& ctx) const {
  const base::CallScope scope;
  state_->client->backend->Kill(ctx, Name());
}

void SandboxHandle::Remove(const Context& ctx) const {
  const base::CallScope scope;
  state_->client->backend->Remove(ctx, Name());
}

ExecResult SandboxHandle::Exec(const Context& ctx, const std::vector<std::string>& command,
                               const ExecOptions& options) const {
  const base::CallScope scope;
  return ops::ExecInSandbox(ctx, *state_->client, Name(), command, options);
}

std::filesystem::path SandboxHandle::Console() const {
  const base::CallScope scope;
  return state_->client->backend->Console(Context::Background(), Name());
}

SnapshotArtifact SandboxHandle::Snapshot(const Context& ctx, const std::string& name) const {
  const base::CallScope scope;
  // An empty name is invalid, but in the options it would stand for "not set".
  artifact::CheckSnapshotName(name);
  const auto& client = state_->client;
  return ArtifactState::Wrap(client, ops::CreateSnapshot(ctx, *client, Name(), {.name = name}));
}

SnapshotArtifact SandboxHandle::SnapshotTo(const Context& ctx,
                                           const std::filesystem::path& path) const {
  const base::CallScope scope;
  const auto& client = state_->client;
  return ArtifactState::Wrap(client, ops::CreateSnapshot(ctx, *client, Name(), {.path = path}));
}

Sandbox CreateSandbox(const Context& ctx, const std::string& name,
                      const std::vector<SandboxOption>& options, const Client& client) {
  return CreateSandbox(ctx, name, ConfigOf<SandboxConfig>(options), client);
}

Sandbox CreateSandbox(const Context& ctx, const std::string& name, const SandboxConfig& config,
                      const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  return SandboxState::Wrap(state, ops::BootSandbox(ctx, *state, name, config), config.detached);
}

SandboxHandle GetSandbox(const Context& ctx, const std::string& name, const Client& client) {
  const base::CallScope scope;
  ops::CheckSandboxName(name);
  const auto state = ClientState::Of(client);
  return SandboxHandleState::Wrap(state, state->backend->Inspect(ctx, name));
}

std::vector<SandboxHandle> ListSandboxes(const Context& ctx, const Client& client) {
  const base::CallScope scope;
  const auto state = ClientState::Of(client);
  std::vector<SandboxHandle> handles;
  for (vmm::SandboxRecord& record : ops::SandboxesOf(ctx, *state)) {
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
  ops::CheckSandboxName(name);
  ClientState::Of(client)->backend->Remove(ctx, name);
}

}  // namespace msb
