// SPDX-License-Identifier: Apache-2.0

#include "src/ops/create.h"

#include <optional>
#include <string_view>
#include <utility>

#include "src/artifact/consistency.h"
#include "src/artifact/create.h"
#include "src/artifact/manifest.h"
#include "src/artifact/output_directory.h"
#include "src/base/digest.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"
#include "src/handle/dependents.h"
#include "src/handle/finder.h"
#include "src/handle/lineage.h"
#include "src/ops/boot.h"
#include "src/ops/new_snapshot.h"
#include "src/vmm/directory_record.h"

namespace msb::ops {
namespace {

using artifact::ManifestForm;
using base::Throw;

// How many times Create starts over because the sandbox was replaced or changed during the call.
constexpr int kMaxAttempts = 20;

bool IsRunning(const vmm::SandboxRecord& sandbox) {
  return sandbox.status != SandboxStatus::kCreated && sandbox.status != SandboxStatus::kStopped &&
         sandbox.status != SandboxStatus::kCrashed;
}

void CheckNotRunning(const vmm::SandboxRecord& sandbox) {
  if (!IsRunning(sandbox)) return;
  Throw(ErrorKind::kSnapshotSandboxRunning, "sandbox '{}' is {}{}; stop it first{}", sandbox.name,
        ToString(sandbox.status), sandbox.runs_on.empty() ? "" : ", as " + sandbox.runs_on,
        sandbox.sealable ? ", or, on the qemu backend, set SnapshotCreateOptions::live" : "");
}

// A live snapshot becomes a backing file of the sandbox that runs, whose disk cannot be written out
// and exchanged for the result.
void CheckShortChain(const vmm::SandboxRecord& sandbox) {
  if (sandbox.backing.size() < handle::kMaxBackingFiles) return;
  Throw(ErrorKind::kUnsupportedOperation,
        "the disk of sandbox '{}' is backed by {} files already, which is the limit; stop the "
        "sandbox and create a snapshot, which will be a complete disk and start a new chain",
        sandbox.name, sandbox.backing.size());
}

// Throws kInvalidConfig unless the sandbox has the image and the disk that a manifest must record.
void CheckDescribable(const vmm::SandboxRecord& sandbox) {
  if (!sandbox.image) {
    Throw(ErrorKind::kInvalidConfig,
          "sandbox '{}' has no pinned image; create it again from an image", sandbox.name);
  }
  if (!sandbox.upper) {
    Throw(ErrorKind::kInvalidConfig,
          "sandbox '{}' has no root disk of its own; create it again from an image or snapshot",
          sandbox.name);
  }
  if (!base::IsDigest(sandbox.image->manifest_digest, "sha256") || sandbox.image->ref.empty()) {
    Throw(ErrorKind::kInvalidConfig,
          "the image of sandbox '{}' must have a reference and a SHA-256 digest, but has '{}' and "
          "'{}'; create the sandbox again from an image",
          sandbox.name, base::Quoted(sandbox.image->ref),
          base::Quoted(sandbox.image->manifest_digest));
  }
}

artifact::Manifest ManifestFor(const vmm::SandboxRecord& sandbox, ManifestForm form,
                               const SnapshotCreateOptions& options) {
  CheckDescribable(sandbox);
  artifact::Manifest manifest = NewManifest(form, options);
  manifest.parent = sandbox.snapshot_digest;
  manifest.image = *sandbox.image;
  manifest.source_sandbox = sandbox.name;
  manifest.fstype = sandbox.upper->fstype;
  manifest.layers = {
      {.file = disk::UpperFileName(sandbox.upper->format), .format = sandbox.upper->format}};
  return manifest;
}

// Returns whether an error of this kind may be due to a disk that was moved or replaced.
bool MayBeOutdated(ErrorKind kind) {
  return kind == ErrorKind::kIO || kind == ErrorKind::kInvalidConfig ||
         kind == ErrorKind::kUnsupportedOperation || kind == ErrorKind::kSnapshotSandboxRunning;
}

// Returns whether two records of a sandbox describe the same disk of the same sandbox, in the same
// state.
bool IsSame(const vmm::SandboxRecord& a, const vmm::SandboxRecord& b) {
  return a.created_at == b.created_at && IsRunning(a) == IsRunning(b) &&
         a.upper.has_value() == b.upper.has_value() &&
         (!a.upper || (a.upper->path == b.upper->path && a.upper->format == b.upper->format)) &&
         a.backing.size() == b.backing.size();
}

// One call of Create.
class Creation {
 public:
  Creation(const Context& ctx, ClientState& client, const std::string& sandbox,
           const SnapshotCreateOptions& options)
      : ctx_(ctx), client_(client), sandbox_(sandbox), options_(options) {}

