// SPDX-License-Identifier: Apache-2.0

#include "src/ops/boot.h"

#include <fmt/format.h>

#include <cstddef>
#include <filesystem>
#include <system_error>
#include <utility>

#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/ops/snapshot_source.h"
#include "src/vmm/qemu_machine.h"

namespace msb::ops {
namespace {

using base::Throw;

constexpr std::size_t kMaxSandboxName = 128;

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

// Throws kInvalidArgument if these settings cannot be those of a sandbox.
void CheckSettings(const SandboxConfig& config) {
  if (config.image.empty() == config.snapshot.empty()) {
    Throw(ErrorKind::kInvalidArgument,
          "set exactly one of image and snapshot, with WithImage or WithSnapshot or in "
          "SandboxConfig");
  }
  if (config.cpus == 0U || config.memory_mib == 0U) {
    Throw(ErrorKind::kInvalidArgument,
          "SandboxConfig::cpus and memory_mib must be at least 1, or absent");
  }
  if (config.oci_upper_size_mib == 0U) {
    Throw(ErrorKind::kInvalidArgument,
          "SandboxConfig::oci_upper_size_mib must be at least 1, or absent");
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
}

vmm::SandboxSpec SpecFor(const std::string& name, const SandboxConfig& config) {
  CheckSettings(config);
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

// Returns true if WithSnapshot would accept what was given to WithImage.
bool IsSnapshot(const Context& ctx, const ClientState& client, const std::string& text) {
  try {
    artifact::OpenNamed(ctx, client.home.snapshots_dir(), text);
    return true;
  } catch (const Error&) {
    return false;
  }
}

[[noreturn]] void ThrowWithHint(const Error& error, const std::string& hint) {
  throw Error(error.kind(), fmt::format("{}; {}", error.what(), hint), error.os_error());
}

vmm::SandboxRecord BootImage(const Context& ctx, const ClientState& client,
                             const vmm::SandboxSpec& spec) {
  try {
    return client.backend->Create(ctx, spec);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kImageNotFound || !IsSnapshot(ctx, client, spec.image)) throw;
    ThrowWithHint(e, fmt::format("'{}' is a snapshot: create a sandbox from it with WithSnapshot",
                                 base::Quoted(spec.image)));
  }
}

vmm::SandboxRecord BootSnapshot(const Context& ctx, ClientState& client,
                                const std::string& snapshot, vmm::SandboxSpec spec) {
  try {
    return WithSource(ctx, client, snapshot, [&](const vmm::SnapshotSource& source) {
      spec.snapshot = source;
      return client.backend->Create(ctx, spec);
    });
  } catch (const Error& e) {
    std::error_code error;
    const bool is_file = std::filesystem::is_regular_file(snapshot, error);
    if (e.kind() != ErrorKind::kSnapshotNotFound || !is_file) throw;
    ThrowWithHint(e, fmt::format("'{}' is a file: create a sandbox from a disk image with "
                                 "WithImage, or import an exported snapshot with Snapshot::Import",
                                 base::Quoted(snapshot)));
  }
}

}  // namespace

void CheckSandboxName(const std::string& name) {
  if (base::IsPlainFileName(name) && !name.starts_with('.')) return;
  Throw(ErrorKind::kSandboxNotFound,
        "no sandbox '{}': the name of a sandbox is a plain file name that does not begin with '.'",
        base::Quoted(name));
}

vmm::SandboxRecord BootSandbox(const Context& ctx, ClientState& client, const std::string& name,
                               const SandboxConfig& config) {
  base::CheckBareName("sandbox", name, kMaxSandboxName);
  vmm::SandboxSpec spec = SpecFor(name, config);
  if (config.snapshot.empty()) return BootImage(ctx, client, spec);
  return BootSnapshot(ctx, client, config.snapshot, std::move(spec));
}

}  // namespace msb::ops
