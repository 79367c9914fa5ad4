// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/seal.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdint>
#include <exception>
#include <utility>

#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"
#include "src/disk/qcow2_header.h"
#include "src/vmm/directory_disk.h"

namespace msb::vmm {
namespace {

using base::Entry;
using base::EntryType;
using base::Throw;

void Forward(DirectoryRecord& record, const base::Home& home) {
  record.sandbox.snapshot_digest = record.seal->digest;
  SetSnapshotPath(record.sandbox, home, record.seal->artifact);
  record.seal.reset();
}

void Back(int dir, const std::filesystem::path& path, DirectoryRecord& record) {
  SandboxRecord& sandbox = record.sandbox;
  const PendingSeal seal = *std::exchange(record.seal, std::nullopt);
  std::string upper = seal.file;
  // An upper that was taken over has two names, either of which will do.
  if (!seal.backing && !HasFile(dir, upper)) upper = sandbox.backing.at(0).name;
  const EntryType type = base::OpenEntryAt(dir, upper).type;
  if (type != EntryType::kRegularFile) {
    Throw(ErrorKind::kIO,
          "the disk {} must be a regular file, but is {}: restore it, or remove the sandbox",
          (path / upper).native(), base::Describe(type));
  }
  sandbox.upper->path = path / upper;
  if (seal.backing) {
    sandbox.backing = *seal.backing;
  } else {
    sandbox.backing.erase(sandbox.backing.begin());
  }
}

void MakeReadOnly(int upper, std::uint32_t mode) {
  try {
    base::TrySetMode(upper, mode & 0444);
  } catch (const Error& e) {
    if (e.os_error() != EPERM) throw;
    throw Error(e.kind(),
                fmt::format("cannot take over the disk {}: it belongs to user {}, and only its "
                            "owner can make a qcow2 disk the disk of a snapshot; run this as that "
                            "user, or create the sandbox with a raw disk, which is copied",
                            base::PathOf(upper), base::StampOf(upper).owner),
                EPERM);
  }
}

}  // namespace

BackingFile SnapshotFile(const std::filesystem::path& path, const SealSpec& spec,
                         const Disk& upper) {
  const DiskFormat format = spec.whole_disk ? spec.whole_disk->format : DiskFormat::kQcow2;
  const std::string name = disk::DiskFileName(spec.digest, format);
  return {name, {path / name, format, upper.fstype}};
}

bool ResolveSeal(const SealedSandbox& sealed, const PublishedPredicate& published) {
  DirectoryRecord& record = sealed.record;
  if (!record.seal) return false;
  const SandboxRecord& sandbox = record.sandbox;
  if (sandbox.backing.empty()) {
    Throw(ErrorKind::kInvalidConfig,
          "the record of sandbox {} has a pending seal, but lists no backing file; restore its "
          "sandbox.json, or remove the sandbox",
          sealed.path.native());
  }
  const bool has_files = HasFile(sealed.dir, sandbox.upper->path.filename()) &&
                         HasFile(sealed.dir, sandbox.backing[0].name);
  if (has_files && published(record.seal->artifact, record.seal->digest)) {
    Forward(record, sealed.home);
  } else {
    Back(sealed.dir, sealed.path, record);
  }
  return true;
}

Sealing::Sealing(const SealedSandbox& sandbox, Save save, Warn warn)
    : dir_(sandbox.dir),
      path_(sandbox.path),
      record_(sandbox.record),
      home_(sandbox.home),
      save_(std::move(save)),
      warn_(std::move(warn)),
      before_(record_) {}

Disk Sealing::Begin(const Context& ctx, const SealSpec& spec) {
  const Disk& upper = *record_.sandbox.upper;
  CheckArtifactPath(spec.artifact);
  Entry entry = base::OpenEntryAt(dir_, upper.path.filename());
  if (entry.type != EntryType::kRegularFile) {
    Throw(ErrorKind::kIO,
          "the disk {} must be a regular file, but is {}: restore it, or remove the sandbox",
          upper.path.native(), base::Describe(entry.type));
  }
  upper_ = std::move(entry.fd);
  stamp_ = base::StampOf(upper_.get());
  base_ = SnapshotFile(path_, spec, upper);
  overlay_ = NewUpperName(DiskFormat::kQcow2);
  try {
    LinkAndRecord(ctx, spec);
  } catch (...) {
    Undo();
    throw;
  }
  return base_.disk;
}

void Sealing::LinkAndRecord(const Context& ctx, const SealSpec& spec) {
  SandboxRecord& sandbox = record_.sandbox;
  const std::filesystem::path upper = sandbox.upper->path;
  PendingSeal seal{.file = upper.filename(), .digest = spec.digest, .artifact = spec.artifact};
  base::Sync(upper_.get());
  MakeOverlay(dir_, overlay_, disk::ReadQcow2Header(upper_.get(), upper.native()).virtual_size,
              base_);
  if (spec.whole_disk) {
    LinkOrCopy(ctx, spec.whole_disk->path, dir_, base_.name);
    seal.backing = std::exchange(sandbox.backing, {});
  } else {
    renames_ = !base::TryLinkFile(upper, dir_, base_.name);
    MakeReadOnly(upper_.get(), stamp_.mode);
  }
  const std::string former = seal.file;
  sandbox.upper->path = path_ / overlay_;
  sandbox.backing.insert(sandbox.backing.begin(), base_);
  record_.seal = std::move(seal);
  saving_ = true;
  save_();
  // Without links, the former upper has one name at a time; the record has both names.
  if (renames_) base::RenameOverAt(dir_, former, base_.name);
}

// Removes the name that the seal added or, if it renamed the former upper, renames that back.
void Sealing::Unlink() {
  const std::string former = before_.sandbox.upper->path.filename();
  if (!renames_ || HasFile(dir_, former)) {
    base::RemoveFile(base_.disk.path);
  } else {
    base::RenameOverAt(dir_, base_.name, former);
  }
}

// Removes the files first, which gives a full file system the space for the record. If the record
// on disk keeps the pending seal, it does not need them: the former upper is there.
void Sealing::Undo() noexcept {
  record_ = before_;
  TryStep([&] { base::RemoveFile(path_ / overlay_); }, warn_);
  TryStep([&] { Unlink(); }, warn_);
  TryStep([&] { RestoreMode(); }, warn_);
  if (saving_) TryStep(save_, warn_);
}

void Sealing::RestoreMode() {
  const base::FileStamp now = base::StampOf(upper_.get());
  if (now.mode != stamp_.mode && now.links <= stamp_.links) {
    base::TrySetMode(upper_.get(), stamp_.mode);
  }
}

void Sealing::RollForward() noexcept {
  TryStep(
      [&] {
        Forward(record_, home_);
        save_();
        Sweep(dir_, path_, record_.sandbox);
      },
      warn_);
}

void Sealing::RollBack() noexcept { Undo(); }

}  // namespace msb::vmm