  artifact::Artifact Run();

 private:
  vmm::SandboxRecord Inspect() const { return client_.backend->Inspect(ctx_, sandbox_); }
  // Fills in spec_, except for what Describe fills in.
  void Prepare(const vmm::SandboxRecord& sandbox);
  // Describes a snapshot of the sandbox as it is now.
  void Describe(const vmm::SandboxRecord& sandbox);
  // Throws kSnapshotSandboxRunning if the sandbox runs and must not.
  void CheckState(const vmm::SandboxRecord& sandbox) const {
    if (options_.live == LiveSnapshot::kOff) CheckNotRunning(sandbox);
  }
  // Checks, before the disk of a running sandbox is exchanged, what would make the call fail later.
  void CheckLive(const vmm::SandboxRecord& sandbox);
  // Takes over or copies the disk of a sandbox that was just inspected.
  artifact::Artifact SnapshotDisk(const vmm::SandboxRecord& sandbox);
  // Takes over the sandbox's disk. Takes constant time, unless it must write out the complete disk
  // or record its integrity.
  artifact::Artifact Seal(const vmm::SandboxRecord& sandbox);
  // Stages the snapshot of a sandbox whose disk is taken over, and describes it to the backend.
  vmm::SealSpec Stage(const vmm::SandboxRecord& sandbox, std::string_view consistency);
  // Returns the artifact that spec_ describes, before it exists.
  artifact::Artifact Described() const {
    return {.path = spec_.destination, .manifest = spec_.manifest, .member = std::nullopt};
  }
  // Returns true if a snapshot of the sandbox must be its complete disk, because it would be backed
  // by more files than can be booted, by a file that only the sandbox has, or by the snapshot that
  // it replaces.
  bool MustBeWhole(const vmm::SandboxRecord& sandbox) const;
  // Returns true if the snapshot at the destination, which force replaces, backs the sandbox's
  // disk.
  bool ReplacesBacking(const vmm::SandboxRecord& sandbox) const;
  // Keeps other calls from removing the snapshot that backs the sandbox's disk until the new
  // snapshot is published. Returns false if the new snapshot must be the complete disk.
  bool KeepBacking(const vmm::SandboxRecord& sandbox);

