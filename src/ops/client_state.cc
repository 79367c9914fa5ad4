// SPDX-License-Identifier: Apache-2.0

#include "src/ops/client_state.h"

#include <pwd.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "src/artifact/store.h"
#include "src/base/call_scope.h"
#include "src/base/descriptor.h"
#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/vmm/local_backend.h"
#include "src/vmm/microsandbox_backend.h"
#include "src/vmm/qemu_backend.h"

namespace msb::internal {
namespace {

std::filesystem::path DefaultHome() {
  const char* home = std::getenv("HOME");
  std::string user_home = home == nullptr ? "" : home;
  if (user_home.empty()) {
    std::array<char, 4096> buffer;
    passwd entry{};
    passwd* user = nullptr;
    const base::StandardStreamGuard guard;  // getpwuid_r opens files.
    getpwuid_r(getuid(), &entry, buffer.data(), buffer.size(), &user);
    if (user != nullptr && user->pw_dir != nullptr) user_home = user->pw_dir;
  }
  if (user_home.empty()) {
    base::Throw(ErrorKind::kInvalidConfig,
                "cannot find a home directory: set HOME, MSB_HOME or Config::home");
  }
  return std::filesystem::path(user_home) / ".microsandbox";
}

void LogToStandardError(std::string_view message) {
  std::fprintf(stderr, "msb: %.*s\n", static_cast<int>(message.size()), message.data());
}

base::Home HomeOf(const Config& config) {
  return base::Home({.home = config.home.empty() ? DefaultHome() : config.home,
                     .snapshots = config.snapshots_dir,
                     .sandboxes = config.sandboxes_dir,
                     .cache = config.cache_dir});
}

Config WithDefaults(Config config) {
  const base::Home home = HomeOf(config);
  config.home = home.path();
  config.snapshots_dir = home.snapshots_dir();
  config.sandboxes_dir = home.sandboxes_dir();
  config.cache_dir = home.cache_dir();
  if (!config.log) config.log = LogToStandardError;
  config.log = base::DeferredLog(std::move(config.log));
  auto* backend = std::get_if<std::string>(&config.backend);
  if (backend != nullptr && backend->empty()) {
    *backend = home.FindRuntimeDatabase() ? "microsandbox" : "local";
  }
  return config;
}

bool IsPublished(const std::filesystem::path& artifact, const std::string& digest) {
  const auto manifest = artifact::ReadManifest(artifact);
  return manifest && manifest->digest == digest;
}

// Throws kSnapshotNotFound if the snapshot or one of its parents was replaced, by force, between
// being opened and being copied.
void CheckUnreplaced(const vmm::SnapshotSource& snapshot) {
  for (const BackingFile& file : snapshot.backing) artifact::CheckUnreplaced(file);
  const std::string now = artifact::OpenArtifactAt(snapshot.artifact).manifest.digest;
  if (now == snapshot.digest) return;
  base::Throw(ErrorKind::kSnapshotNotFound,
              "{} was replaced while it was copied: expected the digest {}, found {}; try again",
              snapshot.artifact.native(), snapshot.digest, now);
}

std::shared_ptr<vmm::Backend> MakeBackend(const Config& config, const base::Home& home) {
  if (const auto* own = std::get_if<std::shared_ptr<vmm::Backend>>(&config.backend)) {
    if (!*own) base::Throw(ErrorKind::kInvalidConfig, "Config::backend must not be a null pointer");
    return *own;
  }
  const auto& name = std::get<std::string>(config.backend);
  const vmm::SnapshotQueries queries{.is_published = IsPublished,
                                     .check_unreplaced = CheckUnreplaced};
  if (name == "local") {
    return std::make_shared<vmm::LocalBackend>(home, config.upper_format, queries, config.log);
  }
  if (name == "microsandbox") {
    return std::make_shared<vmm::MicrosandboxBackend>(home, config.msb_path, config.log);
  }
  if (name == "qemu") {
    return std::make_shared<vmm::QemuBackend>(home, config.upper_format, config.qemu, queries,
                                              config.log);
  }
  base::Throw(ErrorKind::kInvalidConfig,
              "unknown backend '{}': it must be local, microsandbox or qemu", base::Quoted(name));
}

}  // namespace

ClientState::ClientState(Config given)
    : config(WithDefaults(std::move(given))),
      home(HomeOf(config)),
      backend(MakeBackend(config, home)),
      catalog(home, config.log) {}

void ClientState::SweepBeside(const Context& ctx, const std::filesystem::path& destination) const {
  base::SweepStages(ctx, destination.parent_path(),
                    [&](std::string_view message) { Log(message); });
}

std::filesystem::path ClientState::DirectoryOrDefault(const std::filesystem::path& dir) const {
  if (dir.empty()) return home.snapshots_dir();
  return home.RespellDirectory(base::AbsolutePath(dir.native()));
}

}  // namespace msb::internal
