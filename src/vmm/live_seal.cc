// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/live_seal.h"

#include <utility>

#include "src/base/regular_file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"
#include "src/disk/overlay_edit.h"
#include "src/disk/qcow2_header.h"
#include "src/vmm/directory_disk.h"

namespace msb::vmm {
namespace {

using base::EntryType;
using base::Throw;
using base::UniqueFd;

// The backing file that an overlay names until the name of the former upper is settled. No file has
// this name.
const std::string& PlaceholderName() {
  static const std::string name =
      disk::DiskFileName("sha256:" + std::string(64, '0'), DiskFormat::kQcow2);
  return name;
}

UniqueFd OpenRecordedUpper(const SealedSandbox& sandbox) {
  const std::filesystem::path& upper = sandbox.record.sandbox.upper->path;
  return base::RequireRegularFile(base::OpenEntryAt(sandbox.dir, upper.filename()), upper,
                                  ErrorKind::kIO);
}

// Returns true if the snapshot of a pending switch was published. The caller must have checked that
// there is one.
bool WasPublished(const SealedSandbox& sandbox, const PublishedPredicate& published) {
  const PendingSwitch& pending = *sandbox.record.live;
  if (pending.digest.empty()) return false;
  if (sandbox.record.sandbox.backing.empty()) {
    Throw(
        ErrorKind::kInvalidConfig,
        "the record of sandbox {} has a pending live snapshot, but lists no backing file; restore "
        "its sandbox.json, or remove the sandbox",
        sandbox.path.native());
  }
  return HasFile(sandbox.dir, sandbox.record.sandbox.backing[0].name) &&
         published(pending.artifact, pending.digest);
}

// Removes the pending switch from the record, in which the overlay is the upper from now on.
// Returns what must change in the directory, so that the overlay is backed by the snapshot's disk
// if that was published, and else by the former upper, which only the sandbox has then.
SwitchedFiles Settle(const SealedSandbox& sandbox, bool published) {
  SandboxRecord& record = sandbox.record.sandbox;
  PendingSwitch pending = *std::exchange(sandbox.record.live, std::nullopt);
  SwitchedFiles files{.overlay = pending.overlay};
  if (published) {
    record.snapshot_digest = pending.digest;
    SetSnapshotPath(record, sandbox.home, pending.artifact);
    files.backing_file = record.backing[0].name;
    return files;
  }
  if (pending.digest.empty()) {
    pending.file = record.upper->path.filename();
    record.backing.insert(record.backing.begin(), BackingFile{});
    record.upper->path = sandbox.path / pending.overlay;
  } else if (!HasFile(sandbox.dir, pending.file)) {
    // Where there are no links, the former upper was renamed.
    files.renamed = record.backing[0].name;
  }
  record.backing[0] = {pending.file,
                       {sandbox.path / pending.file, DiskFormat::kQcow2, record.upper->fstype}};
  files.backing_file = pending.file;
  return files;
}

void UndoRename(const SealedSandbox& sandbox, const SwitchedFiles& files) {
  if (files.renamed.empty()) return;
  base::RenameOverAt(sandbox.dir, files.renamed, files.backing_file);
}

// Names the backing file in the header of an overlay that no VM uses. Writes only if it must.
void NameBackingFile(const SealedSandbox& sandbox, const SwitchedFiles& files) {
  const std::filesystem::path path = sandbox.path / files.overlay;
  {
    const UniqueFd file = base::RequireRegularFile(base::OpenEntryAt(sandbox.dir, files.overlay),
                                                   path, ErrorKind::kIO);
    if (disk::ReadQcow2Header(file.get(), path.native()).backing_file == files.backing_file) return;
  }
  const UniqueFd file = base::OpenForUpdateAt(sandbox.dir, files.overlay);
  disk::SetBackingFile(file.get(), path, files.backing_file);
}

// Returns true if the VM has not written to the overlay of a pending switch, so that the upper
// alone is the disk.
bool IsUnused(const SealedSandbox& sandbox) {
  const PendingSwitch& pending = *sandbox.record.live;
  if (!pending.digest.empty()) return false;
  const base::Entry overlay = base::OpenEntryAt(sandbox.dir, pending.overlay);
  return overlay.type != EntryType::kRegularFile ||
         disk::IsEmptyOverlay(overlay.fd.get(), sandbox.path / pending.overlay);
}

}  // namespace

std::optional<SwitchedFiles> ResolveSwitch(const SealedSandbox& sandbox,
                                           const PublishedPredicate& published) {
  if (!sandbox.record.live) return std::nullopt;
  if (IsUnused(sandbox)) {
    sandbox.record.live.reset();
    return SwitchedFiles{};
  }
  return Settle(sandbox, WasPublished(sandbox, published));
}

void ChangeFiles(const SealedSandbox& sandbox, const SwitchedFiles& files) {
  if (files.overlay.empty()) return;
  UndoRename(sandbox, files);
  NameBackingFile(sandbox, files);
}

LiveSealing::LiveSealing(const SealedSandbox& sandbox, LiveDisk& disk, Save save, Warn warn)
    : sandbox_(sandbox),
      record_(sandbox.record),
      disk_(disk),
      save_(std::move(save)),
      warn_(std::move(warn)) {}

void LiveSealing::Resume(const Context& ctx, const PublishedPredicate& published) {
  if (!record_.live) return;
  if (disk_.WritesTo(ctx, record_.live->overlay)) {
    Adopt(WasPublished(sandbox_, published));
  } else if (record_.live->digest.empty()) {
    disk_.Close(ctx, record_.live->overlay);
    Drop();
  } else {
    Throw(ErrorKind::kInvalidConfig,
          "the record of sandbox {} has a pending live snapshot, but QEMU does not use its "
          "overlay; stop the sandbox, and start it again",
          sandbox_.path.native());
  }
}

void LiveSealing::MakeOverlay(const std::string& overlay) {
  const UniqueFd upper = OpenRecordedUpper(sandbox_);
  const std::filesystem::path& path = record_.sandbox.upper->path;
  const std::uint64_t size = disk::ReadQcow2Header(upper.get(), path.native()).virtual_size;
  vmm::MakeOverlay(sandbox_.dir, overlay, size,
                   {PlaceholderName(), {path, DiskFormat::kQcow2, {}}});
}

std::string_view LiveSealing::Switch(const Context& ctx, LiveSnapshot level) {
  const std::string overlay = NewUpperName(DiskFormat::kQcow2);
  try {
    MakeOverlay(overlay);
    record_.live = PendingSwitch{.overlay = overlay};
    save_();
    const std::string_view consistency = disk_.SwitchTo(ctx, overlay, level, warn_);
    const UniqueFd upper = OpenRecordedUpper(sandbox_);
    base::Sync(upper.get());
    base::TrySetMode(upper.get(), base::StampOf(upper.get()).mode & 0444);
    return consistency;
  } catch (...) {
    TryDrop(overlay);
    throw;
  }
}

Disk LiveSealing::Link(const SealSpec& spec) {
  if (spec.whole_disk) return *spec.whole_disk;
  CheckArtifactPath(spec.artifact);
  SandboxRecord& record = record_.sandbox;
  const std::filesystem::path upper = record.upper->path;
  const BackingFile base = SnapshotFile(sandbox_.path, spec, *record.upper);
  const bool is_linked = base::TryLinkFile(upper, sandbox_.dir, base.name);
  record_.live->digest = spec.digest;
  record_.live->artifact = spec.artifact;
  record_.live->file = upper.filename();
  record.backing.insert(record.backing.begin(), base);
  record.upper->path = sandbox_.path / record_.live->overlay;
  save_();
  // Without links, the former upper has one name at a time; the record has both names.
  if (!is_linked) base::RenameOverAt(sandbox_.dir, upper.filename(), base.name);
  return base.disk;
}

void LiveSealing::Finish(bool published) noexcept {
  TryStep(
      [&] {
        if (record_.live) Adopt(published);
      },
      warn_);
}

void LiveSealing::Adopt(bool published) {
  const PendingSwitch pending = *record_.live;
  const SwitchedFiles files = Settle(sandbox_, published);
  UndoRename(sandbox_, files);
  SetBackingFile(files);
  save_();
  if (pending.digest.empty()) return;
  const std::string other = disk::DiskFileName(pending.digest, DiskFormat::kQcow2);
  base::RemoveFile(sandbox_.path / (published ? pending.file : other));
}

void LiveSealing::SetBackingFile(const SwitchedFiles& files) {
  try {
    disk_.SetBackingFile(Context::Background(), files.overlay, files.backing_file);
  } catch (const Error&) {
    if (!disk_.HasEnded()) throw;
    NameBackingFile(sandbox_, files);
  }
}

void LiveSealing::Drop() {
  const std::string overlay = std::exchange(record_.live, std::nullopt)->overlay;
  save_();
  base::RemoveFile(sandbox_.path / overlay);
}

// If the VM has ended or does not answer, the switch stays pending.
void LiveSealing::TryDrop(const std::string& overlay) noexcept {
  TryStep(
      [&] {
        if (!record_.live) {
          base::RemoveFile(sandbox_.path / overlay);
        } else if (!disk_.HasEnded()) {
          // The digest is not known yet, so nothing was published.
          Resume(Context::Background(), {});
        }
      },
      warn_);
}

}  // namespace msb::vmm