  const Context& ctx_;
  ClientState& client_;
  const std::string& sandbox_;
  const SnapshotCreateOptions& options_;
  ManifestForm form_ = ManifestForm::kDescriptor;
  artifact::NewArtifact spec_;
  std::optional<artifact::StagedArtifact> staged_;
  std::optional<base::LockedDirectory> backing_;  // Locks the snapshot that backs the disk.
  // The snapshot is, or may become, a complete disk, which needs no other snapshot.
  bool is_whole_ = true;
  bool is_live_ = false;  // The disk of a running sandbox may have been exchanged.
};

artifact::Artifact Creation::Run() {
  spec_.destination = DestinationOf(options_, client_);
  ctx_.Check();
  client_.SweepBeside(ctx_, spec_.destination);
  vmm::SandboxRecord sandbox = Inspect();
  Prepare(sandbox);
  std::optional<artifact::Artifact> created;
  for (int attempt = 0; !created; ++attempt) {
    try {
      created = SnapshotDisk(sandbox);
    } catch (const Error& e) {
      // The sandbox may have been removed, replaced or sealed since it was inspected.
      if (is_live_ || !MayBeOutdated(e.kind()) || attempt >= kMaxAttempts) throw;
      vmm::SandboxRecord now = Inspect();
      if (IsSame(sandbox, now)) throw;
      sandbox = std::move(now);
    }
  }
  // From here on the snapshot exists, so neither a cancellation nor the index may make this fail.
  client_.catalog.RecordPublished(ctx_, *created);
  return *std::move(created);
}

void Creation::Prepare(const vmm::SandboxRecord& sandbox) {
  CheckState(sandbox);
  handle::IndexParent(ctx_, client_.catalog, sandbox);
  form_ = FormFor(ctx_, client_);
  ApplyOptions(form_, options_, spec_);
  ProtectReplaced(ctx_, client_, spec_, [this] { return is_whole_ ? sandbox_ : std::string(); });
  artifact::CheckOutputDirectory(spec_.destination);
}

void Creation::CheckLive(const vmm::SandboxRecord& sandbox) {
  CheckDescribable(sandbox);
  CheckShortChain(sandbox);
  vmm::CheckArtifactPath(spec_.destination);
  artifact::CheckDestination(spec_);
  const base::Stage writable(spec_.destination.parent_path(), base::Stage::Parents::kMake);
}

void Creation::Describe(const vmm::SandboxRecord& sandbox) {
  spec_.manifest = ManifestFor(sandbox, form_, options_);
  // A snapshot that is replaced must not stay in the ancestry of the new one.
  auto& parent = spec_.manifest.parent;
  const auto old = options_.force && parent ? artifact::ReadManifest(spec_.destination)
                                            : std::optional<artifact::Manifest>();
  if (old && old->digest == *parent) parent = old->parent;
  spec_.upper = sandbox.upper->path;
  spec_.backing = sandbox.backing;
}

artifact::Artifact Creation::SnapshotDisk(const vmm::SandboxRecord& sandbox) {
  backing_.reset();
  CheckState(sandbox);
  if (IsRunning(sandbox)) CheckLive(sandbox);
  Describe(sandbox);
  if (sandbox.sealable || IsRunning(sandbox)) return Seal(sandbox);
  artifact::NewArtifact spec = spec_;
  spec.flatten = is_whole_ = MustBeWhole(sandbox);
  spec.confirm = [&] {
    CheckNotRunning(Inspect());
    if (is_whole_ || KeepBacking(sandbox)) return;
    Throw(ErrorKind::kSnapshotNotFound,
          "the snapshot that sandbox '{}' is backed by was removed while its disk was copied; try "
          "again",
          sandbox_);
  };
  return artifact::CreateArtifact(ctx_, std::move(spec));
}

artifact::Artifact Creation::Seal(const vmm::SandboxRecord& sandbox) {
  artifact::Artifact artifact;
  const auto describe = [&](const vmm::SandboxRecord& now) {
    return Stage(now, artifact::kStopped);
  };
  const auto describe_live = [&](const vmm::SandboxRecord& now, std::string_view consistency) {
    return Stage(now, consistency);
  };
  const auto publish = [&](const Disk& sealed) {
    artifact = artifact::PublishArtifact(ctx_, *std::exchange(staged_, std::nullopt), sealed.path);
  };
  try {
    if (IsRunning(sandbox)) {
      is_live_ = true;
      client_.backend->SealLive(ctx_, sandbox_, options_.live, describe_live, publish);
    } else {
      client_.backend->Seal(ctx_, sandbox_, describe, publish);
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kSandboxStillRunning) throw;
    Throw(ErrorKind::kSnapshotSandboxRunning, "{}", e.what());
  }
  return artifact;
}

vmm::SealSpec Creation::Stage(const vmm::SandboxRecord& sandbox, std::string_view consistency) {
  Describe(sandbox);
  artifact::SetConsistency(spec_.manifest, consistency);
  do {
    backing_.reset();
    staged_.reset();
    artifact::NewArtifact spec = spec_;
    spec.flatten = is_whole_ = MustBeWhole(sandbox);
    staged_ = artifact::StageArtifact(ctx_, std::move(spec));
  } while (!is_whole_ && !KeepBacking(sandbox));
  vmm::SealSpec seal{.digest = staged_->spec.manifest.digest, .artifact = spec_.destination};
  if (staged_->spec.flatten) seal.whole_disk = staged_->WholeDisk();
  return seal;
}

bool Creation::MustBeWhole(const vmm::SandboxRecord& sandbox) const {
  return sandbox.backing.size() >= handle::kMaxBackingFiles || ReplacesBacking(sandbox) ||
         !handle::HasBacking(ctx_, client_.catalog, sandbox, Described());
}

bool Creation::ReplacesBacking(const vmm::SandboxRecord& sandbox) const {
  if (!options_.force || sandbox.backing.empty()) return false;
  const auto manifest = artifact::ReadManifest(spec_.destination);
  return manifest && handle::IsBackedBy(sandbox, manifest->digest);
}

bool Creation::KeepBacking(const vmm::SandboxRecord& sandbox) {
  backing_ = handle::LockBacking(ctx_, client_.catalog, sandbox, Described());
  if (!backing_ || ReplacesBacking(sandbox)) return false;
  // Two calls, each of which replaces the snapshot that the other has locked, must not wait for
  // each other. Neither sandbox changes any more, so this check refuses the later call.
  CheckReplacement(spec_);
  return true;
}

}  // namespace

artifact::Artifact CreateSnapshot(const Context& ctx, ClientState& client,
                                  const std::string& source_sandbox,
                                  const SnapshotCreateOptions& options) {
  CheckSandboxName(source_sandbox);
  return Creation(ctx, client, source_sandbox, options).Run();
}

}  // namespace msb::ops
