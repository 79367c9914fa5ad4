// SPDX-License-Identifier: Apache-2.0
//
// The members of DirectoryBackend by which a snapshot takes over the disk of a sandbox, and by
// which the next operation recovers a sandbox that was left in the middle of that.

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <utility>

#include "src/base/throw.h"
#include "src/vmm/directory_backend.h"
#include "src/vmm/directory_disk.h"
#include "src/vmm/live_seal.h"
#include "src/vmm/seal.h"

namespace msb::vmm {
namespace {

using base::Throw;

}  // namespace

std::optional<bool> DirectoryBackend::AskPublished(const std::filesystem::path& artifact,
                                                   const std::string& digest,
                                                   Warnings& warnings) const {
  try {
    return queries_.is_published(artifact, digest);
  } catch (const Error& e) {
    warnings.Add(
        fmt::format("cannot determine whether {} was published; assuming that it was not: {}",
                    artifact.native(), e.what()));
    return std::nullopt;
  }
}

SealedSandbox DirectoryBackend::SealedBy(Locked& sandbox) const {
  return {sandbox.dir, sandbox.path, sandbox.record, home_};
}

void DirectoryBackend::RecoverForReading(Locked& sandbox, Warnings& warnings) const {
  try {
    return Recover(sandbox, warnings);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled || !sandbox.record.live) throw;
    warnings.Add(
        fmt::format("sandbox {} was left in the middle of a live snapshot, and cannot be "
                    "recovered now: {}",
                    sandbox.path.native(), e.what()));
  }
  // The directory may not be writable. Then the record says all the same which disk there will be.
  const DirectoryRecord before = sandbox.record;
  try {
    ResolveSwitch(SealedBy(sandbox), queries_.is_published);
  } catch (const Error&) {
    sandbox.record = before;  // This is the error that is already known.
  }
}

void DirectoryBackend::Recover(Locked& sandbox, Warnings& warnings) const {
  bool is_certain = true;
  const auto published = [&](const std::filesystem::path& artifact, const std::string& digest) {
    const std::optional<bool> answer = AskPublished(artifact, digest, warnings);
    is_certain = answer.has_value();
    return answer.value_or(false);
  };
  const DirectoryRecord before = sandbox.record;
  bool resolved = false;
  try {
    resolved = ResolveSeal(SealedBy(sandbox), published);
    // A guess would do for a seal. A live snapshot needs the answer, because it changes files.
    if (const auto files = ResolveSwitch(SealedBy(sandbox), queries_.is_published)) {
      ChangeFiles(SealedBy(sandbox), *files);
      resolved = true;
    }
  } catch (...) {
    sandbox.record = before;
    throw;
  }
  // Do not save a guess: the next operation asks again, unless this one saves the record anyway.
  if (!is_certain) return;
  try {
    if (resolved) Save(sandbox);
    Sweep(sandbox.dir, sandbox.path, sandbox.record.sandbox);
  } catch (const Error& e) {
    warnings.Add(fmt::format("the recovery of sandbox {} is incomplete: {}", sandbox.path.native(),
                             e.what()));
  }
}

std::unique_ptr<LiveDisk> DirectoryBackend::OpenLiveDisk(const Context& /*ctx*/,
                                                         const Locked& sandbox) {
  Throw(
      ErrorKind::kUnsupportedOperation,
      "the {} backend runs no VM, so it cannot make a snapshot of sandbox '{}' while it runs; stop "
      "it first",
      Name(), sandbox.record.sandbox.name);
}

void DirectoryBackend::CheckSealable(const SandboxRecord& sandbox) {
  if (sandbox.sealable) return;
  Throw(
      ErrorKind::kUnsupportedOperation,
      "the disk of sandbox '{}' is raw, so a snapshot cannot take it over; stop the sandbox first, "
      "or create it again with a qcow2 disk",
      sandbox.name);
}

void DirectoryBackend::Seal(const Context& ctx, const std::string& name,
                            const SealDescriber& describe, const SealPublisher& publish) {
  Warnings warnings(log_);
  Locked sandbox = OpenIdle(ctx, name, warnings);
  SealIdle(ctx, sandbox, describe, publish, warnings);
}

void DirectoryBackend::SealIdle(const Context& ctx, Locked& sandbox, const SealDescriber& describe,
                                const SealPublisher& publish, Warnings& warnings) {
  CheckSealable(sandbox.record.sandbox);
  const SealSpec spec = describe(sandbox.record.sandbox);
  ctx.Check();
  Sealing sealing(
      SealedBy(sandbox), [&] { Save(sandbox); },
      [&](std::string message) { warnings.Add(std::move(message)); });
  const Disk sealed = sealing.Begin(ctx, spec);
  try {
    publish(sealed);
  } catch (...) {
    // publish may have failed after the artifact had been renamed into place.
    const bool published = AskPublished(spec.artifact, spec.digest, warnings).value_or(false);
    published ? sealing.RollForward() : sealing.RollBack();
    throw;
  }
  sealing.RollForward();
}

void DirectoryBackend::SealLive(const Context& ctx, const std::string& name, LiveSnapshot level,
                                const LiveSealDescriber& describe, const SealPublisher& publish) {
  Warnings warnings(log_);
  Locked sandbox = OpenLocked(ctx, name);
  if (sandbox.record.sandbox.status != SandboxStatus::kRunning) {
    Recover(sandbox, warnings);
    const auto describe_stopped = [&](const SandboxRecord& record) {
      return describe(record, "stopped");
    };
    return SealIdle(ctx, sandbox, describe_stopped, publish, warnings);
  }
  CheckSealable(sandbox.record.sandbox);
  const std::unique_ptr<LiveDisk> disk = OpenLiveDisk(ctx, sandbox);
  LiveSealing sealing(
      SealedBy(sandbox), *disk, [&] { Save(sandbox); },
      [&](std::string message) { warnings.Add(std::move(message)); });
  const auto was_published = [&](const std::filesystem::path& artifact, const std::string& digest) {
    return AskPublished(artifact, digest, warnings).value_or(false);
  };
  sealing.Resume(ctx, queries_.is_published);
  const std::string_view consistency = sealing.Switch(ctx, level);
  SealSpec spec;
  try {
    spec = describe(sandbox.record.sandbox, consistency);
    ctx.Check();
    publish(sealing.Link(spec));
  } catch (...) {
    const bool is_linked = !spec.digest.empty() && !spec.whole_disk;
    sealing.Finish(is_linked && was_published(spec.artifact, spec.digest));
    throw;
  }
  sealing.Finish(/*published=*/!spec.whole_disk);
}

}  // namespace msb::vmm
